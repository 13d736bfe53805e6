"""What happens when something on the page is pressed: words in, HTML out, never an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from data.errors import DataError, M3RouterError
from data.videos import is_video
from router.demo import drawings
from router.demo.desk import Desk, Told
from router.demo.sitting import Spending

AUTO, BUDGET, FIXED = "Auto", "Auto within a budget", "One scale"
"""Who chooses the scale."""

_NO_PICTURE = "There is no picture yet: upload a picture or a video, or take an example."
_BROKEN = "Something went wrong on the server; its log says what. Try again, or another picture."
_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How a question is to be answered.

    Attributes:
        mode: :data:`AUTO`, :data:`BUDGET` or :data:`FIXED`.
        level: From 1, the coarsest scale; read in :data:`FIXED` only.
        budget: Mean visual tokens; read in :data:`BUDGET` only.
    """

    mode: str
    level: int
    budget: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the places of the page show after a question; "" for nothing.

    Attributes:
        problem: What is wrong.
        answer: The answer and its scale.
        chart: The predicted sufficiency.
        grid: The pooled grid over the picture.
        everywhere: The answers at all scales.
        savings: What the sitting saved.
        sitting: What the sitting cost.
    """

    problem: str = ""
    answer: str = ""
    chart: str = ""
    grid: str = ""
    everywhere: str = ""
    savings: str = ""
    sitting: Spending = Spending()


def preview(desk: Desk, path: str | None) -> tuple[str, str]:
    """Show an upload as the model will see it.

    Returns:
        What is wrong, and the picture; one of them "".
    """
    if path is None:
        return "", ""
    file = Path(path)

    def shown() -> str:
        frames = desk.pipeline.frames if is_video(file) else 0
        return drawings.preview(desk.open(file), file.name, frames=frames)

    return _guarded(shown, "")


def ask(
    desk: Desk, path: str | None, question: str | None, choices: Choices, sitting: Spending
) -> Shown:
    """Answer a question; what it saved is added to the sitting."""

    def answered() -> Shown:
        told = desk.ask(
            _opened(desk, path),
            question or "",
            scale=_scale(desk, choices),
            budget=_budget(choices),
        )
        spent = sitting + told.spending
        return Shown(
            **_about(desk, told, choices),
            savings=drawings.savings(spent),
            sitting=spent,
        )

    return _shown(answered, sitting)


def ask_everywhere(
    desk: Desk, path: str | None, question: str | None, choices: Choices, sitting: Spending
) -> Shown:
    """Answer a question as in :func:`ask` and at every scale; not counted in the sitting."""

    def answered() -> Shown:
        image, asked = _opened(desk, path), question or ""
        budget = _budget(choices)
        told = desk.ask(image, asked, scale=_scale(desk, choices), budget=budget)
        compared = desk.compare(image, asked, budget=budget)
        return Shown(
            **_about(desk, told, choices),
            everywhere=drawings.comparison(compared, asked.strip()),
            savings=drawings.savings(sitting),
            sitting=sitting,
        )

    return _shown(answered, sitting)


def _about(desk: Desk, told: Told, choices: Choices) -> dict[str, str]:
    return {
        "answer": drawings.answer(told, desk.scales, how=_how(desk, choices)),
        "chart": drawings.chart(told),
        "grid": drawings.grid(told),
    }


def _shown(answered: Callable[[], Shown], sitting: Spending) -> Shown:
    wrong, shown = _guarded(answered, Shown(sitting=sitting))
    if not wrong:
        return shown
    return Shown(problem=wrong, savings=drawings.savings(sitting), sitting=sitting)


def _guarded(made: Callable[[], T], otherwise: T) -> tuple[str, T]:
    """What is wrong as HTML, or "", and what was made."""
    try:
        return "", made()
    except M3RouterError as error:
        return drawings.problem(str(error)), otherwise
    except Exception:  # the edge of the server: a visitor sees no traceback
        _log.exception("A visitor's question failed")
        return drawings.problem(_BROKEN), otherwise


def _opened(desk: Desk, path: str | None) -> Image.Image:
    if path is None:
        raise DataError(_NO_PICTURE)
    return desk.open(Path(path))


def _scale(desk: Desk, choices: Choices) -> int | None:
    """The scale that was fixed, None where the router chooses."""
    if choices.mode != FIXED:
        return None
    if not 1 <= choices.level <= len(desk.scales):
        raise DataError(f"Scales go from 1 to {len(desk.scales)}, not {choices.level}.")
    return desk.scales[choices.level - 1]


def _budget(choices: Choices) -> float | None:
    return choices.budget if choices.mode == BUDGET else None


def _how(desk: Desk, choices: Choices) -> str:
    if choices.mode == FIXED:
        return "chosen by you"
    if choices.mode == BUDGET:
        return f"chosen by the router within {choices.budget:g} visual tokens on average"
    return f"chosen by the router with the policy {desk.policy}"
