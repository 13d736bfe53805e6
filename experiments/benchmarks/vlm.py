"""How much cheaper questions about one image are when what stands before them is read once.

    python -m experiments.benchmarks.vlm

A random model with the real image processor of its family answers 8 questions about one image at
every option: all of them together, as labelling asks, and one after the other. Prints seconds and
their ratio, from one run, and writes them as JSON where ``--out`` says.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from m3router.m3core.options import Answer, Failure, Request
from m3router.m3core.vlm import FAMILIES, load_vlm
from m3router.m3core.vlm.model import VisionLanguageModel
from m3router.m3core.vlm.tiny import save_tiny

QUESTIONS = (
    "What is the total?",
    "Which date is printed at the top?",
    "Who sold it?",
    "How many items are there?",
    "What is the address of the shop?",
    "Is a discount given?",
    "Which currency is used?",
    "What does the first line say?",
)
SIZE = (800, 600)
REPEATS = 3


def noise() -> Image.Image:
    """An image with detail at every option."""
    values = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3))
    return Image.fromarray(values.astype(np.uint8))


def _timed(model: VisionLanguageModel, calls: list[list[Request]]) -> tuple[float, list[str]]:
    """Wall-clock seconds of some calls, and all their answers."""
    began = time.perf_counter()
    answers: list[Answer | Failure] = [one for call in calls for one in model.answer(call)]
    spent = time.perf_counter() - began
    return spent, [one.text if isinstance(one, Answer) else one.message for one in answers]


def bench_option(model: VisionLanguageModel, image: Image.Image, option: str) -> dict[str, Any]:
    """All questions together against one after the other, medians of some repeats."""
    asked = [Request(image=image, question=one, option=option) for one in QUESTIONS]
    together, alone, same = [], [], True
    for _ in range(REPEATS):
        spent, answers = _timed(model, [asked])
        together.append(spent)
        spent, expected = _timed(model, [[one] for one in asked])
        alone.append(spent)
        same &= answers == expected
    return {
        "image_tokens": model.count(image, option).image_tokens,
        "seconds_together": statistics.median(together),
        "seconds_one_after_the_other": statistics.median(alone),
        "same_answers": same,
    }


def run(family: str, *, width: int, layers: int) -> dict[str, Any]:
    """The whole ladder of a family."""
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(family, folder, width=width, layers=layers)
        model = load_vlm(folder, device="cpu", max_new_tokens=8)
    image = noise()
    _timed(model, [[Request(image=image, question="Warm?", option=model.options[0].name)]])
    options = {one.name: bench_option(model, image, one.name) for one in model.options}
    together = sum(one["seconds_together"] for one in options.values())
    alone = sum(one["seconds_one_after_the_other"] for one in options.values())
    return {
        "machine": {
            "processor": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "model": {"family": family, "width": width, "layers": layers, "weights": "random"},
        "image": list(SIZE),
        "questions": len(QUESTIONS),
        "options": options,
        "seconds_together": together,
        "seconds_one_after_the_other": alone,
        "times_cheaper": alone / together,
    }


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="qwen3_vl")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    results = run(arguments.family, width=arguments.width, layers=arguments.layers)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
