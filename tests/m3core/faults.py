"""A labelling run to kill: many small chunks, a model that takes its time, features as well.

As a program it forks such a run for every folder that it reads from its standard input, so that
many of them do not import everything each time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router import label_stage
from m3router.router.runs.run import Run
from tests.m3core.test_labelling import examples as examples_about

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


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children are not kept as zombies
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(Path(sys.argv[1]), Path(line.strip()))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
