"""Requests and records to write, and a program that is killed while it writes or deletes them.

The program reads lines "folder action step" and forks a process for each, which kills itself right
before its step-th change of the file system; it writes the exit code, -9 where it was killed.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from m3router.data.example import Example
from m3router.router.traffic import TrafficFolder
from m3router.router.traffic.records import image_name

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CHANGES = ("os.rename", "os.remove", "os.truncate", "os.mkdir")


def new_image(number: int, side: int = 8) -> Image.Image:
    """Pixels that follow from a number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def record(name: str, image: Image.Image, *, age: float = 0, question: str = "") -> dict:
    """The line of a request that was answered so many days ago."""
    return {
        "id": name,
        "image": image_name(image),
        "question": question or f"what is {name}?",
        "answers": [],
        "metric": "agreement",
        "dataset": "traffic",
        "time": (NOW - timedelta(days=age)).isoformat(timespec="seconds"),
        "served": {"answer": "a cat", "scale": 9},
    }


def add(folder: TrafficFolder, name: str, number: int, **changes) -> None:
    folder.add(record(name, new_image(number), **changes), new_image(number))


def answered(name: str, number: int, answer: str = "a dog") -> Example:
    image = image_name(new_image(number))
    return Example(id=name, image=image, question=f"what is {name}?", answers=(answer,))


def filled(root: Path) -> Path:
    """Two requests about one image, an old one about another; all written out, two answered."""
    with TrafficFolder.open(root, make=True) as folder:
        add(folder, "one", 1)
        add(folder, "other", 1)
        add(folder, "alone", 2, age=40)
        folder.answer([answered("one", 1), answered("alone", 2)])
        folder.write_set("all")
    return root


def act(root: Path, action: str) -> None:
    with TrafficFolder.open(root) as folder:
        if action == "add":
            add(folder, "new", 3)
        elif action == "forget":
            folder.forget(["alone"])
        else:
            folder.purge(NOW - timedelta(days=30))


def die_before(step: int) -> None:
    """Kill this process before its step-th change of the file system."""
    left = step

    def count(event: str, arguments: tuple) -> None:
        nonlocal left
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    for line in sys.stdin:
        root, action, step = line.split()
        child = os.fork()
        if child == 0:
            die_before(int(step))
            act(Path(root), action)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()
