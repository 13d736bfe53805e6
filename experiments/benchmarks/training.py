"""What encoding an image once for all scales saves in a training step, in one run.

    python -m experiments.benchmarks.training

The embedded architecture with random weights, every scale of M3 in every step. The published
code (mu-cai/matryoshka-mm, ``llava_llama.py``, ``forward`` over ``forward_single_matryoshka``)
runs tower and projector again for every scale; ours runs them once and pools. Both compute the
same loss and the same gradients, through the projector and, in the second measurement, through
the tower. They are timed in turns, medians are given, forward and backward pass together. Prints
JSON, and writes it where ``--out`` says.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.embedded_model.architecture import OFFSETS, new_model, new_tower
from experiments.embedded_model.curriculum import FreshScenes, SceneText, scene_pixels
from experiments.embedded_model.tokenizer import SPECIAL, build_tokenizer
from m3router.m3core.checkpoints.families.llava import LlavaTrainable
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import M3_SCALES
from m3router.m3core.training.objective import MatryoshkaBatch, MatryoshkaLoss

QUESTIONS = 4


def once(objective: MatryoshkaLoss, batch: MatryoshkaBatch) -> None:
    """Ours: the image is encoded once."""
    objective(batch, M3_SCALES).mean().backward()


def anew(objective: MatryoshkaLoss, batch: MatryoshkaBatch) -> None:
    """As published: the image is encoded for each scale."""
    losses = [objective(batch, (scale,)) for scale in M3_SCALES]
    torch.cat(losses).mean().backward()


def gradients(objective: MatryoshkaLoss, way: Callable[..., None], batch: MatryoshkaBatch) -> Any:
    """All gradients that a way gives, one behind the other."""
    objective.zero_grad()
    way(objective, batch)
    found = [one.grad.flatten() for one in objective.parameters() if one.grad is not None]
    return torch.cat(found)


def measure(objective: MatryoshkaLoss, batch: MatryoshkaBatch, repeats: int) -> dict[str, float]:
    """Both ways in turns, after one run each in which their gradients are compared."""
    ours, published = (gradients(objective, way, batch) for way in (once, anew))
    spent: dict[str, list[float]] = {"published_ms": [], "ours_ms": []}
    for _ in range(repeats):
        for name, way in (("published_ms", anew), ("ours_ms", once)):
            objective.zero_grad()
            began = time.perf_counter()
            way(objective, batch)
            spent[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: statistics.median(times) for name, times in spent.items()}
    return medians | {
        "times_faster": medians["published_ms"] / medians["ours_ms"],
        "largest_gradient": float(ours.abs().max()),
        "largest_difference": float((ours - published).abs().max()),
    }


def run_all(*, batch: int, repeats: int) -> dict[str, Any]:
    """All measurements."""
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    tower = new_tower(scene_pixels(range(100)), seed=0)
    trainable = LlavaTrainable(new_model(tower, vocabulary=len(tokenizer), ids=ids, seed=0))
    text = SceneText(tokenizer, get_template("scenes-1"), questions=QUESTIONS)
    scenes = FreshScenes(0, text, batch=batch)(0)
    objective = MatryoshkaLoss(trainable).train()
    results: dict[str, Any] = {
        "machine": {
            "processor": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "scales": list(M3_SCALES),
        "batch": batch,
        "questions": QUESTIONS,
        "tower_layers": len(OFFSETS),
    }
    for name, free in (("tower_frozen", False), ("tower_trained", True)):
        trainable.tower.requires_grad_(free)
        results[name] = measure(objective, scenes, repeats)
    return results


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--note", help="what else the machine was doing; kept with the results")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    results = run_all(batch=arguments.batch, repeats=arguments.repeats)
    if arguments.note:
        results["machine"]["note"] = arguments.note
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
