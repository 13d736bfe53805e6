"""Does memory stay flat while very many examples are labelled?

    python -m experiments.benchmarks.memory

Labels made-up examples with the model without weights, so that nothing but the labelling itself
takes memory, and prints the resident size of the process as examples are done, then its peak
when the rows are merged into one log. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m3router.data.example import Example
from m3router.m3core.labelling import LabelProgress, label
from m3router.m3core.matryoshka.models.fake import FakeModel

PER_IMAGE = 20


def resident() -> float:
    """MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def made_up(count: int, folder: Path) -> list[Example]:
    """Examples about small images of noise."""
    random = np.random.default_rng(0)
    for number in range(count // PER_IMAGE):
        noise = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return [
        Example(
            id=f"{image}-{number}",
            image=f"{image}.png",
            question=f"Is there something numbered {number} in here?",
            answers=("yes",),
            metric="exact",
            group=f"{image}.png",
        )
        for image in range(count // PER_IMAGE)
        for number in range(PER_IMAGE)
    ]


def measure(count: int) -> dict[str, Any]:
    """Resident size by examples done, every tenth of the way, and the peak at the end."""
    sizes: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        examples = made_up(count, folder)

        def note(state: LabelProgress) -> None:
            tenth = state.done // (count // 10)
            sizes.setdefault(tenth * (count // 10), resident())

        log = label(
            examples, images=folder, model=FakeModel(), folder=folder / "log", progress=note
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first, last = sizes[count // 10], sizes[count // 10 * 9]
    return {
        "examples": len(log),
        "resident_mib_by_examples": {str(done): round(size, 1) for done, size in sizes.items()},
        "growth_mib_from_a_tenth_to_nine": round(last - first, 1),
        "peak_mib_when_merged": round(peak, 1),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.examples), indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
