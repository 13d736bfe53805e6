"""What the stand-in answers to an image, and how it counts text."""

from __future__ import annotations

import binascii
import math
import re
from dataclasses import dataclass

from PIL import Image

from m3router.m3core.endpoint.stand_in.coded_images import read_code
from m3router.m3core.endpoint.stand_in.seeing import Seen

_PIECES = re.compile(r"\s?\w{1,4}|\s?[^\w\s]|\s")
_COLOURS = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "red": (220, 30, 30),
    "green": (30, 160, 30),
    "blue": (30, 30, 220),
    "yellow": (240, 220, 40),
    "purple": (130, 40, 140),
}
END = "<|end|>"


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token of an answer; the last is :data:`END`.

    Attributes:
        text: Its letters.
        logprob: Natural logarithm of its probability.
    """

    text: str
    logprob: float


def pieces(text: str) -> list[str]:
    """A text's tokens; joined, they are the text.

    >>> pieces("What is written?")
    ['What', ' is', ' writ', 'ten', '?']
    """
    return _PIECES.findall(text)


def answered(question: str, seen: Seen | None) -> list[Token]:
    """The tokens of an answer.

    The word of a coded image whose cells are large enough is read with a probability near 1.
    Otherwise the image's colour is named with a number made of its pixels and the question, with
    a probability made of the same.
    """
    number = binascii.crc32(question.encode(), _pixels(seen))
    unsure = 0.3 + 0.4 * (number >> 16 & 0xFF) / 255
    word = None if seen is None else read_code(seen.image, seen.cell)
    if word is not None:
        text, probability = word, 0.9 + 0.09 * (number & 0xFF) / 255
    elif seen is None:
        text, probability = f"no image {number & 0xFFFF:04x}", unsure
    else:
        text, probability = f"{_colour(seen.image)} {number & 0xFFFF:04x}", unsure
    logprob = math.log(probability)
    return [Token(text=one, logprob=logprob) for one in (*pieces(text), END)]


def _pixels(seen: Seen | None) -> int:
    if seen is None:
        return 0
    return binascii.crc32(repr(seen.image.size).encode() + seen.image.tobytes())


def _colour(image: Image.Image) -> str:
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(mean, tuple)
    return min(_COLOURS, key=lambda name: math.dist(_COLOURS[name], mean))
