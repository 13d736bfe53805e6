"""The recorded results as the tables of the page.

python -m experiments.guarantees.tables
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.guarantees.run import FEW, IMAGES, OURS, TARGETS, TOGETHER

RESULTS = Path(__file__).parent / "results"
SHOWN = 0.3


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def grid(
    settings: dict[str, Any],
    loss: str,
    targets: tuple[float, ...] = TARGETS,
    numbers: tuple[int, ...] = IMAGES,
) -> str:
    """Tokens beside the best of the others, and failures, over the whole grid."""
    rows = []
    for target in targets:
        for images in numbers:
            row = [f"{100 * target:g} %", str(images)]
            for together in TOGETHER:
                one = settings[f"{loss}, {target:g}, {images} images, {together:g}"]
                fails = 100 * one["methods"][OURS]["fails"]
                row.append(f"{one['ratio']:.3f} ({fails:.1f})")
            rows.append(row)
    return table(["target", "images", *[f"{one:g}" for one in TOGETHER]], rows)


def tokens(
    settings: dict[str, Any],
    loss: str,
    targets: tuple[float, ...] = TARGETS,
    numbers: tuple[int, ...] = IMAGES,
    together: float = SHOWN,
) -> str:
    """Mean tokens of every method at one correlation."""
    rows, names = [], []
    for target in targets:
        for images in numbers:
            one = settings[f"{loss}, {target:g}, {images} images, {together:g}"]
            names = list(one["methods"])
            told = [f"{one['methods'][name]['tokens']:.0f}" for name in names]
            rows.append(
                [f"{100 * target:g} %", str(images), *told, f"{one['tokens possible']:.0f}"]
            )
    return table(["target", "images", *names, "possible"], rows)


def main() -> None:
    """Print them."""
    for name, targets, numbers in (("grid", TARGETS, IMAGES), ("steep", TARGETS[:1], FEW)):
        settings = json.loads((RESULTS / f"{name}.json").read_text())["settings"]
        for loss in ("regret", "net loss"):
            print(f"### {loss}, {name}\n\n{grid(settings, loss, targets, numbers)}\n")
            print(f"{tokens(settings, loss, targets, numbers)}\n")
        ratios = [one["ratio"] for one in settings.values()]
        ours = max(one["methods"][OURS]["fails"] for one in settings.values())
        print(f"largest ratio {max(ratios):.3f}, least {min(ratios):.3f}; ", end="")
        print(f"most failures {100 * ours:.2f} %\n")
    worlds = json.loads((RESULTS / "worlds.json").read_text())["settings"]
    for name, one in worlds.items():
        print(f"- {name}: {one}")


if __name__ == "__main__":
    main()
