"""Sessions as pages: what is typed, and what is said, as it would be on any machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from experiments.sessions.sessions import INSTALLED, Session, Step

SECONDS = 600.0
"""Most for one step on a busy machine."""
WIDTH = 110
_TIMES = (
    (re.compile(r"\d[\d.,]*( \w+)?/s\b"), "…/s"),
    (re.compile(r"\b\d[\d.,]* ?s\b"), "… s"),
    (re.compile(r"\b\d+:\d\d(?::\d\d)?\b"), "…"),
)
_PROGRESS = re.compile(r"^[\w ]+: +(\d+)/(\d+)\b")
_MARK = "==== step {} ended with {}"


def record(session: Session, folder: Path) -> str:
    """Type a session in an empty folder; gives its page.

    Raises:
        RuntimeError: A step takes longer than `SECONDS`.
    """
    outputs = [normalised(text, folder) for text in _typed(session.steps, folder)]
    return page(session, outputs)


def page(session: Session, outputs: Iterable[str]) -> str:
    """The page of a session with what each step said."""
    parts = [
        f"# {session.title}\n",
        "<!-- Written by `python -m experiments.sessions`; do not edit. -->\n",
        f"{session.said}\n",
        INSTALLED,
    ]
    for step, output in zip(session.steps, outputs, strict=True):
        if step.said:
            parts.append(f"{step.said}\n")
        first, *others = step.typed.splitlines()
        typed = "\n".join([f"$ {first}", *others])
        parts.append("```console\n" + "\n".join(one for one in (typed, output) if one) + "\n```\n")
    return "\n".join(parts)


def steps_of(text: str) -> Iterator[tuple[str, str]]:
    """What a page shows: what was typed, and what was said to it."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        lines = block.removeprefix("$ ").rstrip("\n").split("\n")
        ends = [place for place, line in enumerate(lines) if line == "END"]
        long = ends[-1] + 2 if ends else 1  # a text that is typed into a file, and what runs it
        yield "\n".join(lines[:long]), "\n".join(lines[long:])


def normalised(text: str, folder: Path) -> str:
    """An output without what differs from one machine, place or time to another."""
    text = text.replace(f"{folder.resolve()}{os.sep}", "").replace(f"{folder}{os.sep}", "")
    kept = []
    for line in text.replace("\r", "\n").split("\n"):
        found = _PROGRESS.match(line)
        if found and found[1] != found[2]:
            continue  # how far it was at some moment
        for pattern, instead in _TIMES:
            line = pattern.sub(instead, line)
        kept.append(line.rstrip())
    return "\n".join(kept).strip("\n")


def _typed(steps: Iterable[Step], folder: Path) -> list[str]:
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": str(WIDTH),
        "NO_COLOR": "1",
    }
    outputs = []
    for step in steps:
        # The command of this very installation, whatever else is called m3router here.
        shell = f'm3router() {{ "{sys.executable}" -m m3router "$@"; }}\n{step.typed}'
        done = subprocess.run(
            ["bash", "-c", shell],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        outputs.append(done.stdout)
    return outputs


def recorded(session: Session) -> str:
    """The page of a session, typed now in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="session-") as folder:
        return record(session, Path(folder))
