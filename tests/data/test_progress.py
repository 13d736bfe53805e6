"""Progress: a bar on a terminal, a few plain lines elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from m3router.data import progress as shown
from m3router.data.progress import as_counted, progress_bar, silence, waiting, watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_every_ten_seconds_without_control_characters(clock, capsys):
    lines: list[str] = []
    with progress_bar("labelling", line=lines.append) as advance:
        for done in range(101):
            clock[0] = float(done) / 2
            advance(done, 100, "9:0.50")
    assert lines[0] == "labelling: 0/100 (9:0.50)" and lines[-1].startswith(
        "labelling: 100/100, 50"
    )
    assert len(lines) == 6 and "about 40 s left" in lines[1]
    assert all(text.isprintable() for text in lines)
    with progress_bar("fetching", line=lines.append) as advance:
        advance(7, None, "")
    assert lines[-1] == "fetching: 7"
    assert capsys.readouterr() == ("", "")


def test_python_programs_log_it(caplog):
    caplog.set_level(logging.INFO, logger="m3router.data.progress")
    with watched(True, "training", as_counted) as show:
        show(1, 2, "x")
    assert "training: 1/2 (x)" in caplog.text


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with progress_bar("features") as advance:
        advance(2, 4, "images")
        advance(4, 4, "images")
        advance(1, 9, "questions")  # the next part counts anew
    with waiting("loading"):
        pass
    text = terminal.getvalue()
    assert "features: 100%" in text and "4/4" in text and "1/9" in text and "loading …" in text


def test_it_can_be_silent_and_one_s_own(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    for nothing in (False, None):
        with watched(nothing, "training", as_counted) as show:
            assert show is None
    told: list[tuple[int, int, str]] = []
    with watched(lambda *values: told.append(values), "training", as_counted) as show:
        show(1, 2, "own")
    assert told == [(1, 2, "own")]
    monkeypatch.setenv(shown.SILENCE, "1")
    silence()
    lines: list[str] = []
    with progress_bar("training", line=lines.append) as advance, waiting("loading"):
        advance(1, 2, "")
    assert lines == [] and sys.stderr.getvalue() == ""
