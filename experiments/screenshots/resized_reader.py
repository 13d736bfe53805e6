"""The shipped model as a model whose options are image sizes, for the demo of such runs."""

from __future__ import annotations

from functools import cache

from PIL import Image

from m3router.m3core.checkpoints import load_model
from m3router.m3core.functions import FunctionModel
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.m3core.options import Answer, Usage

SIDES = {"max_pixels=2304": 48, "max_pixels=9216": 96, "max_pixels=36864": 192}
"""Option to the side of the square that the model gets; named as options of real families are."""


@cache
def _loaded() -> MultiScaleModel:
    return load_model("embedded", device="cpu")


def answer(images: list[Image.Image], questions: list[str], option: str) -> list[Answer]:
    """Ask about each image, scaled down to the option's size.

    Args:
        images: RGB.
        questions: One for each image.
        option: A name in :data:`SIDES`.
    """
    model, side = _loaded(), SIDES[option]
    encodings = model.encode([image.resize((side, side)) for image in images])
    said = answer_all(
        model,
        [
            Request(encoding=encoding, question=question, scale=model.grid.scales[-1])
            for encoding, question in zip(encodings, questions, strict=True)
        ],
    )
    return [
        Answer(text=one.text, confidence=one.confidence, usage=Usage(pixels=side * side))
        for one in said
    ]


def model() -> FunctionModel:
    """The model, as `--model experiments.screenshots.resized_reader:model`."""
    kilopixels = {option: side * side / 1000 for option, side in SIDES.items()}
    return FunctionModel(answer, options=list(SIDES), costs=kilopixels, cost_unit="kilopixels")
