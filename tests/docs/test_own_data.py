"""The page about one's own data: its blocks run, one after another, and write what it shows."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from tests.docs.fences import fences, missing_lines

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-data.md"


def test_the_page_about_own_data_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    written, ran = "", 0
    for fence in fences(PAGE.read_text(encoding="utf-8")):
        if fence.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(fence.text, str(PAGE), "exec"), names)
            written = out.getvalue()
        elif fence.title == "Output":
            assert not missing_lines(fence.text, written), written
            ran += 1
    assert ran == 3
