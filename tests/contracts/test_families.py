"""What every model family keeps to, and that a new one is one object and one line in the table."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from m3router.data.errors import M3RouterError
from m3router.data.log.oracle_log import OracleLog
from m3router.m3core.checkpoints import convert, load_model, read_sizes
from m3router.m3core.checkpoints.conversion import write_trained
from m3router.m3core.checkpoints.families.base import Family
from m3router.m3core.checkpoints.families.table import (
    FAMILIES,
    families,
    family_of,
    get_family,
    recognise,
    trainable_of,
)
from m3router.m3core.encoders import load_encoder
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.router.cli.main import app
from m3router.router.visualize.token_grid import look, shown_at
from tests.cli.conftest import write_world
from tests.m3core import layouts

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ("mqt", "llava", "llava_next")
TOY = '''
"""A toy family: coloured tiles, answered by the model without weights."""

import json

import torch

from m3router.m3core.checkpoints.families.base import Family, Sizes
from m3router.m3core.checkpoints.writing import whole_folder
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.scales import ScaleGrid


class Tiles(FakeModel):
    """See the module."""

    name = "tiles"


class Toy(Family):
    name = "toy"
    model = Tiles
    loads = "'toy' (tiles)"

    def recognise(self, folder, config):
        return "hugging_face" if config.get("model_type") == "toy" else None

    def sizes(self, checkpoint):
        model = self._model(checkpoint)
        return Sizes(family=self.name, grid=model.grid, shape=model.shape)

    def build(self, source):
        if source.grids is not None:
            source.refuse("grids", "which sees an image whole")
        return self._model(source.checkpoint, pooling=source.pooling)

    def convert(self, checkpoint, destination, *, dtype):
        with whole_folder(destination) as work:
            (work / "config.json").write_text(json.dumps(checkpoint.config | {"dtype": dtype}))

    def trainable(self, model):
        return torch.nn.Linear(1, 1)

    def write_trained(self, checkpoint, weights, destination, *, scales, dtype):
        with whole_folder(destination) as work:
            config = checkpoint.config | {"matryoshka": {"scales": list(scales)}}
            (work / "config.json").write_text(json.dumps(config))

    def _model(self, checkpoint, **more):
        return Tiles(ScaleGrid(scales=checkpoint.scales, side=checkpoint.config["side"]), **more)


TOY = Toy()
'''


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """A checkpoint of a family that is one file and one line; nothing else is touched."""
    (tmp_path / "toy_family.py").write_text(textwrap.dedent(TOY))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FAMILIES, "toy", "toy_family:TOY")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config = {"model_type": "toy", "side": 4, "matryoshka": {"scales": [1, 4, 16]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(params=[*PUBLISHED, "toy"])
def checkpoint(request, tmp_path) -> tuple[str, Path]:
    """A family's name with a small checkpoint of it."""
    if request.param == "toy":
        return "toy", request.getfixturevalue("toy")
    return request.param, layouts.write(tmp_path / "it", *layouts.published(request.param))


def test_every_family_of_the_table_is_tested_here():
    assert set(FAMILIES) == set(PUBLISHED)
    assert [family.name for family in families()] == list(FAMILIES)


def test_a_family_keeps_its_promises(checkpoint, tmp_path):
    name, folder = checkpoint
    found = recognise(folder)
    assert found.family == name and isinstance(get_family(name), Family)

    # Sizes are read without weights, and are those of what is built.
    sizes, model = read_sizes(str(folder)), load_model(str(folder), device="cpu")
    assert sizes.family == name and (sizes.grid, sizes.shape) == (model.grid, model.shape)
    assert isinstance(model, MultiScaleModel) and family_of(model) is get_family(name)

    # It answers at every scale, and costs what its sizes say.
    image = Image.new("RGB", (60, 40), "green")
    (encoding,) = model.encode([image])
    requests = [
        Request(encoding=encoding, question="what is it?", scale=one, max_new_tokens=2)
        for one in model.grid.scales
    ]
    answers = answer_all(model, requests)
    assert [one.visual_tokens for one in answers] == [
        sizes.tokens(scale, (40, 60)) for scale in model.grid.scales
    ]
    assert encoding.views == sizes.views((40, 60))

    # It is drawn at every scale, and encodes images for logs that another system wrote.
    images, notes = shown_at(model, image, encoding, model.grid.scales)
    assert len(images) == len(notes) == len(model.grid)
    assert load_encoder(str(folder)).grid == model.grid

    # It is converted, or says that it is not.
    try:
        written = convert(str(folder), tmp_path / "converted")
    except M3RouterError as error:
        assert "Load it as it is" in str(error)
    else:
        assert recognise(written).family == name
        assert read_sizes(str(written)) == sizes

    # It is trained and written, or says that it is not.
    try:
        trainable = trainable_of(model)
    except M3RouterError as error:
        assert "cannot be trained" in str(error)
    else:
        module = getattr(trainable, "module", trainable)
        finest = (model.grid.finest,)
        kept = write_trained(str(folder), module.state_dict(), tmp_path / "kept", scales=finest)
        again = load_model(str(kept), device="cpu")
        assert type(again) is type(model)
        assert name == "mqt" or again.grid.scales == finest


def test_the_toy_is_used_as_any_other(toy, tmp_path):
    drawing, answers = look(load_model(str(toy)), Image.new("RGB", (8, 8)), "is it red?")
    assert len(answers) == 3 and drawing.width > 0
    world, run = write_world(tmp_path / "world", images=6), tmp_path / "run"
    source = ["--examples", world.examples, "--images", world.images, "--model", toy]
    assert invoke("label", *source, "--out", run).exit_code == 0
    log = OracleLog.read(run / "log")
    assert log.options == ("1", "4", "16") and log.metadata["model"] == "tiles"
    cost = invoke("cost", "--model", toy)
    assert cost.exit_code == 0 and "16" in cost.output
    assert invoke("convert", toy, tmp_path / "converted").exit_code == 0
    with pytest.raises(M3RouterError, match="which sees an image whole; leave grids out"):
        load_model(str(toy), grids=["2x2"])


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_what_no_family_recognises_is_refused_with_what_there_is(toy):
    config = toy / "config.json"
    config.write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(M3RouterError, match=r"model_type 'other'; this version loads .*'toy'"):
        recognise(toy)


def test_nothing_else_asks_for_a_family():
    """What is special to a family is said by its object, not by branches elsewhere."""
    branch = re.compile(
        r"isinstance\([^)]*\b(LlavaM3|LlavaNextM3|MqtLlava|CropsEncoding|QueryEncoding)\b"
        r"|\.family (==|!=|in|not in)\b|\bfamily (==|!=) "
    )
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for package in ("data", "m3core", "router")
        for file in sorted((ROOT / package).rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if branch.search(line)
    ]
    assert found == []
