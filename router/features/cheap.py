"""What is known of an image and a question without any model.

Of an image: its size, how many edges it has when it is seen small and when it is seen larger,
how its brightness is spread, how colourful it is. Of a question: its length, how it begins, and
which kinds of things its words ask for. Word lists are English; in other languages those cues are
0 and the lengths remain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from m3router.router.features.size import size_features

VERSION = "cheap-1"

SIDES = (64, 256)
"""Images are scaled to squares of these sides before edges are looked for."""
EDGE = 0.1
"""A gradient of so much of the whole range of brightness a pixel is an edge."""
_REGIONS = 4
_BINS = 32

BEGINNINGS = ("what", "which", "how", "where", "when", "who", "why")
"""First words; a further cue is for what begins like a yes/no question."""
_YES_NO = frozenset(
    ("is", "are", "was", "were", "am", "do", "does", "did", "can", "could", "has", "have", "had")
    + ("will", "would", "should")
)
CUES = {
    "count": r"\b(how many|how much|number of|count)\b",
    "read": r"\b(read|text|written|write|words?|letters?|says?|titles?|sign|labels?|name|tags?"
    r"|print(ed)?|spell(ed)?|brand|caption)\b",
    "number": r"\b(numbers?|digits?|value|percent(age)?|year|price|time|date)\b",
    "color": r"\bcolou?r(s|ed)?\b",
    "place": r"\b(left|right|above|below|under|top|bottom|near|nearest|next to|between|behind"
    r"|front|row|column|corner)\b",
    "size": r"\b(small|tiny|large|big|little|thin|thick|short|tall)(er|est)?\b",
    "compare": r"\b(same|different|differ|more|less|fewer|most|least|than)\b",
    "digits": r"\d",
    "quote": "[\"\u201c\u201d\u2018]|'\\w+'",
    "negation": r"\bnot?\b|n't\b",
}
"""Name -> pattern; 1 where it is found in the question in lower case."""

_CUES = {name: re.compile(pattern) for name, pattern in CUES.items()}
_OPTION = re.compile(r"(?:^|\n)\s*\(?[A-Za-h][.):]\s", re.MULTILINE)
_WORD = re.compile(r"\w+")


def image_cues(image: Image.Image) -> np.ndarray:
    """Cues of an image, or of a video's collage.

    Args:
        image: RGB.

    Returns:
        float32 (16,): natural logarithms of width, height, width / height and megapixels; mean
        and standard deviation of its brightness, the entropy of its histogram in bits, and its
        colourfulness (Hasler and Suesstrunk, 2003, their measure M3, over 255); for each of
        ``SIDES`` the mean gradient, the share of edges, and the largest and the smallest share
        among 16 regions.
    """
    small = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.float32) / 255
    grey = small @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    counts = np.histogram(grey, bins=_BINS, range=(0, 1))[0] / grey.size
    known = counts[counts > 0]
    cues = [
        *size_features(image),
        grey.mean(),
        grey.std(),
        -(known * np.log2(known)).sum(),
        _colourfulness(small),
    ]
    plain = image.convert("L")
    for side in SIDES:
        cues += _edges(plain, side)
    return np.array(cues, dtype=np.float32)


def question_cues(questions: Sequence[str]) -> np.ndarray:
    """Cues of questions, read as they were asked.

    Returns:
        float32 (N, 23): logarithms of 1 + characters and of 1 + words, letters of a word on
        average, lines beyond the first (as a logarithm of 1 + them), listed options (lines that
        begin with a letter and ``.``, ``)`` or ``:``); one of ``BEGINNINGS``, or a yes/no
        question; each of ``CUES``.
    """
    return np.array([_cues_of(question) for question in questions], dtype=np.float32).reshape(
        len(questions), 5 + len(BEGINNINGS) + 1 + len(CUES)
    )


def _cues_of(question: str) -> list[float]:
    text = question.strip().lower()
    words = _WORD.findall(text)
    first = words[0] if words else ""
    letters = sum(map(len, words)) / max(1, len(words))
    return [
        np.log1p(len(text)),
        np.log1p(len(words)),
        letters,
        np.log1p(text.count("\n")),
        float(len(_OPTION.findall(question))),
        *(float(first == word) for word in BEGINNINGS),
        float(first in _YES_NO),
        *(float(pattern.search(text) is not None) for pattern in _CUES.values()),
    ]


def _colourfulness(pixels: np.ndarray) -> float:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    opponent, other = red - green, (red + green) / 2 - blue
    spread = np.hypot(opponent.std(), other.std())
    return float(spread + 0.3 * np.hypot(opponent.mean(), other.mean()))


def _edges(grey: Image.Image, side: int) -> list[float]:
    """Mean gradient, share of edges, and its extremes among regions (Sobel's operator)."""
    small = grey.resize((side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, dtype=np.float32) / 255
    across = pixels[:, 2:] - pixels[:, :-2]
    down = pixels[2:] - pixels[:-2]
    across = (across[:-2] + 2 * across[1:-1] + across[2:]) / 8  # change a pixel
    down = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 8
    strength = np.sqrt(across * across + down * down)
    edges = (strength > EDGE).astype(np.float32)
    cut = len(edges) // _REGIONS * _REGIONS
    regions = edges[:cut, :cut].reshape(_REGIONS, cut // _REGIONS, _REGIONS, -1).mean((1, 3))
    return [float(strength.mean()), float(edges.mean()), float(regions.max()), float(regions.min())]
