"""What happens when something on the page is pressed: words in, HTML out, never an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from m3router.data.errors import DataError, M3RouterError
from m3router.data.videos import is_video
from m3router.router.demo import drawings
from m3router.router.demo.service import DemoService, Told
from m3router.router.demo.session_stats import Spending

AUTO, BUDGET, FIXED = "Auto", "Auto within a budget", "One scale"
"""Who chooses the scale."""

_NO_IMAGE = "There is no image yet: upload an image or a video, or take an example."
_BROKEN = "Something went wrong on the server; its log says what. Try again, or another image."
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
        grid: The pooled grid over the image.
        everywhere: The answers at all scales.
        savings: What the session saved.
        session: What the session cost.
    """

    problem: str = ""
    answer: str = ""
    chart: str = ""
    grid: str = ""
    everywhere: str = ""
    savings: str = ""
    session: Spending = Spending()


def preview(service: DemoService, path: str | None) -> tuple[str, str]:
    """Show an upload as the model will see it.

    Returns:
        What is wrong, and the image; one of them "".
    """
    if path is None:
        return "", ""
    file = Path(path)

    def shown() -> str:
        frames = service.pipeline.frames if is_video(file) else 0
        return drawings.preview(service.open(file), file.name, frames=frames)

    return _guarded(shown, "")


def ask(
    service: DemoService,
    path: str | None,
    question: str | None,
    choices: Choices,
    session: Spending,
) -> Shown:
    """Answer a question; what it saved is added to the session."""

    def answered() -> Shown:
        told = service.ask(
            _opened(service, path),
            question or "",
            scale=_scale(service, choices),
            budget=_budget(choices),
        )
        spent = session + told.spending
        return Shown(
            **_about(service, told, choices),
            savings=drawings.savings(spent),
            session=spent,
        )

    return _shown(answered, session)


def ask_everywhere(
    service: DemoService,
    path: str | None,
    question: str | None,
    choices: Choices,
    session: Spending,
) -> Shown:
    """Answer a question as in :func:`ask` and at every scale; not counted in the session."""

    def answered() -> Shown:
        asked = question or ""
        compared = service.compare(
            _opened(service, path),
            asked,
            scale=_scale(service, choices),
            budget=_budget(choices),
        )
        return Shown(
            **_about(service, compared.told, choices),
            everywhere=drawings.comparison(compared, asked.strip()),
            savings=drawings.savings(session),
            session=session,
        )

    return _shown(answered, session)


def _about(service: DemoService, told: Told, choices: Choices) -> dict[str, str]:
    return {
        "answer": drawings.answer(told, service.scales, how=_how(service, choices)),
        "chart": drawings.chart(told),
        "grid": drawings.grid(told),
    }


def _shown(answered: Callable[[], Shown], session: Spending) -> Shown:
    wrong, shown = _guarded(answered, Shown(session=session))
    if not wrong:
        return shown
    return Shown(problem=wrong, savings=drawings.savings(session), session=session)


def _guarded(made: Callable[[], T], otherwise: T) -> tuple[str, T]:
    """What is wrong as HTML, or "", and what was made."""
    try:
        return "", made()
    except M3RouterError as error:
        return drawings.problem(str(error)), otherwise
    except Exception:  # the edge of the server: a visitor sees no traceback
        _log.exception("A visitor's question failed")
        return drawings.problem(_BROKEN), otherwise


def _opened(service: DemoService, path: str | None) -> Image.Image:
    if path is None:
        raise DataError(_NO_IMAGE)
    return service.open(Path(path))


def _scale(service: DemoService, choices: Choices) -> int | None:
    """The scale that was fixed, None where the router chooses."""
    if choices.mode != FIXED:
        return None
    if not 1 <= choices.level <= len(service.scales):
        raise DataError(f"Scales go from 1 to {len(service.scales)}, not {choices.level}.")
    return service.scales[choices.level - 1]


def _budget(choices: Choices) -> float | None:
    return choices.budget if choices.mode == BUDGET else None


def _how(service: DemoService, choices: Choices) -> str:
    if choices.mode == FIXED:
        return "chosen by you"
    if choices.mode == BUDGET:
        return f"chosen by the router within {choices.budget:g} visual tokens on average"
    return f"chosen by the router with the policy {service.policy}"
