"""The recorded sessions are what is typed and said today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.sessions.compare import alike, differences
from experiments.sessions.record import normalised, page, record, steps_of
from experiments.sessions.sessions import SESSIONS

PAGES = Path(__file__).resolve().parents[2] / "docs" / "sessions"


def recorded(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_every_session_is_recorded_as_it_is_typed() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(SESSIONS)
    for name, session in SESSIONS.items():
        shown = dict(steps_of(recorded(name)))
        assert list(shown) == [step.typed for step in session.steps], name
        outputs = [shown[step.typed] for step in session.steps]
        assert page(session, outputs) == recorded(name)


def test_the_steps_that_take_no_time_say_what_is_shown(tmp_path: Path) -> None:
    session = SESSIONS["lmms-eval"]
    quick = [step for step in session.steps if "m3router" not in step.typed]
    quick.append(session.steps[-1])  # the one that is mistyped
    found = record(replace(session, steps=tuple(quick)), tmp_path)
    shown = dict(steps_of(recorded("lmms-eval")))
    for typed, said in steps_of(found):
        assert said == shown[typed], typed


@pytest.mark.tutorial
@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_says_what_is_shown(name: str, tmp_path: Path) -> None:
    assert differences(recorded(name), record(SESSIONS[name], tmp_path)) == []


def test_what_differs_between_machines_is_not_recorded(tmp_path: Path) -> None:
    said = f"drawing: 3/30, about 4 s left\ndrawing: 30/30, 12.5 s (7.1/s)\n{tmp_path}/run/log  \n"
    assert normalised(said, tmp_path) == "drawing: 30/30, … s (…/s)\nrun/log"
    assert alike("at 81.0 %", "at 83.2 %") and not alike("at 40 %", "at 80 %")
    assert differences("", page(SESSIONS["lmms-eval"], [""] * 5)) == ["other commands are typed"]
