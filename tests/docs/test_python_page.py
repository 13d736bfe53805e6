"""`docs/python.md` runs as it is written, on a run of a function that reads drawn numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.example import Example
from m3router.m3core.functions import load_reference
from m3router.router import calibrate_stage, evaluate_stage, label_stage, train_stage
from tests.docs.fences import fences

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
IMAGES = 48
TOTAL, DATE = "What is the total?", "What is the date?"
READER = """
from m3router import FunctionModel


def read(images, questions, option):
    values = [image.getpixel((0, 0))[0] for image in images]
    return [
        "today" if "date" in question else value if option == "fine" or value % 3 == 0 else 0
        for value, question in zip(values, questions, strict=True)
    ]


model = FunctionModel(
    lambda images, questions, option: list(map(str, read(images, questions, option))),
    options=["coarse", "fine"],
    costs={"coarse": 64, "fine": 576},
    cost_unit="visual tokens",
    revision="1",
)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `run/`, labelled, trained and calibrated through texts alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "totals_reader.py").write_text(READER)
    (tmp_path / "images").mkdir()
    examples = []
    for n in range(IMAGES):
        Image.fromarray(np.full((8, 8, 3), n + 1, dtype=np.uint8)).save(f"images/{n}.png")
        for question, answer in ((TOTAL, str(n + 1)), (DATE, "today")):
            name = f"{n} {question}"
            examples.append(
                Example(id=name, image=f"{n}.png", question=question, answers=(answer,))
            )
    model = load_reference("totals_reader:model")
    label_stage("run", examples, images="images", model=model, progress=False)
    train_stage("run", estimator="logistic", ablations=False)
    calibrate_stage("run", budget=300)
    evaluate_stage("run", draws=20)
    return tmp_path


def test_the_page_runs(here, capsys):
    blocks = [one for one in fences(PAGE.read_text(encoding="utf-8")) if one.language == "python"]
    assert len(blocks) >= 7
    names: dict[str, object] = {}
    for block in blocks:
        code = compile("\n" * block.line + block.text, str(PAGE), "exec")
        exec(code, names)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last in ("224 px", "672 px")
    assert len(names["answers"]) == 2 and names["again"].option == "fine"
