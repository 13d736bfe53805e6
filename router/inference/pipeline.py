"""Answer questions at the scale that a router and a policy choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from m3router.data.errors import MismatchError
from m3router.data.videos import open_media
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.batching import answer_all
from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.features.featurizer import check_source, live_featurizer
from m3router.router.inference.decision import Clock, Decider
from m3router.router.inference.loading import load_labelled_model
from m3router.router.inference.result import RoutedAnswer as RoutedAnswer
from m3router.router.inference.session import Encoder, Session
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.training.scale_router import ScaleRouter


class AutoScalePipeline:
    """A frozen model, a router that knows it, and a policy calibrated for that router.

    Attributes:
        frames: Frames of a video's collage, as many as the router was trained on.

    Args:
        model: The model.
        router: Trained on a log and on features of this very model.
        policy: Calibrated for this router.
        cascade: In place of the policy: asks a finer scale where an answer looks wrong.

    Raises:
        MismatchError: If they do not belong together.
    """

    def __init__(
        self,
        *,
        model: MultiScaleModel,
        router: ScaleRouter,
        policy: Policy,
        cascade: Cascade | None = None,
    ) -> None:
        router.check_options(model.grid.names, of=f"the model {model.name}")
        features = router.metadata.get("features", {})
        check_source(str(features.get("source", "unknown")), model)
        policy.check_fits(options=router.options, router=router.fingerprint)
        if cascade is not None:
            cascade.check_fits(options=router.options, router=router.fingerprint)
        self.cascade = cascade
        self.model = model
        self.router = router
        self.policy = policy
        featurizer = live_featurizer(model, router.blocks, features)
        self.frames = featurizer.frames
        self.decider = Decider(
            model=model, router=router, policy=policy, cascade=cascade, featurizer=featurizer
        )
        self.encoder = Encoder(model)

    @classmethod
    def load(
        cls,
        run: Path | str,
        *,
        model: MultiScaleModel | str | None = None,
        policy: str = "default",
        device: str = "auto",
    ) -> AutoScalePipeline:
        """Load router and policy from a run folder, and the policy's cascade if it has one.

        Args:
            run: A run folder after ``train`` and ``calibrate``.
            model: The model that was labelled, or its name, folder or hub id, by which it is
                loaded with the pooling and the longest answer that the run was labelled with; None
                for the run's own, where its name is enough (`Run.model_name`).
            policy: Name of the policy.
            device: Where a model given by name is loaded.

        Raises:
            DataError: When a part is missing or damaged, or the model must be given.
            MismatchError: When the parts do not belong together.
        """
        folder = Path(run)
        router = ScaleRouter.read(folder / "router")
        if model is None:
            model = Run(folder).model_name()
        if isinstance(model, str):
            model = load_labelled_model(model, router, device=device)
        escalates = cascade_path(folder, policy)
        return cls(
            model=model,
            router=router,
            policy=Policy.read(folder / "policies" / f"{policy}.json"),
            cascade=Cascade.read(escalates) if escalates.is_file() else None,
        )

    def answer(
        self,
        images: Sequence[Image.Image | Path],
        questions: Sequence[str],
        *,
        scale: int | None = None,
        policy: Policy | None = None,
    ) -> list[RoutedAnswer]:
        """Answer question i about image i, each at its own scale, batched by length.

        Args:
            images: RGB images, or files of images and videos. What comes several times (the
                same object, or equal paths) is encoded once.
            questions: One for each image.
            scale: Answer everything at this scale instead of routing.
            policy: Route by this policy, without asking again, instead of by the pipeline's own.

        Raises:
            MismatchError: If the lengths differ, the scale is not in the grid, or the policy
                belongs to another router.
            DataError: If a question is empty or does not fit the model's context, or a file
                cannot be read.
        """
        if len(images) != len(questions):
            raise MismatchError(f"{len(images)} images but {len(questions)} questions were given")
        if not images:
            return []
        fewest = self.model.grid.scales[0] if scale is None else self.model.check_scale(scale)
        for question in questions:
            self.model.prompt_length(question, fewest)  # a scale costs at least its name
        if policy is not None:
            policy.check_fits(options=self.router.options, router=self.router.fingerprint)
        opened = self._opened(images)
        return self.run(
            [
                Session(image=image, question=question, rule=scale or policy)
                for image, question in zip(opened, questions, strict=True)
            ]
        )

    def run(self, sessions: Sequence[Session]) -> list[RoutedAnswer]:
        """Take sessions through all stages, batched by length.

        Args:
            sessions: New ones. Where one brings an encoding, the vision tower is not run for it.

        Raises:
            DataError: As in :meth:`answer`.
        """
        clock = Clock()
        self.encoder.encode(sessions)
        clock.lap("vision")
        for part in self.decider.decide(sessions, clock):
            staying = [(one, one.peek) for one in part if one.peek is not None]
            finished = self.model.finish([peek for _, peek in staying]) if staying else []
            for (one, _), answer in zip(staying, finished, strict=True):
                one.peek = None
                one.escalate(answer)
            staying.clear()  # peeks hold the keys and values of their batch
            clock.lap("language")
        # First those that were never answered, so that batches do not depend on who escalates.
        while asked := (
            [one for one in sessions if one.answer is None and not one.earlier]
            or [one for one in sessions if one.answer is None]
        ):
            for one, answer in zip(
                asked, answer_all(self.model, [one.prompt for one in asked]), strict=True
            ):
                one.escalate(answer)
        clock.lap("language")
        for one in sessions:
            one.milliseconds = {
                stage: spent / len(sessions) for stage, spent in clock.milliseconds.items()
            }
        return [one.result(self.model) for one in sessions]

    def _opened(self, images: Sequence[Image.Image | Path]) -> list[Image.Image]:
        """The images themselves; equal paths give the same object."""
        paths = {image for image in images if isinstance(image, Path)}
        opened = {path: open_media(path, frames=self.frames) for path in paths}
        return [opened[image] if isinstance(image, Path) else image for image in images]
