"""What happens when something on the page is pressed: words in, HTML out, never an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from m3router.data.errors import DataError, M3RouterError
from m3router.data.videos import is_video
from m3router.router.demo import drawings
from m3router.router.demo.views import AnyService, View, view_of

AUTO, BUDGET, FIXED = "Auto", "Auto within a budget", "One scale"
"""Who chooses the scale, or the option."""

_NO_IMAGE = "There is no image yet: upload an image or a video, or take an example."
_BROKEN = "Something went wrong on the server; its log says what. Try again, or another image."
_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How a question is to be answered.

    Attributes:
        mode: :data:`AUTO`, :data:`BUDGET` or :data:`FIXED`.
        level: From 1, the coarsest option; read in :data:`FIXED` only.
        budget: Mean cost; read in :data:`BUDGET` only.
    """

    mode: str
    level: int
    budget: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the places of the page show after a question; "" for nothing.

    Attributes:
        problem: What is wrong.
        answer: The answer and its option.
        chart: The predicted sufficiency.
        grid: The image as the model was given it.
        everywhere: The answers at all options.
        savings: What the session saved.
        session: What the session cost, as of its view's `nothing_spent`.
    """

    problem: str = ""
    answer: str = ""
    chart: str = ""
    grid: str = ""
    everywhere: str = ""
    savings: str = ""
    session: Any


def preview(service: AnyService, path: str | None) -> tuple[str, str]:
    """Show an upload as the model will see it.

    Returns:
        What is wrong, and the image; one of them "".
    """
    if path is None:
        return "", ""
    file = Path(path)

    def shown() -> str:
        frames = service.pipeline.frames if is_video(file) else 0
        image = service.open(file)
        outside = service.is_outside(image)
        return drawings.preview(image, file.name, frames=frames, outside=outside)

    return _guarded(shown, "")


def ask(
    service: AnyService,
    path: str | None,
    question: str | None,
    choices: Choices,
    session: Any,
) -> Shown:
    """Answer a question; what it saved is added to the session."""
    return _asked(service, path, question, choices, session, everywhere=False)


def ask_everywhere(
    service: AnyService,
    path: str | None,
    question: str | None,
    choices: Choices,
    session: Any,
) -> Shown:
    """Answer a question as in :func:`ask` and at every option; not counted in the session."""
    return _asked(service, path, question, choices, session, everywhere=True)


def _asked(
    service: AnyService,
    path: str | None,
    question: str | None,
    choices: Choices,
    session: Any,
    *,
    everywhere: bool,
) -> Shown:
    view = view_of(service)

    def answered() -> Shown:
        panels = view.ask(
            _opened(service, path),
            question or "",
            place=_place(view, choices),
            budget=_budget(choices),
            how=_how(view, service.policy, choices),
            everywhere=everywhere,
        )
        spent = session if everywhere else session + panels.spending
        return Shown(
            answer=panels.answer,
            chart=panels.chart,
            grid=panels.grid,
            everywhere=panels.everywhere,
            savings=view.savings(spent),
            session=spent,
        )

    wrong, shown = _guarded(answered, Shown(session=session))
    if not wrong:
        return shown
    return Shown(problem=wrong, savings=view.savings(session), session=session)


def _guarded(made: Callable[[], T], otherwise: T) -> tuple[str, T]:
    """What is wrong as HTML, or "", and what was made."""
    try:
        return "", made()
    except M3RouterError as error:
        return drawings.problem(str(error)), otherwise
    except Exception:  # the edge of the server: a visitor sees no traceback
        _log.exception("A visitor's question failed")
        return drawings.problem(_BROKEN), otherwise


def _opened(service: AnyService, path: str | None) -> Image.Image:
    if path is None:
        raise DataError(_NO_IMAGE)
    return service.open(Path(path))


def _place(view: View, choices: Choices) -> int | None:
    """Place of the option that was fixed, None where the router chooses."""
    if choices.mode != FIXED:
        return None
    if not 1 <= choices.level <= len(view.names):
        raise DataError(
            f"{view.one.capitalize()}s go from 1 to {len(view.names)}, not {choices.level}."
        )
    return choices.level - 1


def _budget(choices: Choices) -> float | None:
    return choices.budget if choices.mode == BUDGET else None


def _how(view: View, policy: str, choices: Choices) -> str:
    if choices.mode == FIXED:
        return "chosen by you"
    if choices.mode == BUDGET:
        return f"chosen by the router within {view.within(choices.budget)} on average"
    return f"chosen by the router with the policy {policy}"
