"""Record what `docs/figures/options.png` and `docs/figures/look.png` show.

    python -m experiments.options_figure [--quickstart quickstart]

Asks the shipped model at every scale, and the router of a finished quickstart which scale it would
take, and writes `results/options.json`; `python -m experiments.figures` draws it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.options_figure.drawing import LARGE, LOOKED, RECORDED, SMALL
from experiments.recording import provenance
from m3router.data.manifest import atomic_write_text
from m3router.data.scenes.drawing import render
from m3router.data.scenes.questions import all_questions
from m3router.data.scenes.world import make_scene
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.router.inference.pipeline import AutoScalePipeline

TAG = (20_000_000, "What number is on the purple tag?")
ASKED = {
    LOOKED: TAG,
    LARGE: (29_000_298, "What color is the background?"),
    SMALL: (29_000_298, "What digit is next to the letter d?"),
}
"""Name of a row to the seed of its scene and its question; no model or router learned from those
of 29 000 000 on."""
DIGITS = 4


def asked(pipeline: AutoScalePipeline, seed: int, question: str) -> dict[str, Any]:
    """What is right, what each scale answers, what the router expects, and what it takes."""
    scene = make_scene(seed)
    image = Image.fromarray(render(scene))
    model = pipeline.model
    (encoding,) = model.encode([image])
    requests = [
        Request(encoding=encoding, question=question, scale=scale) for scale in model.grid.scales
    ]
    (routed,) = pipeline.answer([image], [question])
    return {
        "seed": seed,
        "question": question,
        "expected": next(one.answer for one in all_questions(scene) if one.text == question),
        "answers": {
            str(request.scale): {
                "text": answer.text,
                "visual_tokens": answer.visual_tokens,
                "confidence": round(answer.confidence, DIGITS),
            }
            for request, answer in zip(requests, answer_all(model, requests), strict=True)
        },
        "estimates": {name: round(likely, DIGITS) for name, likely in routed.estimates.items()},
        "chosen": routed.option,
    }


def main() -> None:
    """Record; see the module."""
    parser = argparse.ArgumentParser(prog="python -m experiments.options_figure")
    parser.add_argument("--quickstart", type=Path, default=Path("quickstart"))
    pipeline = AutoScalePipeline.load(
        parser.parse_args().quickstart / "run", model="embedded", device="cpu"
    )
    document = {
        **provenance("python -m experiments.options_figure", seed=0),
        "rows": {name: asked(pipeline, *what) for name, what in ASKED.items()},
    }
    RECORDED.parent.mkdir(exist_ok=True)
    atomic_write_text(RECORDED, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
