"""One question about one image, in any form, is asked alike of both kinds of pipelines."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from m3router import Run, open_pipeline
from m3router.data.errors import DataError, ImageError, MismatchError
from m3router.data.example import Example
from m3router.m3core.functions import load_reference
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router import calibrate_stage, label_stage, train_stage

TEXT = "<script>alert(1)</script> & so on?"
READER = """
from m3router import FunctionModel

def read(images, questions, option):
    fine = option == "fine"
    return ["yes" if fine or image.getpixel((0, 0))[0] % 2 else "no" for image in images]

costs = {"coarse": 1, "fine": 9}
model = FunctionModel(read, options=["coarse", "fine"], costs=costs, revision="1")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A pipeline of a Matryoshka model, and one of a function, over the same images."""
    root = tmp_path_factory.mktemp("asking")
    (root / "asking_reader.py").write_text(READER)
    random, examples = np.random.default_rng(0), []
    for n in range(64):
        contrast = random.integers(1, 120)
        pixels = random.integers(128 - contrast, 129 + contrast, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{n}.png")
        for question in ("Is it?", "Is there anything at all to be seen in this image, or not?"):
            about = {"image": f"{n}.png", "question": question, "answers": ("yes",)}
            examples.append(Example(id=f"{n} {question}", **about))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(root)
        models = {"matryoshka": FakeModel(), "function": load_reference("asking_reader:model")}
        pipelines: dict[str, Any] = {"image": root / "3.png"}
        for name, model in models.items():
            run = str(root / name)
            label_stage(run, examples, images=str(root), model=model, progress=False)
            train_stage(run, estimator="logistic", ablations=False, progress=False)
            calibrate_stage(run, budget=8 if name == "function" else 200)
            pipelines[name] = open_pipeline(Run(run), model=model)
        yield pipelines


@pytest.fixture(params=["matryoshka", "function"])
def pipeline(runs, request) -> Any:
    return runs[request.param]


def test_every_form_of_an_image_gives_the_same_answer(pipeline, runs):
    path = runs["image"]
    image = Image.open(path)
    pixels = np.asarray(image)
    forms = [path, str(path), image, image.convert("RGBA"), pixels, path.read_bytes()]
    forms += [pixels[:, ::-1][:, ::-1], bytearray(path.read_bytes()), np.asfortranarray(pixels)]
    told = [pipeline.ask(form, TEXT) for form in forms]
    assert {(one.text, one.option, one.usage.cost) for one in told} == {
        (told[0].text, told[0].option, told[0].usage.cost)
    }
    assert str(told[0]) == told[0].text == told[0].answer.text
    grey = pixels[:, :, 0]
    assert pipeline.ask(grey, TEXT).text == pipeline.ask(grey[:, :, None], TEXT).text
    (listed,) = pipeline.answer([path], [TEXT])
    for one in (pipeline.answer(path, TEXT), listed):
        assert (one.text, one.option) == (told[0].text, told[0].option)
    both = pipeline.answer(path, [TEXT, "Is it?"])
    assert len(both) == 2 and len(pipeline.answer([path, pixels], TEXT)) == 2
    assert len(pipeline.answer(np.stack([pixels, pixels]), [TEXT, TEXT])) == 2
    several = pd.Series([str(path)] * 2)
    for images in (several, tuple(several), (one for one in several), np.array(several)):
        assert len(pipeline.answer(images, pd.Series([TEXT, TEXT]))) == 2
    assert pipeline.answer([], []) == []


def test_what_an_answer_says_of_itself(pipeline, runs):
    answer = pipeline.ask(runs["image"], TEXT)
    assert list(answer.estimates) == list(pipeline.options)
    assert {str(name): p for name, p in answer.sufficiency.items()} == dict(answer.estimates)
    assert str(answer.scale) == answer.option and answer.familiarity is None
    line = repr(answer)
    assert answer.text in line and f"option={answer.option!r}" in line and len(line) < 400
    page = answer._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "&amp; so on" in page
    assert "data:image/jpeg;base64," in page and f"{answer.option} ◀" in page
    unseen = dataclasses.replace(answer, image=None)
    assert "data:image" not in unseen._repr_html_() and unseen == answer
    fixed = pipeline.ask(runs["image"], TEXT, option=pipeline.options[-1])
    assert fixed.option == pipeline.options[-1]
    dear = pipeline.ask(runs["image"], TEXT, budget=pipeline.router.options and 300.0)
    assert dear.option in pipeline.options
    with pytest.raises(DataError, match="at most one"):
        pipeline.ask(runs["image"], TEXT, option=pipeline.options[0], budget=300.0)


PIXELS = np.zeros((6, 8, 3), dtype=np.uint8)
WRONG = {
    "floats": (PIXELS / 255, r"float64 of shape \(6, 8, 3\): scale it, by \(array \* 255\)"),
    "half": (PIXELS.astype(np.float16), "float16"),
    "wide": (PIXELS.astype(np.uint16), r"uint16 .*array >> 8"),
    "signed": (PIXELS.astype(np.int64), "int64 .*make bytes of it"),
    "truths": (PIXELS[:, :, 0] > 1, "bool .*black and white"),
    "channels first": (PIXELS.transpose(2, 0, 1), r"array.transpose\(1, 2, 0\)"),
    "floats, channels first": (PIXELS.transpose(2, 0, 1) / 255, r"array.transpose\(1, 2, 0\)"),
    "four channels": (np.zeros((6, 8, 4), dtype=np.uint8), r"array\[:, :, :3\].*'RGBA' or 'CMYK'"),
    "two channels": (np.zeros((6, 8, 2), dtype=np.uint8), "2 channels are no colours"),
    "one axis": (np.zeros(8, dtype=np.uint8), r"shape \(8,\)"),
    "a batch": (PIXELS[None], r"array\[0\]"),
    "nothing": (np.zeros((0, 8, 3), dtype=np.uint8), r"shape \(0, 8, 3\)"),
    "objects": (np.array([[None]]), "object"),
    "a tensor": (torch.zeros(3, 6, 8), r"torch.Tensor of shape \(3, 6, 8\).*permute"),
    "None": (None, "NoneType: this model looks at an image"),
    "a number": (3, "not int"),
    "an address": ("https://example.org/a.png", "is an address.*download it"),
    "a data address": ("data:image/png;base64,AAAA", "is an address"),
    "no file": ("nowhere.png", "nowhere.png cannot be read: no such file"),
    "no bytes": (b"", "it is empty"),
    "other bytes": (b"hello", "not an image in a known format"),
    "an open file": (io.BytesIO(b"abc"), r"by .read\(\)"),
    "a list": ([PIXELS], "not list"),
    "wide samples": (Image.new("I;16", (4, 4)), "mode 'I;16' has no agreed white"),
    "float samples": (Image.new("F", (4, 4)), "mode 'F'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_image_is_refused_with_what_to_do(runs, name):
    value, told = WRONG[name]
    for kind in ("matryoshka", "function"):
        with pytest.raises(ImageError, match=told):
            runs[kind].ask(value, "Is it?")


def test_a_question_is_a_text(pipeline, runs):
    for wrong in (None, b"what?", 3, runs["image"]):
        with pytest.raises(MismatchError, match="Question 1 must be a text"):
            pipeline.ask(runs["image"], wrong)
    with pytest.raises(DataError, match="empty"):
        pipeline.ask(runs["image"], "  ")
    with pytest.raises(MismatchError, match="2 images but 3 questions"):
        pipeline.answer([runs["image"]] * 2, ["Is it?"] * 3)
    assert isinstance(runs["image"], Path)
