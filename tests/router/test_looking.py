from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.models.anyres import merged_length
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.pooling import POOLINGS, pool
from m3router.m3core.matryoshka.views import View, token_boxes
from m3router.router.visualize.contact_sheet import HEIGHT
from m3router.router.visualize.token_grid import drawn, heated, look, shown_at
from tests.m3core.layouts import published, write

SIDE = 24
QUESTION = "what color is the cat?"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small random model of each family, from its published layout."""
    root, loaded = tmp_path_factory.mktemp("models"), {}
    for family in ("llava", "llava_next", "mqt"):
        folder = write(root / family, *published(family))
        loaded[family] = load_model(str(folder), device="cpu")
        loaded[family].max_new_tokens = 3
    return loaded


@pytest.fixture
def image() -> Image.Image:
    """Wide noise."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((640, 400))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("scale", [1, 4, 9, 36, 144, 576])
def test_boxes_are_where_the_pooling_takes_its_tokens_from(pooling, scale):
    """Pooling the patches' own coordinates gives the middle of each token's box."""
    at = (torch.arange(SIDE) + 0.5) / SIDE
    coordinates = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    middles = pool(coordinates, scale, pooling)
    boxes = np.array(list(token_boxes(SIDE, scale, pooling)))
    assert boxes.shape == (scale, 4)
    left, top, right, bottom = boxes.T
    np.testing.assert_allclose((top + bottom) / 2, middles[:, 0], atol=1e-6)
    np.testing.assert_allclose((left + right) / 2, middles[:, 1], atol=1e-6)
    area = 1 if pooling == "average" else scale / SIDE**2
    assert ((right - left) * (bottom - top)).sum() == pytest.approx(area)


@pytest.mark.parametrize("size", [(400, 640), (640, 400), (336, 336), (100, 900)])
@pytest.mark.parametrize("scale", [1, 9, 36, 144, 576])
def test_boxes_of_crops_are_as_many_as_tokens_less_line_ends(models, size, scale):
    model = models["llava_next"]
    (encoding,) = model.encode([Image.new("RGB", size[::-1])])
    grid = encoding.grid
    view = View(
        name="",
        image=Image.new("RGB", (grid.columns, grid.rows)),
        side=SIDE,
        pooling="average",
        rows=grid.rows,
        columns=grid.columns,
        size=encoding.size,
    )
    boxes = view.boxes(scale)
    line_ends = len({round(box[1], 6) for box in boxes})
    total = merged_length(encoding.size, grid, scale, "spatial_unpad")
    if boxes:
        assert scale + len(boxes) + line_ends == total == encoding.tokens(scale)


def test_outlines_are_drawn_and_the_rest_is_dimmed():
    white = Image.new("RGB", (100, 100), "white")
    view = View(name="", image=white, side=SIDE, pooling="average")
    assert drawn(view, 1).size == (HEIGHT, HEIGHT)
    dark = [(np.asarray(drawn(view, scale)) < 100).mean() for scale in (1, 9, 36)]
    assert 0 < dark[0] < dark[1] < dark[2] < 0.2
    few = np.asarray(drawn(View(name="", image=white, side=SIDE, pooling="sequential"), 36))
    assert (few[-1] == round(255 * 0.35)).all()  # no token is from the last row
    assert few[:16].mean() > 150


def test_heat_shows_where_it_is_hot():
    heat = np.zeros((24, 24), dtype=np.float32)
    heat[20, 3] = 7
    shown = np.asarray(heated(Image.new("RGB", (240, 240), "gray"), heat)).astype(int).sum(-1)
    assert np.unravel_index(shown.argmax(), shown.shape) == pytest.approx((205, 35), abs=6)
    cold = np.asarray(heated(Image.new("RGB", (240, 240), "gray"), np.zeros((24, 24))))
    assert np.ptp(cold.reshape(-1, 3), axis=0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("family", ["llava", "llava_next", "mqt"])
def test_every_family_is_drawn_with_its_real_tokens(models, image, family):
    model = models[family]
    drawing, answers = look(model, image, QUESTION)
    (encoding,) = model.encode([image])
    assert [one.visual_tokens for one in answers] == [
        encoding.tokens(scale) for scale in model.grid.scales
    ]
    few, one_answer = look(model, image, QUESTION, scales=[model.grid.scales[1]])
    assert len(one_answer) == 1
    assert few.width < drawing.width or few.height < drawing.height
    other, _ = look(model, image, QUESTION, scales=[model.grid.scales[2]])
    assert few.tobytes() != other.tobytes()


def test_the_padding_of_a_wide_image_is_part_of_what_is_drawn(models, image):
    red = Image.new("RGB", image.size, (250, 0, 0))
    drawing, _ = look(models["llava"], red, QUESTION, scales=[1])
    share = (np.asarray(drawing) == (250, 0, 0)).all(-1).sum() / HEIGHT**2
    assert share == pytest.approx(400 / 640, abs=0.02)  # the rest of the square is padding


def test_chosen_tokens_of_mqt_have_panels_of_their_own(models, image):
    model = models["mqt"]
    plain, _ = look(model, image, QUESTION, scales=[5])  # 5 is in no grid, but MQT has it
    more, answers = look(model, image, QUESTION, scales=[5], tokens=[0, 100])
    assert len(answers) == 1
    assert more.width > 2.5 * plain.width
    with pytest.raises(MismatchError, match="from 0 to 255"):
        look(model, image, QUESTION, scales=[5], tokens=[256])


def test_bad_requests_are_refused(image):
    with pytest.raises(MismatchError, match="scale 100 is not in"):
        look(FakeModel(), image, QUESTION, scales=[100])
    with pytest.raises(MismatchError, match="heat maps of single tokens are for MQT"):
        look(FakeModel(), image, QUESTION, tokens=[1])
    with pytest.raises(DataError):
        look(FakeModel(), image, "  ")


def test_a_model_that_crops_is_shown_the_centre(tmp_path):
    """Red ends are outside of what the tower sees, and so of what is drawn."""
    config, tensors = published("llava")
    folder = write(tmp_path / "m3", config | {"image_aspect_ratio": None}, tensors)
    model = load_model(str(folder), device="cpu")
    image = Image.new("RGB", (90, 40), "red")
    image.paste("blue", (25, 0, 65, 40))
    (encoding,) = model.encode([image])
    (shown,), (note,) = shown_at(model, image, encoding, [576])
    assert note == "square in the centre"
    assert (np.asarray(shown)[..., 0] < 200).all()
