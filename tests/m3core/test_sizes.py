"""Costs read from configurations alone agree with those of the loaded models."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.checkpoints import convert, load_model
from m3router.m3core.checkpoints.sizes import parse_image, read_sizes
from tests.m3core import layouts


def bare(folder, family: str, **changes):
    """A folder with nothing but the published ``config.json``, and the tower's beside it."""
    config, _ = layouts.published(family)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | changes))
    beside = folder / "clip-vit-tiny"
    beside.mkdir()
    layouts.VISION.save_pretrained(beside)
    return folder


@pytest.mark.parametrize("family", ["llava", "llava_next", "mqt"])
@pytest.mark.parametrize("image", [(48, 48), (60, 130)])  # (height, width)
def test_a_bare_config_says_what_the_loaded_model_costs(tmp_path, family, image):
    whole = layouts.write(tmp_path / "whole", *layouts.published(family))
    model = load_model(str(whole), device="cpu")
    sizes = read_sizes(str(bare(tmp_path / "bare", family)))
    assert sizes.family == family
    assert sizes.grid == model.grid
    assert sizes.shape == model.shape
    (encoding,) = model.encode([Image.new("RGB", image[::-1])])
    assert sizes.views(image) == encoding.views
    for scale in sizes.grid.scales:
        assert sizes.tokens(scale, image) == encoding.tokens(scale)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_the_hugging_face_layout_costs_the_same(tmp_path, family):
    source = layouts.write(tmp_path / "source", *layouts.published(family))
    converted = convert(str(source), tmp_path / "converted")  # with a padded vocabulary
    sizes = read_sizes(str(converted))
    assert sizes == read_sizes(str(source))
    assert sizes.shape == load_model(str(converted), device="cpu").shape


@pytest.mark.parametrize("family", ["llava", "llava_next", "mqt"])
def test_the_weights_are_those_of_the_file(tmp_path, family):
    _, tensors = layouts.published(family)
    shape = read_sizes(str(bare(tmp_path / "bare", family))).shape
    newline = 48 if family == "llava_next" else 0
    count = sum(tensor.numel() for tensor in tensors.values()) - newline
    assert shape.language_weights + shape.vision_weights == count


def test_the_embedded_models_weights_are_those_of_its_file():
    from safetensors import safe_open

    from m3router.m3core.checkpoints import embedded_folder

    with safe_open(embedded_folder() / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if "lm_head" not in name]  # noqa: SIM118
        count = sum(file.get_tensor(name).numel() for name in names)
    sizes = read_sizes("embedded")
    assert sizes.shape.language_weights + sizes.shape.vision_weights == count
    assert sizes.shape == load_model("embedded", device="cpu").shape


def test_a_known_tower_needs_no_file(tmp_path):
    folder = bare(tmp_path / "m", "llava", mm_vision_tower="openai/clip-vit-large-patch14-336")
    sizes = read_sizes(str(folder))
    assert (sizes.shape.patches, sizes.shape.tower.hidden) == (577, 1024)


def test_what_is_not_there_is_named(tmp_path):
    folder = bare(tmp_path / "m", "llava", mm_vision_tower="someone/unknown-tower")
    with pytest.raises(ModelError, match="unknown-tower.*put its config.json into"):
        read_sizes(str(folder))
    with pytest.raises(ModelError, match="'no-such-folder' is neither 'embedded' nor a folder"):
        read_sizes("no-such-folder")
    with pytest.raises(MismatchError, match="scale 100 is not in this model's grid"):
        read_sizes("embedded").tokens(100, (1, 1))


@pytest.mark.parametrize("text", ["640", "640x", "0x5", "axb", "-1x3", ""])
def test_a_image_size_is_width_and_height(text):
    assert parse_image("640x480") == (480, 640)
    with pytest.raises(MismatchError, match="not an image size: write width x height"):
        parse_image(text)
