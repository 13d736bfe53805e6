"""What the demo's two kinds of service share: uploads, questions and budgets."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from m3router.data.errors import DataError
from m3router.data.videos import open_media
from m3router.router.demo.budgets import Budgets
from m3router.router.inference.option_pipeline import OptionPipeline
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.monitoring.scenes import is_outside, reads_scenes_only, scene_likeness
from m3router.router.policies.policy import Policy

LONGEST_QUESTION = 2000
"""Characters; more is refused before any of it is read."""

AnyPipeline = TypeVar("AnyPipeline", AutoScalePipeline, OptionPipeline)


class Service(Generic[AnyPipeline]):
    """Answers one question at a time.

    Attributes:
        pipeline: What answers.
        policy: Name of its policy.
        no_budget: Why there are no policies for other budgets; else "".

    Args:
        pipeline: See above.
        budgets: Makes policies for other budgets.
        policy: See above.
    """

    def __init__(self, pipeline: AnyPipeline, *, budgets: Budgets, policy: str = "default") -> None:
        self.pipeline: AnyPipeline = pipeline
        self.policy = policy
        self.no_budget = budgets.why_none
        self._budgets = budgets
        self._one_at_a_time = threading.Lock()

    @property
    def reads_scenes_only(self) -> bool:
        """Whether the model is the embedded one, which reads drawn scenes and nothing else."""
        return reads_scenes_only(self.pipeline.model)

    def is_outside(self, image: Image.Image) -> bool:
        """Whether an RGB image is outside what the model can read, as far as that is known."""
        return is_outside(scene_likeness(self.pipeline.model, image))

    def open(self, path: Path) -> Image.Image:
        """Read a visitor's image or video as RGB.

        Raises:
            DataError: When it cannot be read; the message names the file without its folder.
        """
        return open_upload(path, frames=self.pipeline.frames)

    def _policy(self, question: str, budget: float | None) -> Policy | None:
        """The policy for a budget, once the question is known to be short enough.

        Raises:
            DataError: If the question is too long, or the budget cannot be kept.
        """
        check_length(question)
        return None if budget is None else self._budgets.policy(budget)


def open_upload(path: Path, *, frames: int) -> Image.Image:
    """Read a visitor's image or video as RGB.

    Args:
        path: The file.
        frames: Of a video's collage.

    Raises:
        DataError: When it cannot be read; the message names the file without its folder.
    """
    if not os.path.lexists(path):
        raise DataError(f"The upload {path.name} is no longer kept here; upload it again.")
    try:
        return open_media(path, frames=frames)
    except DataError as error:
        raise DataError(str(error).replace(str(path), path.name)) from error


def check_length(question: str) -> None:
    """Refuse what is too long to be a question.

    Raises:
        DataError: With both lengths.
    """
    if len(question) > LONGEST_QUESTION:
        raise DataError(
            f"The question has {len(question)} characters, and at most {LONGEST_QUESTION} are "
            "taken here; shorten it."
        )
