"""A reader whose answers say how sure they are, and a run that was labelled with it.

An image's first pixel says which option it takes; nothing that a router reads says it, so that
asking again where an answer looks wrong is worth something.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from m3router.data.example import Example
from m3router.m3core.endpoint import Key, connect, parse_options
from m3router.m3core.endpoint.stand_in import coded_image
from m3router.m3core.functions import FunctionModel, load_reference
from m3router.m3core.options import Answer, Failure, Usage
from m3router.router.runs.run import Run
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.labelling import label_stage
from m3router.router.stages.learning import calibrate_stage, train_stage

TOKENS = {"low": 10, "mid": 40, "high": 160}
READ = ("what is it?", "what does the small print say?")
SIZES = ((20, 12), (32, 24))

WRITTEN = "What is written?"

Spoil = Callable[[str, str], Answer | Failure | None]


def read(image: Image.Image, question: str, option: str) -> Answer:
    """The answer "word" from the option on that the image needs, and rather sure then."""
    needed = image.getpixel((0, 0))[0] % 3
    right = list(TOKENS).index(option) >= needed
    noise = zlib.crc32(f"{option} {question}".encode(), zlib.crc32(image.tobytes())) / 2**32
    sure = 0.75 + 0.24 * noise if right else 0.2 + 0.4 * noise
    tokens = TOKENS[option]
    return Answer(
        text="word" if right else f"blur {needed}",
        confidence=sure,
        logprob=1.5 * math.log(sure),
        usage=Usage(cost=float(tokens), image_tokens=tokens, answer_tokens=2, price=tokens / 1000),
    )


def reader(
    *, asked: list[tuple[str, str]] | None = None, spoil: Spoil = lambda question, option: None
) -> FunctionModel:
    """The model.

    Args:
        asked: Receives every question that it is asked, with the option.
        spoil: Question and option to what is answered in place of the answer.
    """

    def reads(images, questions, option):
        if asked is not None:
            asked.extend((question, option) for question in questions)
        pairs = zip(images, questions, strict=True)
        return [spoil(text, option) or read(image, text, option) for image, text in pairs]

    return FunctionModel(
        reads, options=list(TOKENS), costs=TOKENS, cost_unit="tokens", name="reader", revision="1"
    )


def model() -> FunctionModel:
    """What a run's log finds again."""
    return reader()


def write_images(folder: Path, count: int) -> list[Example]:
    """Images, and two questions about each."""
    folder.mkdir(parents=True)
    random, examples = np.random.default_rng(3), []
    for number in range(count):
        width, height = SIZES[number % 2]
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        for place, question in enumerate(READ):
            about = {"image": f"{number}.png", "group": f"{number}.png", "answers": ("word",)}
            examples.append(Example(id=f"{number}-{place}", question=question, **about))
    return examples


def reader_run(root: Path, *, images: int = 100) -> Run:
    """A run with the policy ``default``, a plain one, and ``sure``, which escalates."""
    run = Run(root / "run")
    examples = write_images(root / "images", images)
    found = load_reference(f"{__name__}:model")
    label_stage(run, examples, images=root / "images", model=found)
    train_stage(run, estimator="logistic", ablations=False)
    calibrate_stage(run, budget=60)
    escalate_stage(run, name="sure", budget=70)
    return run


def endpoint_run(root: Path, url: str, *, key: Key | None = None) -> Run:
    """A run of a stand-in server; large images need their whole size, small ones do not."""
    (root / "images").mkdir(parents=True)
    examples = []
    for number in range(24):
        cells, side = ((8, 256), (16, 512))[number % 2]
        name = f"{number}.png"
        coded_image("seven", cells=cells, size=(side, side)).save(root / "images" / name)
        about = {"image": name, "group": name, "answers": ("seven",)}
        examples.append(Example(id=str(number), question=WRITTEN, **about))
    options = [
        {"name": "small", "longest_side": 256, "price": {"request": 0.5}},
        {"name": "whole", "price": {"request": 2.0}},
    ]
    run = Run(root / "run")
    found = connect(f"{url}/v1", parse_options({"option": options}), key=key)
    label_stage(run, examples, images=root / "images", model=found)
    train_stage(run, estimator="logistic", ablations=False)
    calibrate_stage(run, budget=1.9)
    return run
