"""Measure the shipped model on scenes it never saw, and write its card.

    python -m experiments.embedded_model.evaluate --work runs/embedded-test

Answers are generated and scored by ``m3router.m3core.labelling.label``, as for any other model. The
test scenes' seeds are used for nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import atomic_write_text
from m3router.data.scenes.export import TEST_SEEDS, write_scenes
from m3router.data.scenes.world import WORLD_VERSION
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import embedded_folder, load_model
from m3router.m3core.labelling import LabelProgress, label
from m3router.m3core.matryoshka.scales import M3_SCALES
from m3router.router.metrics.oracles import first_correct
from m3router.router.metrics.paired_bootstrap import cluster_means, estimate

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
QUESTIONS = 4


def measure(log: OracleLog) -> dict[str, Any]:
    """Accuracy by scale, overall and by kind of question, with intervals clustered by scene."""
    kinds = sorted(set(log.datasets))
    table: dict[str, Any] = {}
    for name in ["all", *kinds]:
        rows = np.arange(len(log)) if name == "all" else np.flatnonzero(log.datasets == name)
        scores = log.scores[rows]
        draws = cluster_means(scores, log.groups[rows])
        table[name] = {
            "n": len(rows),
            **{
                option: estimate(float(scores[:, column].mean()), draws[:, column]).to_dict()
                for column, option in enumerate(log.options)
            },
            "any scale": float(scores.max(1).mean()),
        }
    needed = first_correct(log.scores, log.costs)
    right = log.scores.max(1) == 1
    share = {
        option: float(((needed == column) & right).mean())
        for column, option in enumerate(log.options)
    }
    return {"accuracy": table, "smallest sufficient scale": share | {"none": 1 - right.mean()}}


def _interval(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def _accuracy_table(results: dict[str, Any], options: list[str]) -> list[str]:
    lines = ["| questions | n | " + " | ".join(f"{o} tokens" for o in options) + " | any scale |"]
    lines.append("|---" * (len(options) + 3) + "|")
    for name, row in results["accuracy"].items():
        cells = " | ".join(_interval(row[option]) for option in options)
        lines.append(f"| {name} | {row['n']} | {cells} | {row['any scale']:.3f} |")
    return lines


def _curve() -> list[str]:
    """The learning curve after the tower's stage, some ten lines for each further stage."""
    stages = tomllib.loads((HERE / "recipe.toml").read_text())["stages"]
    lines = ["| stage | step | 1 | 9 | 36 | 144 | 576 |", "|---" * 7 + "|"]
    for name in (stage["name"] for stage in stages):
        recorded = HERE / "results" / f"{name}.jsonl"
        if not recorded.is_file():  # the notes say why a stage was left out
            continue
        rows = [json.loads(line) for line in recorded.read_text().splitlines()]
        for row in rows[:: max(1, len(rows) // 10)] + rows[-1:]:
            cells = " | ".join(f"{row[f'exact@{scale}']:.3f}" for scale in M3_SCALES)
            lines.append(f"| {name} | {row['step']} | {cells} |")
    return list(dict.fromkeys(lines))


def card(results: dict[str, Any], notes: str) -> str:
    """The model card, in Markdown."""
    options = results["options"]
    share = results["smallest sufficient scale"]
    return "\n".join(
        [
            "# The embedded M3 model",
            "",
            "A small Matryoshka multimodal model that ships with this package: a Hugging Face",
            "`LlavaForConditionalGeneration` (CLIP tower of 24 x 24 patches on 192 px images,",
            "two-layer projector, four-layer Llama, own WordPiece tokenizer), "
            f"{results['parameters']:,} parameters, fp32. It answers short questions about the",
            "procedural scenes of `data/scenes/` from 1, 9, 36, 144 or 576 visual tokens. It",
            "knows nothing else: on photographs its answers are meaningless.",
            "",
            f"- Licence: Apache-2.0. Data: scenes of world version {WORLD_VERSION}, drawn by this",
            "  repository; no external image, font, text or weight was used.",
            f"- Revision (SHA-256 of its files): `{results['revision']}`",
            "- Training seeds 0 to 9 999 999; tuning 10 to 20 million; test 30 to 40 million.",
            "",
            "## Accuracy on held-out scenes",
            "",
            f"{results['scenes']} test scenes (seeds from {TEST_SEEDS.start}), greedy decoding,",
            "exact match, 95 % intervals by bootstrap over scenes.",
            "",
            *_accuracy_table(results, options),
            "",
            "Smallest sufficient scale, share of questions: "
            + ", ".join(f"{name}: {value:.3f}" for name, value in share.items())
            + ".",
            "",
            "## Training",
            "",
            "```toml",
            *(HERE / "recipe.toml").read_text().splitlines(),
            "```",
            "",
            notes.strip(),
            "",
            "Exact match on 64 validation scenes by scale (teacher-forced, equal to greedy):",
            "",
            *_curve(),
            "",
        ]
    )


def main() -> None:
    """Label the test scenes and write ``results/test.json`` and the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for scenes and log")
    parser.add_argument("--scenes", type=int, default=600)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + arguments.scenes)
    path = write_scenes(arguments.work / "scenes", seeds, questions=QUESTIONS)
    images = arguments.work / "scenes" / "images"
    model = load_model("embedded", device="cpu")

    def report(state: LabelProgress) -> None:
        logger.info("%d / %d examples, %s", state.done, state.total, state.accuracy)

    log = label(
        load_jsonl(path, images=images),
        images=images,
        model=model,
        folder=arguments.work / "log",
        progress=report,
    )
    with safe_open(embedded_folder() / "model.safetensors", framework="pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    results = measure(log) | {
        "options": list(log.options),
        "scenes": arguments.scenes,
        "questions": QUESTIONS,
        "revision": model.revision,
        "parameters": parameters,
        "torch": torch.__version__,
    }
    atomic_write_text(HERE / "results" / "test.json", json.dumps(results, indent=1) + "\n")
    notes = (HERE / "results" / "notes.md").read_text()
    atomic_write_text(embedded_folder() / "README.md", card(results, notes))


if __name__ == "__main__":
    main()
