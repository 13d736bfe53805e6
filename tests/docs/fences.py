"""The fenced blocks of a Markdown page, and a page's blocks run as a reader would type them."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = "Not run by the tests"
OUTPUT = "Output"
END = "==== end of block {}"
FENCE = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![A-Za-z])\d+(?:[ ,]\d{3})*(?:\.\d+)?(?:e[-+]\d+)?(?![A-Za-z0-9])")
TIME = re.compile(r"\d[\d.,]* ?(?:µs|ms|s|min|h)\b|\d[\d.]*/s\b")


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its title (empty without one), its text and its line."""

    language: str
    title: str
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    """A block that is run, and the output that the page shows below it, if any."""

    fence: Fence
    expected: str | None


def fences(page: str) -> list[Fence]:
    """All fenced blocks of a page, in order."""
    return [
        Fence(
            found["language"],
            found["title"] or "",
            found["text"],
            page[: found.start()].count("\n") + 1,
        )
        for found in FENCE.finditer(page)
    ]


def steps(page: str) -> list[Step]:
    """The blocks of a page that are run: bash and python, unless their title says otherwise."""
    found = fences(page)
    run = []
    for fence, following in zip(found, [*found[1:], None], strict=True):
        if fence.language in ("bash", "python") and not fence.title.startswith(NOT_RUN):
            shown = following is not None and following.title == OUTPUT
            run.append(Step(fence, following.text if following and shown else None))
    return run


def run_page(
    page: str, *, folder: Path, environment: dict[str, str], seconds: float
) -> list[tuple[Step, str]]:
    """Run a page's blocks in one shell, so that what one leaves behind the next one finds.

    Returns:
        Each block with what it wrote, both streams together.

    Raises:
        AssertionError: If a block fails, with the block and all that was written.
    """
    todo = steps(page)
    lines = ["set -euo pipefail"]
    for number, step in enumerate(todo):
        text = step.fence.text
        if step.fence.language == "python":
            text = f"python - <<'END_OF_PYTHON'\n{text}END_OF_PYTHON\n"
        lines += [text, f"echo; echo '{END.format(number)}'"]
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        written, _ = process.communicate(timeout=seconds)
    finally:
        _end(process)
    outputs, rest = [], written
    for number, step in enumerate(todo):
        output, mark, rest = rest.partition(f"\n{END.format(number)}\n")
        assert mark, f"line {step.fence.line} failed:\n{step.fence.text}\n{output}"
        outputs.append((step, output))
    return outputs


def _end(process: subprocess.Popen[str]) -> None:
    """End the shell and whatever it started: a page that fails half-way leaves no server behind."""
    try:
        subprocess.run(
            ["kill", f"-{signal.SIGKILL.value}", "--", f"-{process.pid}"], capture_output=True
        )
    finally:
        process.wait(timeout=10)


def missing_lines(expected: str, output: str) -> list[str]:
    """The expected lines that the output does not have, in this order.

    Compared loosely: ``...`` stands for any lines, spaces and bars do not count, times may be any,
    and other numbers may be off by a fifth, or by 3: machines round differently, and small samples
    feel it.
    """
    have = iter(_words(line) for line in output.splitlines())
    missing = []
    for line in expected.splitlines():
        if line.strip() in ("", "..."):
            continue
        want = _words(line)
        if not any(_alike(want, one) for one in have):
            missing.append(line)
            have = iter(_words(line) for line in output.splitlines())
    return missing


def _words(line: str) -> tuple[str, list[float]]:
    """A line without its numbers, and the numbers."""
    line = re.sub(r"[█░◀]+", " ", TIME.sub("T", line.replace("−", "-").replace("–", "to")))
    numbers = [float(re.sub("[ ,]", "", one)) for one in NUMBER.findall(line)]
    return re.sub(r"\s+", "", re.sub(r"[-+](?=#)", "", NUMBER.sub("#", line))), numbers


def _alike(want: tuple[str, list[float]], have: tuple[str, list[float]]) -> bool:
    return want[0] == have[0] and all(
        abs(a - b) <= max(3.0, 0.2 * abs(a)) for a, b in zip(want[1], have[1], strict=True)
    )
