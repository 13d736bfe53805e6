"""One question at several scales as a figure: what each token stands for, and what was answered.

Models that pool a grid are shown with the pooled grid over the image as the tower sees it.
MQT's tokens stand in no grid: there, each scale shows where one of its tokens looks, by Grad-CAM
(Hu et al., NeurIPS 2024, Figure 4).
"""

from __future__ import annotations

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
_FINE = 40  # pixels of a cell below which its outline is a single thin line
_DIM = 0.35  # brightness of what no token stands for


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
    return sheet(question, f"{model.name}: {visual}", panels), answers


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
        return [heated(square, one) for one in heat], [f"Grad-CAM of token {t}" for t in shown]
    if tokens:
        raise MismatchError(
            f"heat maps of single tokens are for MQT models; {model.name} pools a grid, which is "
            "drawn instead. Leave the tokens out."
        )
    images = [_side_by_side([drawn(view, scale) for view in seen]) for scale in scales]
    return images, [_parts(encoding, seen, scale) for scale in scales]


def drawn(view: View, scale: int) -> Image.Image:
    """The view with the tokens' outlines; what no token stands for is dimmed."""
    image = _fitted(view.image)
    boxes = [_pixels(box, image.size) for box in view.boxes(scale)]
    bright = Image.new("L", image.size, round(255 * _DIM))
    marked = ImageDraw.Draw(bright)
    for box in boxes:
        marked.rectangle(box, fill=255)
    shown = Image.composite(image, Image.new("RGB", image.size), bright)
    draw = ImageDraw.Draw(shown, "RGBA")
    fine = max((box[2] - box[0] for box in boxes), default=0) < _FINE
    outline = _line(image) if fine else "white"
    for left, top, right, bottom in boxes:
        draw.rectangle((left, top, right, bottom), outline=outline)
        if not fine:  # dark beside light: seen on any image
            inner = (left + 1, top + 1, right - 1, bottom - 1)
            draw.rectangle(inner, outline=(0, 0, 0, 200))
    return shown


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
    """A box in whole pixels, its right and bottom edges included."""
    left, top, right, bottom = box
    width, height = size
    return (
        round(left * width),
        round(top * height),
        round(right * width) - 1,
        round(bottom * height) - 1,
    )


def _fitted(image: Image.Image) -> Image.Image:
    """Scale an image to the height of a panel."""
    width = max(1, round(image.width * HEIGHT / image.height))
    return image.resize((width, HEIGHT), Image.Resampling.BICUBIC)


def _line(image: Image.Image) -> tuple[int, int, int, int]:
    """The colour of a thin line that is seen on an image: dark on a bright one."""
    bright = np.asarray(image.convert("L")).mean() > 255 / 2
    return (0, 0, 0, 100) if bright else (255, 255, 255, 150)


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width = sum(one.width for one in images) + _GAP * (len(images) - 1)
    row, x = Image.new("RGB", (width, HEIGHT), "white"), 0
    for one in images:
        row.paste(one, (x, 0))
        x += one.width + _GAP
    return row
