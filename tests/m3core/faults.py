"""A labelling run to kill: many small chunks, a model that takes its time, features as well.

Most of such a process's time goes into imports. So a program imports everything once, and forks a
process for each line that it reads from its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router import label_stage
from m3router.router.cli import label as label_command  # noqa: F401  # imported before any fork
from m3router.router.cli.main import app
from m3router.router.runs.run import Run
from tests.children import child
from tests.m3core.test_labelling import examples as examples_about

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
IMAGES = 150
PER_IMAGE = 2


class SlowModel(FakeModel):
    """Sleeps a little before each batch, so that there is a middle to be killed in."""

    def answer(self, requests):
        time.sleep(0.002)
        return super().answer(requests)


def examples() -> list[Example]:
    return examples_about(IMAGES, PER_IMAGE)


def run(root: Path, folder: Path) -> OracleLog:
    """Label ``root/images`` into a run folder."""
    return label_stage(Run(folder), examples(), images=root / "pictures", model=SlowModel())


@dataclass
class Forked:
    """A forked process, the first of a group of its own.

    Attributes:
        pid: Its number.
        output: File of what it says.
    """

    pid: int
    output: Path

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs, and where it was killed."""
        file = self.output.with_suffix(".code")
        return int(file.read_text()) if file.is_file() else None

    @property
    def said(self) -> str:
        """All that it wrote."""
        return self.output.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it and its own processes at once; nothing happens where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def starter(outputs: Path) -> Iterator[Callable[..., Forked]]:
    """Give a function that forks ``m3router`` with some words, or :func:`run` with ``run`` first.

    Args:
        outputs: Folder of what the processes say.
    """
    # Not ``-m``: processes that a forked one spawns would import this module again.
    command = [sys.executable, "-c", "from tests.m3core.faults import serve; serve()"]
    started: list[Forked] = []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child(command, cwd=ROOT, env=ENVIRONMENT, **pipes) as process:

        def start(*words: str, **environment: str) -> Forked:
            output = outputs / f"{len(started)}.txt"
            line = {"words": words, "environment": environment, "output": str(output)}
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            started.append(Forked(int(process.stdout.readline()), output))
            return started[-1]

        try:
            yield start
            process.stdin.close()
        finally:
            for one in started:
                if not one.gone:
                    one.kill()


def serve() -> None:
    """Fork a process for each line of standard input, and write its number."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children are not kept as zombies
    for line in sys.stdin:
        forked = os.fork()
        if forked == 0:
            _work(**json.loads(line))
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.setpgid(forked, forked)  # before its number is told, so that it can be killed by it
        sys.stdout.write(f"{forked}\n")
        sys.stdout.flush()


def _work(words: list[str], environment: dict[str, str], output: str) -> None:
    """What a forked process does, until its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code: object = 0
    try:
        if words[0] == "run":
            run(Path(words[1]), Path(words[2]))
        else:
            app(words, prog_name="m3router")
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    Path(output).with_suffix(".code").write_text(str(code or 0))
    os._exit(0)
