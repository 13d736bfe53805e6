"""Tokens and patches of every family's options, counted by the real image processors.

    python -m experiments.families.record

Writes ``results/counts.json``. LFM2-VL's image processor needs torchvision.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers

from m3router.data.manifest import atomic_write_text
from m3router.m3core.vlm.option_costs import VisualBudgets, read_budgets

HERE = Path(__file__).parent
CONFIGS = HERE / "configs"
COUNTS = HERE / "results" / "counts.json"
IMAGES = ((1600, 1200), (300, 200))
"""Width and height: a photograph of two megapixels, and a thumbnail."""

PROCESSORS_ALONE = {
    "LFM2-VL": {"model_type": "lfm2_vl", "vision_config": {"patch_size": 16}},
    "MiniCPM-V 4.6": {"model_type": "minicpmv4_6", "vision_config": {"patch_size": 14}},
}
"""Families of which no published sizes are at hand here: tokens are counted, operations are not."""


def main() -> None:
    """Count everything anew."""
    counted: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in PROCESSORS_ALONE.items():
            file = Path(folder) / f"{name}.json"
            file.write_text(json.dumps(config), encoding="utf-8")
            counted[name] = _counts(read_budgets(str(file)))
    for file in sorted(CONFIGS.glob("*.json")):
        counted[file.stem] = _counts(read_budgets(str(file)))
    document = {"transformers": transformers.__version__, "models": counted}
    atomic_write_text(COUNTS, json.dumps(document, indent=1) + "\n")


def _counts(budgets: VisualBudgets) -> dict[str, Any]:
    images = {}
    for width, height in IMAGES:
        found = {name: budgets.preparer.count((width, height), name) for name in budgets.options}
        images[f"{width}x{height}"] = {
            name: {"visual_tokens": one.visual_tokens, "views": list(one.views)}
            for name, one in found.items()
        }
    return {
        "family": budgets.shape.family,
        "title": budgets.title,
        "options": {name: _sizes(one) for name, one in budgets.options.items()},
        "images": images,
    }


def _sizes(settings: Any) -> Any:
    """Settings without the long list of LLaVA-OneVision's grids."""
    grids = settings.get("image_grid_pinpoints")
    return {"image_grid_pinpoints": f"up to {max(map(max, grids))}"} if grids else dict(settings)


if __name__ == "__main__":
    main()
