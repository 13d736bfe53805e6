"""Answer questions at the scale that a router and a policy choose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.errors import MismatchError
from data.videos import FRAMES, open_picture
from m3core.batching import answer_all
from m3core.checkpoints import load_model
from m3core.models.base import Answer, MultiScaleModel, Request, VisualEncoding
from m3core.pooling import AVERAGE
from router.features.extract import check_source
from router.features.image import image_features
from router.features.question import question_encoder
from router.policy import Policy
from router.router import ScaleRouter


@dataclass(frozen=True, kw_only=True)
class RoutedAnswer:
    """An answer, the scale it was given at and why.

    Attributes:
        answer: The answer with its token counts.
        scale: The chosen scale; what it really cost is in ``answer.visual_tokens``.
        sufficiency: Scale to the estimated probability that it answers rightly; empty where the
            caller fixed the scale.
        milliseconds: Wall-clock time by stage (``vision``, ``features``, ``route``,
            ``language``); a batch's time is shared equally.
        flops: Operations of the ``language`` model and of the ``vision`` tower, which sees a
            picture of a high-resolution model several times.
    """

    answer: Answer
    scale: int
    sufficiency: dict[int, float]
    milliseconds: dict[str, float]
    flops: dict[str, float]


class _Clock:
    """Adds up the time of the stages of one batch."""

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(("vision", "features", "route", "language"), 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.milliseconds[stage] += (now - self._last) * 1000
        self._last = now


class AutoScalePipeline:
    """A frozen model, a router that knows it, and a policy calibrated for that router.

    Attributes:
        frames: Frames of a video's collage, as many as the router was trained on.

    Args:
        model: The model.
        router: Trained on a log and on features of this very model.
        policy: Calibrated for this router.

    Raises:
        MismatchError: If the three do not belong together.
    """

    def __init__(self, *, model: MultiScaleModel, router: ScaleRouter, policy: Policy) -> None:
        router.check_options(model.grid.names, of=f"the model {model.name}")
        features = router.metadata.get("features", {})
        check_source(str(features.get("source", "unknown")), model)
        policy.check_fits(options=router.options, router=router.fingerprint)
        self.model = model
        self.router = router
        self.policy = policy
        self.frames = int(features.get("frames", FRAMES))
        self._questions = question_encoder(features.get("question_encoder", "model"), model)

    @classmethod
    def load(
        cls,
        run: Path | str,
        *,
        model: MultiScaleModel | str = "embedded",
        policy: str = "default",
        device: str = "auto",
    ) -> AutoScalePipeline:
        """Load router and policy from a run folder.

        Args:
            run: A run folder after ``train`` and ``calibrate``.
            model: The model that the run labelled, or its name; by name it is loaded with the
                pooling that the run was labelled with.
            policy: Name of the policy.
            device: Where a model given by name is loaded.
        """
        folder = Path(run)
        router = ScaleRouter.read(folder / "router")
        if isinstance(model, str):
            visual = router.metadata.get("features", {}).get("visual", {})
            model = load_model(
                model,
                device=device,
                pooling=visual.get("pooling", AVERAGE),
                grids=visual["grids"].split() if "grids" in visual else None,
                unlisted_grids=True,  # the run was labelled with these
            )
        return cls(
            model=model,
            router=router,
            policy=Policy.read(folder / "policies" / f"{policy}.json"),
        )

    def answer(
        self,
        images: Sequence[Image.Image | Path],
        questions: Sequence[str],
        *,
        scale: int | None = None,
    ) -> list[RoutedAnswer]:
        """Answer question i about image i, each at its own scale, batched by length.

        Args:
            images: RGB pictures, or files of pictures and videos. What comes several times (the
                same object, or equal paths) is encoded once.
            questions: One for each picture.
            scale: Answer everything at this scale instead of routing.

        Raises:
            MismatchError: If the lengths differ or the scale is not in the grid.
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
        pictures = self._opened(images)
        clock = _Clock()
        distinct = list({id(picture): picture for picture in pictures}.values())
        place = {id(picture): number for number, picture in enumerate(distinct)}
        encodings = self.model.encode(distinct)
        clock.lap("vision")
        own = [encodings[place[id(picture)]] for picture in pictures]
        chosen, estimates = self._route(own, questions, scale, clock)
        requests = [
            Request(encoding=encoding, question=question, scale=one)
            for encoding, question, one in zip(own, questions, chosen, strict=True)
        ]
        answers = answer_all(self.model, requests)
        clock.lap("language")
        share = {stage: spent / len(images) for stage, spent in clock.milliseconds.items()}
        return [
            self._result(answer, request, estimate, share)
            for answer, request, estimate in zip(answers, requests, estimates, strict=True)
        ]

    def _opened(self, images: Sequence[Image.Image | Path]) -> list[Image.Image]:
        """The pictures themselves; equal paths give the same object."""
        paths = {image for image in images if isinstance(image, Path)}
        opened = {path: open_picture(path, frames=self.frames) for path in paths}
        return [opened[image] if isinstance(image, Path) else image for image in images]

    def _route(
        self,
        encodings: Sequence[VisualEncoding],
        questions: Sequence[str],
        scale: int | None,
        clock: _Clock,
    ) -> tuple[list[int], list[dict[int, float]]]:
        if scale is not None:
            return [scale] * len(questions), [{}] * len(questions)
        seen: dict[int, np.ndarray] = {}
        for encoding in encodings:
            if id(encoding) not in seen:
                seen[id(encoding)] = image_features(encoding, self.model.grid)
        asked = self._questions.encode(questions)
        clock.lap("features")
        scales = self.model.grid.scales
        chosen, estimates = [], []
        for encoding, vector in zip(encodings, asked, strict=True):
            p = self.router.predict_one({"image": seen[id(encoding)], "question": vector})
            costs = np.array([encoding.tokens(one) for one in scales], dtype=np.float64)
            chosen.append(scales[self.policy.decide(p, costs)])
            estimates.append(dict(zip(scales, p.tolist(), strict=True)))
        clock.lap("route")
        return chosen, estimates

    def _result(
        self, answer: Answer, request: Request, estimate: dict[int, float], share: dict[str, float]
    ) -> RoutedAnswer:
        prompt = answer.visual_tokens + answer.text_tokens
        return RoutedAnswer(
            answer=answer,
            scale=request.scale,
            sufficiency=estimate,
            milliseconds=dict(share),
            flops={
                "language": self.model.shape.answer_flops(prompt, answer.answer_tokens),
                "vision": self.model.shape.vision_flops(request.encoding.views),
            },
        )
