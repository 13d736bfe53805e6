r"""Fine-tune a checkpoint at all its scales on instructions in LLaVA's JSON format.

    python -m experiments.train SOURCE --data train.json --images images --out models/mine \
        --steps 2000 --batch 8 --learning-rate 2e-5

SOURCE is a folder or hub id of a LLaVA-1.5-type model or MQT-LLaVA, or ``embedded``. A run that
was interrupted goes on when started again with the same words. Several GPUs: docs/training.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from data.errors import M3RouterError
from data.sources.instructions import load_instructions
from m3core.finetuning import finetune
from m3core.recipe import PERIODS, RANDOM, TrainingRecipe
from m3core.scales import M3_SCALES, MQT_TRAINING_SCALES

_SETTINGS = {
    "tower_learning_rate": "of the vision tower; 0 freezes it",
    "lora_rank": "train updates of this rank in place of the language model; 0: itself",
    "lora_alpha": "updates count alpha / rank times",
    "lora_dropout": "dropout before the updates",
    "warmup": "steps of linear warm-up",
    "weight_decay": "of AdamW",
    "mixed_precision": "no or bf16",
    "save_every": "steps between two resumable states",
    "seed": "of order, random scales and dropout",
}


def parser() -> argparse.ArgumentParser:
    """The command's arguments; defaults are those of the recipe."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("source", metavar="SOURCE")
    words.add_argument("--data", type=Path, required=True, help="JSON file of conversations")
    words.add_argument("--images", type=Path, required=True, help="folder of their pictures")
    words.add_argument("--out", type=Path, required=True, help="new folder for the checkpoint")
    words.add_argument("--work", type=Path, help="state and log (default: OUT.work)")
    words.add_argument("--dtype", help="number format to write (default: that of SOURCE)")
    words.add_argument("--steps", type=int, required=True)
    words.add_argument("--batch", type=int, default=8, help="conversations in each process's step")
    words.add_argument("--learning-rate", type=float, default=2e-5)
    words.add_argument(
        "--scales",
        default=",".join(map(str, M3_SCALES)),
        help=f"such as 1,9,36 (default: M3's), or 'mqt': {MQT_TRAINING_SCALES[0]}, 4, ... 256",
    )
    words.add_argument("--choice", default=PERIODS, help=f"{PERIODS}: all scales; {RANDOM}: one")
    words.add_argument("--periods", help="each scale in every so-many-th step, such as 1,1,1,2,4")
    words.add_argument("--gradient-checkpointing", action="store_true")
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingRecipe)}
    for name, what in _SETTINGS.items():
        default = defaults[name]
        words.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"{what} (default: {default})",
        )
    return words


def recipe_of(arguments: argparse.Namespace) -> TrainingRecipe:
    """The recipe that the arguments ask for."""
    mqt = arguments.scales == "mqt"
    return TrainingRecipe(
        scales=MQT_TRAINING_SCALES if mqt else _numbers(arguments.scales),
        choice=arguments.choice,
        periods=_numbers(arguments.periods) if arguments.periods else None,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        gradient_checkpointing=arguments.gradient_checkpointing,
        **{name: getattr(arguments, name) for name in _SETTINGS},
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SystemExit(f"expected whole numbers such as 1,9,36, got {text!r}") from None


def main() -> None:
    """Train and write."""
    arguments = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work = arguments.work or arguments.out.with_name(arguments.out.name + ".work")
    try:
        written = finetune(
            arguments.source,
            load_instructions(arguments.data),
            arguments.out,
            images=arguments.images,
            recipe=recipe_of(arguments),
            batch=arguments.batch,
            work=work,
            dtype=arguments.dtype,
        )
    except M3RouterError as error:
        sys.exit(f"Error: {error}")
    print(f"written: {written}")


if __name__ == "__main__":
    main()
