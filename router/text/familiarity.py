"""Whether an image is unlike those that a router or a model knows, in words; the only place."""

from __future__ import annotations

UNLIKE = 0.01
"""An image of at most this p-value is called unlike those that the router was trained on."""

OUTSIDE = (
    "This image is outside what this model can read: the embedded model reads drawn scenes only, "
    "and this is unlike them."
)
"""Of an image that the embedded model was not made for."""


def is_unfamiliar(familiarity: float | None, *, level: float = UNLIKE) -> bool:
    """Whether an image counts as unlike those of the training; not where that is not known.

    Args:
        familiarity: Its p-value, see :mod:`m3router.router.monitoring.familiarity`.
        level: P-values up to this one count as unlike.
    """
    return familiarity is not None and familiarity <= level


def unfamiliar_sentence(familiarity: float | None, *, level: float = UNLIKE) -> str:
    """That an image is unlike those that the router was trained on; "" if it is not.

    Args:
        familiarity: See :func:`is_unfamiliar`.
        level: See :func:`is_unfamiliar`.

    >>> unfamiliar_sentence(0.004)
    'This image is unlike those the router was trained on (fewer than 1 in 250 of them look as \
unusual); its estimates may not hold.'
    >>> unfamiliar_sentence(0.3), unfamiliar_sentence(None)
    ('', '')
    """
    if familiarity is None or not is_unfamiliar(familiarity, level=level):
        return ""
    share = _rounded_down(1 / familiarity)
    seen = f" (fewer than 1 in {share} of them look as unusual)" if share > 1 else ""
    return (
        f"This image is unlike those the router was trained on{seen}; its estimates may not hold."
    )


def image_note(familiarity: float | None, *, outside: bool) -> str:
    """What is to be said of an image beside the answer about it; "" for nothing.

    Args:
        familiarity: See :func:`is_unfamiliar`.
        outside: Whether it is outside what the model can read, which says more.
    """
    return OUTSIDE if outside else unfamiliar_sentence(familiarity)


def _rounded_down(number: float) -> int:
    """With two digits, so that "fewer than 1 in" stays true.

    >>> _rounded_down(266.7), _rounded_down(100.0), _rounded_down(20.5)
    (260, 100, 20)
    """
    whole = int(number + 1e-9)
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
