from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.families.table import visualize
from m3router.m3core.matryoshka.models.anyres import merged_length
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.pooling import POOLINGS, pool
from m3router.m3core.matryoshka.views import View, token_boxes
from m3router.router.visualize.contact_sheet import HEIGHT
from m3router.router.visualize.token_grid import (
    cell_means,
    drawn,
    explained,
    heated,
    look,
    resized,
    shown_at,
)
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


def cells(drawing: Image.Image, boxes) -> np.ndarray:
    """The colour of each cell, read in its middle."""
    middles = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
    wide, tall = drawing.size
    return np.array([drawing.getpixel((int(x * wide), int(y * tall))) for x, y in middles])


@pytest.mark.parametrize("scale", [1, 9, 36, 144, 576])
def test_a_cell_has_the_mean_colour_of_what_its_token_covers(image, scale):
    """The reference is torch's average pooling of the pixels."""
    square = image.resize((SIDE * 20, SIDE * 20))
    view = View(name="", image=square, side=SIDE, pooling="average")
    pixels = torch.from_numpy(np.asarray(square).astype(np.float32)).permute(2, 0, 1)
    window = SIDE * 20 // int(scale**0.5)
    means = torch.nn.functional.avg_pool2d(pixels, window).flatten(1).T.numpy()
    drawing = drawn(view, scale)
    assert drawing.size == (HEIGHT, HEIGHT)
    np.testing.assert_allclose(cells(drawing, view.boxes(scale)), means, atol=1)


@pytest.mark.parametrize("size", [(400, 640), (100, 900)])
def test_cells_of_crops_are_means_and_the_padding_is_nothing(models, image, size):
    picture = image.resize(size[::-1])
    (encoding,) = models["llava_next"].encode([picture])
    _, crops = visualize(models["llava_next"], picture, encoding, side=96)
    drawing, boxes = drawn(crops, 9), crops.boxes(9)
    assert cells(drawing, boxes) == pytest.approx(cell_means(crops.image, boxes))
    left, top, right, bottom = np.array(boxes).T
    wide, tall = crops.image.size
    for colour, box in zip(
        cells(drawing, boxes),
        zip(left * wide, top * tall, right * wide, bottom * tall, strict=True),
        strict=True,
    ):
        mean = np.asarray(crops.image.crop(tuple(round(edge) for edge in box))).mean((0, 1))
        assert colour == pytest.approx(mean, abs=1)
    if min(top) > 0:  # a row that is only padding
        assert drawing.getpixel((5, 5)) == (89, 89, 89)


def test_where_no_token_looks_is_grey():
    white = Image.new("RGB", (100, 100), "white")
    few = np.asarray(drawn(View(name="", image=white, side=SIDE, pooling="sequential"), 36))
    assert (few[-1] == 89).all()  # no token is from the last row
    assert few[:15, :15].min() == 255


@pytest.mark.parametrize("pixels", [1, 50, 12_345, 255_999, 256_000, 1e9, float("inf")])
def test_an_image_at_fewer_pixels_shows_so_many_and_keeps_its_size(image, pixels):
    shown, (width, height) = resized(image, pixels)
    assert shown.size == image.size
    assert width * height == pytest.approx(min(pixels, 640 * 400), rel=0.1, abs=2)
    seen = np.asarray(shown).reshape(400, -1)
    assert len(np.unique(seen, axis=0)) <= height


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
    assert share == pytest.approx(400 / 640, abs=0.02)  # of the image beside the token
    (encoding,) = models["llava"].encode([red])
    (shown,), (note,) = shown_at(models["llava"], red, encoding, [1])
    padding = np.array(visualize(models["llava"], red, encoding, side=64)[0].image)[0, 0]
    mixed = (np.array([250, 0, 0]) * 400 + padding * 240.0) / 640
    assert shown.getpixel((9, 9)) == pytest.approx(mixed, abs=3)
    assert "mean colour" in explained(note)


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
