"""Train the embedded model in resumable stages and write its checkpoint.

python -m experiments.embedded_model.train --work runs/embedded
"""

from __future__ import annotations

import argparse
import logging
import tomllib
from pathlib import Path

import torch

from experiments.embedded_model.build import build

HERE = Path(__file__).parent


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for states and logs")
    parser.add_argument("--out", type=Path, help="checkpoint folder (default: WORK/checkpoint)")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.toml")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = tomllib.loads(arguments.recipe.read_text())
    build(recipe, arguments.work, arguments.out or arguments.work / "checkpoint")


if __name__ == "__main__":
    main()
