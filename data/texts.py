"""What counts as the same text before any metric looks at it.

Every metric compares texts that went through :func:`clean`, answers and references alike, so that
a score never hangs on who stripped a text or in which form a file system or an editor wrote an
``é``. Scripts of benchmarks do neither; on texts that are composed and have no outer blanks, as
nearly all are, :func:`clean` changes nothing and their results stand.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Protocol

_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u2060\ufeff"
"""All white space of Unicode, and what has no width: zero-width space, word joiner, BOM."""
_WIDE = frozenset("FH")
"""East Asian widths of a full-width or half-width variant of another character."""


class Metric(Protocol):
    """A rule that scores an answer against reference answers and choices, in [0, 1]."""

    def __call__(self, answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
        """Score an answer."""
        ...


def clean(text: str) -> str:
    """Compose a text (Unicode's form NFC) and take the outer blanks away.

    >>> clean(" Cafe\u0301\u00a0") == "Caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text).strip(_BLANKS)


def writable(text: str) -> str:
    r"""A text that every file can hold: half of a surrogate pair becomes a question mark.

    >>> writable("a \ud800 cat")
    'a ? cat'
    """
    return text.encode("utf-8", errors="replace").decode("utf-8")


def on_clean_texts(rule: Metric) -> Metric:
    """Let a rule see cleaned texts only: the answer, the references and the choices."""

    @functools.wraps(rule)
    def cleaned(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
        return rule(clean(answer), [clean(text) for text in answers], [clean(t) for t in choices])

    return cleaned


def widths_folded(text: str) -> str:
    """Full-width and half-width variants as the common characters, and nothing else changed.

    Form NFKC would do more, and make ``10²`` equal ``102``.

    >>> widths_folded("\uff22\uff11\uff12\u00b2") == "B12\u00b2"
    True
    """
    if text.isascii():
        return text
    return "".join(
        unicodedata.normalize("NFKC", letter)
        if unicodedata.east_asian_width(letter) in _WIDE
        else letter
        for letter in text
    )


def plain(text: str) -> str:
    """A text without case, full-width forms, repeated blanks and final full stops.

    Case is folded as Unicode's canonical caseless matching has it (version 15, D145): ``Straße``
    equals ``STRASSE``, and ``İ`` equals ``i`` with its dot above. Nothing hangs on a language, so
    the dotless ``ı`` of Turkish is another letter than ``i``.

    >>> plain(" The  CAT. "), plain("Straße") == plain("STRASSE"), plain("ı") == plain("i")
    ('the cat', True, False)
    """
    folded = unicodedata.normalize("NFD", widths_folded(text)).casefold()
    words = unicodedata.normalize("NFC", folded).strip(_BLANKS).split()
    return " ".join(words).rstrip(".").rstrip()
