"""One question at several scales as a figure: what each token stands for, and what was answered.

Models that pool a grid are shown with the detail that pooling leaves: each token's cell has the
mean colour of what the token covers. MQT's tokens stand in no grid: there, each scale shows where
one of its tokens looks, by Grad-CAM (Hu et al., NeurIPS 2024, Figure 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from m3router.data.errors import MismatchError
from m3router.m3core.checkpoints.families.table import visualize
from m3router.m3core.matryoshka.base import Answer, MultiScaleModel, Request, VisualEncoding
from m3router.m3core.matryoshka.batching import answer_all
from m3router.m3core.matryoshka.views import Box, TokenHeat, View
from m3router.router.visualize.contact_sheet import HEIGHT, Panel, sheet

_GAP = 8  # pixels between the views of one panel
_NOTHING = (89, 89, 89)  # where no token stands for anything
_HEAT = "Grad-CAM of token"

MEANS = (
    "Each cell has the mean colour of what its token covers: the detail that pooling leaves. "
    "Tokens carry features, not colours, so the model may read more than is seen here."
)
"""What :func:`drawn` shows and what it does not."""


def look(
    model: MultiScaleModel,
    image: Image.Image,
    question: str,
    *,
    scales: Sequence[int] = (),
    tokens: Sequence[int] = (),
) -> tuple[Image.Image, list[Answer]]:
    """Ask a question at several scales and draw what the model saw and said.

    Args:
        model: The model.
        image: An RGB image.
        question: The question.
        scales: Scales to ask at; empty for all of the model's grid.
        tokens: For MQT: indices of further visual tokens to show the heat maps of. Each scale
            shows its last token, the one that it adds.

    Returns:
        The drawing (RGB), and the answer at each scale.

    Raises:
        MismatchError: If the model has no such scale or token, or no tokens to be named.
        DataError: If the question is empty or does not fit the model's context.
    """
    asked = [model.check_scale(scale) for scale in scales or model.grid.scales]
    (encoding,) = model.encode([image])
    images, notes = shown_at(model, image, encoding, asked, tokens=tokens)
    answers = answer_all(
        model, [Request(encoding=encoding, question=question, scale=one) for one in asked]
    )
    panels = [
        Panel(image=drawn, title=_title(scale, answer), note=note, **_said(answer))
        for scale, answer, drawn, note in zip(asked, answers, images, notes, strict=False)
    ]
    panels += [
        Panel(image=drawn, title=f"token {token}", note="Grad-CAM")
        for token, drawn in zip(tokens, images[len(asked) :], strict=True)
    ]
    visual = ", ".join(f"{key} {value}" for key, value in model.visual.items())
    about = f"{model.name}: {visual}. {explained(notes[0])}"
    return sheet(question, about, panels, image=_whole(model, image, encoding)), answers


def _whole(
    model: MultiScaleModel, image: Image.Image, encoding: VisualEncoding
) -> Image.Image | None:
    """The image as the tower sees it at every scale; None where heat maps show it anyway."""
    seen = visualize(model, image, encoding, side=HEIGHT)
    if isinstance(seen, TokenHeat):
        return None
    return _side_by_side([_fitted(view.image) for view in seen])


def shown_at(
    model: MultiScaleModel,
    image: Image.Image,
    encoding: VisualEncoding,
    scales: Sequence[int],
    *,
    tokens: Sequence[int] = (),
) -> tuple[list[Image.Image], list[str]]:
    """Draw what each visual token of some scales stands for, without asking anything.

    Args:
        model: The model.
        image: An RGB image.
        encoding: What the model made of it.
        scales: Scales to draw.
        tokens: For MQT: indices of further visual tokens to draw the heat maps of.

    Returns:
        An image (RGB, :data:`m3router.router.visualize.contact_sheet.HEIGHT` pixels high) for each
        scale and then for each of ``tokens``, and for each scale a note of what its image is.

    Raises:
        MismatchError: If there is no such token, or tokens were named and the model pools a grid.
    """
    seen = visualize(model, image, encoding, side=HEIGHT)
    if isinstance(seen, TokenHeat):
        shown = [scale - 1 for scale in scales]
        square = _fitted(seen.image)
        heat = seen.maps([*shown, *tokens])
        return [heated(square, one) for one in heat], [f"{_HEAT} {token}" for token in shown]
    if tokens:
        raise MismatchError(
            f"heat maps of single tokens are for MQT models; {model.name} pools a grid, which is "
            "drawn instead. Leave the tokens out."
        )
    images = [_side_by_side([drawn(view, scale) for view in seen]) for scale in scales]
    return images, [_parts(encoding, seen, scale) for scale in scales]


def drawn(view: View, scale: int) -> Image.Image:
    """What the tokens of a scale keep of a view's detail: cells of one colour.

    Each cell has the mean colour of the pixels that its token covers, as average pooling would
    leave it of an image; a token itself carries features, not a colour. What no token stands for
    is grey.

    Args:
        view: What the tower sees.
        scale: Tokens for each of its squares.

    Returns:
        RGB, :data:`m3router.router.visualize.contact_sheet.HEIGHT` pixels high. But for the line
        at its right and bottom, a cell has its colour exactly.
    """
    boxes = view.boxes(scale)
    colours = cell_means(view.image, boxes)
    shown = Image.new("RGB", _fitted_size(view.image), _NOTHING)
    places = [_pixels(box, shown.size) for box in boxes]
    draw = ImageDraw.Draw(shown, "RGBA")
    for place, colour in zip(places, colours.tolist(), strict=True):
        draw.rectangle(place, fill=tuple(colour))
    line = _line(shown)
    for left, top, right, bottom in places:  # one line between two cells
        draw.line((left, bottom, right, bottom, right, top), fill=line)
    return shown


def cell_means(image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
    """The mean colour of each part of an image.

    Args:
        image: RGB.
        boxes: T parts, in parts of its width and height; edges are rounded to whole pixels.

    Returns:
        (T, 3) of whole numbers from 0 to 255.
    """
    sums = np.zeros((image.height + 1, image.width + 1, 3))
    sums[1:, 1:] = np.asarray(image, dtype=np.float64).cumsum(0).cumsum(1)
    places = np.array([_pixels(box, image.size) for box in boxes], dtype=int).reshape(-1, 4)
    left, top, right, bottom = places.T + np.array([[0], [0], [1], [1]])
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    area = ((right - left) * (bottom - top))[:, None]
    return np.rint(total / area).astype(np.uint8)


def resized(image: Image.Image, pixels: float) -> tuple[Image.Image, tuple[int, int]]:
    """What is left of an image that a model is given with fewer pixels, at its old size.

    Args:
        image: RGB.
        pixels: That the model is given, width times height.

    Returns:
        The image, scaled down to so many pixels and enlarged again so that each is seen; and
        the (width, height) that it was scaled down to. The image itself where it has no more.
    """
    area = image.width * image.height
    if pixels >= area:
        return image, image.size
    share = math.sqrt(pixels / area)
    small = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    least = image.resize(small, Image.Resampling.BICUBIC)
    return least.resize(image.size, Image.Resampling.NEAREST), small


def explained(note: str) -> str:
    """What a drawing shows and what it does not, in a sentence or two.

    Args:
        note: Of the drawing, as :func:`shown_at` gives it.
    """
    if note.startswith(_HEAT):
        return "Bright is where this token looks (Grad-CAM); the model is given no picture of it."
    return MEANS


def heated(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Lay a heat map over an image, each scaled to the other.

    Args:
        image: RGB, square.
        heat: (S, S), at least 0; its largest value becomes the hottest colour.
    """
    share = heat / heat.max() if heat.max() > 0 else heat
    grey = Image.fromarray(np.rint(255 * share).astype(np.uint8))
    smooth = np.asarray(grey.resize(image.size, Image.Resampling.BICUBIC))
    colours = matplotlib.colormaps["inferno"](smooth)[..., :3] * 255
    cover = (0.25 + 0.4 * smooth / 255)[..., None]
    mixed = (1 - cover) * np.asarray(image) + cover * colours
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _title(scale: int, answer: Answer) -> str:
    used = answer.visual_tokens
    tokens = f"{used} visual token{'s' if used > 1 else ''}"
    return tokens if used == scale else f"scale {scale}: {tokens}"


def _parts(encoding: VisualEncoding, views: Sequence[View], scale: int) -> str:
    """What is shown, and how the tokens are spread over it where there are several views."""
    if len(views) == 1:
        return views[0].name
    rest = encoding.tokens(scale) - scale
    line_ends = ", line ends included" if views[1].size else ""
    return f"{views[0].name} {scale} + {views[1].name} {rest}{line_ends}"


def _said(answer: Answer) -> dict[str, str]:
    return {"text": answer.text or "(nothing)", "foot": f"{answer.confidence:.0%} sure"}


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels, its right and bottom edges included; at least one pixel."""
    left, top, right, bottom = box
    width, height = size
    x, y = min(round(left * width), width - 1), min(round(top * height), height - 1)
    return x, y, max(x, round(right * width) - 1), max(y, round(bottom * height) - 1)


def _fitted_size(image: Image.Image) -> tuple[int, int]:
    return max(1, round(image.width * HEIGHT / image.height)), HEIGHT


def _fitted(image: Image.Image) -> Image.Image:
    """Scale an image to the height of a panel."""
    return image.resize(_fitted_size(image), Image.Resampling.BICUBIC)


def _line(image: Image.Image) -> tuple[int, int, int, int]:
    """The colour of a thin line that is seen on an image: dark on a bright one."""
    bright = np.asarray(image.convert("L")).mean() > 255 / 2
    return (0, 0, 0, 70) if bright else (255, 255, 255, 110)


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width = sum(one.width for one in images) + _GAP * (len(images) - 1)
    row, x = Image.new("RGB", (width, HEIGHT), "white"), 0
    for one in images:
        row.paste(one, (x, 0))
        x += one.width + _GAP
    return row
