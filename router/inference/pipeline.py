"""Answer questions at the scale that a router and a policy choose."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypedDict, Unpack, overload

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.batching import answer_all
from m3router.m3core.matryoshka.by_option import scale_named
from m3router.router.cascade.rule import Cascade
from m3router.router.features.featurizer import check_source, live_featurizer
from m3router.router.inference.decider import Clock, Decider
from m3router.router.inference.images import AnyImage, is_one_image, opened, paired
from m3router.router.inference.loading import load_labelled_model, read_rule, reads_own_model
from m3router.router.inference.result import RoutedAnswer as RoutedAnswer
from m3router.router.inference.session import Encoder, Session
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.training.scale_router import ScaleRouter


class HowToAnswer(TypedDict, total=False):
    """What may be said of how to answer, see :meth:`AutoScalePipeline.answer`."""

    option: str | None
    scale: int | None
    policy: Policy | Cascade | str | None
    budget: float | None


class AutoScalePipeline:
    """A frozen model, a router that knows it, and a policy calibrated for that router.

    Attributes:
        frames: Frames of a video's collage, as many as the router was trained on.

    Args:
        model: The model.
        router: Trained on a log and on features of this very model.
        policy: Calibrated for this router.
        cascade: In place of the policy: asks a finer scale where an answer looks wrong.
        run: Where other policies are; None without.

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
        run: Run | None = None,
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
        self._run = run
        featurizer = live_featurizer(model, router.blocks, features)
        self.frames = featurizer.frames
        self.decider = Decider(
            model=model, router=router, policy=policy, cascade=cascade, featurizer=featurizer
        )
        self.encoder = Encoder(model)

    @classmethod
    def load(
        cls,
        run: AnyRun,
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
        run = as_run(run)
        run.need_router()
        router = ScaleRouter.read(run.arm())
        revision = router.metadata.get("log", {}).get("revision")
        if revision and not reads_own_model(router):
            raise MismatchError(
                f"The router of {run.root} decides before the model sees the image; this pipeline "
                "is for routers that read a Matryoshka model's own features. Open the run with "
                "m3router.open_pipeline(run)."
            )
        if model is None:
            model = run.model_name()
        if isinstance(model, str):
            model = load_labelled_model(model, router, device=device)
        rule, cascade = read_rule(run, policy)
        return cls(model=model, router=router, policy=rule, cascade=cascade, run=run)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options, the scales of the model, coarsest first."""
        return self.router.options

    def ask(self, image: AnyImage, question: str, **how: Unpack[HowToAnswer]) -> RoutedAnswer:
        """Answer one question about one image, at the option that suffices.

        Args:
            image: A PIL image, the path of an image or video, a uint8 array (height, width, 3) or
                (height, width), or the bytes of an image file.
            question: What is asked.
            how: As in :meth:`answer`: option, scale, policy, budget.

        Raises:
            DataError: As :meth:`answer`.
        """
        (told,) = self.answer([image], [question], **how)
        return told

    @overload
    def answer(  # type: ignore[overload-overlap]  # a text is a sequence of texts
        self, images: AnyImage, questions: str, **how: Unpack[HowToAnswer]
    ) -> RoutedAnswer: ...

    @overload
    def answer(
        self,
        images: AnyImage | Sequence[AnyImage],
        questions: Sequence[str],
        **how: Unpack[HowToAnswer],
    ) -> list[RoutedAnswer]: ...

    def answer(
        self,
        images: AnyImage | Sequence[AnyImage],
        questions: str | Sequence[str],
        *,
        option: str | None = None,
        scale: int | None = None,
        policy: Policy | Cascade | str | None = None,
        budget: float | None = None,
    ) -> RoutedAnswer | list[RoutedAnswer]:
        """Answer question i about image i, each at its own scale, batched by length.

        Args:
            images: As in :meth:`ask`. What comes several times (the same object, or equal paths)
                is encoded once. A single image goes with all questions.
            questions: One for each image; a single one goes with all images. A single image and
                a single question give a single answer, as :meth:`ask` does.
            option: Answer everything at the scale of this name, such as ``"144"``, instead of
                routing; for callers that treat all pipelines alike.
            scale: Answer everything at this scale instead of routing.
            policy: Route by this policy or cascade, or by the run's of this name, instead of by
                the pipeline's own. A policy that is given as such does not ask again.
            budget: Route within so many visual tokens on average.

        Raises:
            MismatchError: If the lengths differ, the scale is not in the grid, or the policy
                belongs to another router.
            DataError: If a question is empty or does not fit the model's context, a file cannot
                be read, there is no such policy, a budget cannot be met, or it, an option or a
                scale is given beside another of them.
        """
        alone = isinstance(questions, str) and is_one_image(images)
        images, questions = paired(images, questions)
        if not images:
            return []
        if budget is not None and [option, scale, policy].count(None) < 3:
            raise DataError("Give at most one of an option, a scale, a policy and a budget.")
        if option is not None:
            if scale is not None:
                raise DataError("Give an option or a scale, not both.")
            scale = scale_named(self.model, str(option))
        fewest = self.model.grid.scales[0] if scale is None else self.model.check_scale(scale)
        for question in questions:
            self.model.prompt_length(question, fewest)  # a scale costs at least its name
        if budget is not None:
            policy = self._calibration.policy(budget=budget)
        elif isinstance(policy, str):
            policy = self._named(policy)
        if policy is not None:
            policy.check_fits(options=self.router.options, router=self.router.fingerprint)
        shown = opened(images, frames=self.frames)
        answers = self.run(
            [
                Session(image=image, question=question, rule=scale or policy)
                for image, question in zip(shown, questions, strict=True)
            ]
        )
        return answers[0] if alone else answers

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

    def _named(self, policy: str) -> Policy | Cascade:
        """What decides under a policy's name."""
        rule, cascade = read_rule(self._place(f"the policy {policy!r}"), policy)
        return cascade or rule

    @cached_property
    def _calibration(self) -> CalibrationData:
        return CalibrationData.read(self._place("a budget"))

    def _place(self, what: str) -> Run:
        if self._run is None:
            raise DataError(
                f"{what} needs a run folder: load the pipeline with AutoScalePipeline.load"
            )
        return self._run
