"""Options of a user, checked by name; and every option asked once whether it does anything.

Processors drop unknown keyword arguments in silence, and an option that changes nothing would be
labelled, paid for and learned from all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from m3router.data.errors import ImageError, MismatchError
from m3router.data.registry import unknown_name
from m3router.m3core.vlm.families import Options
from m3router.m3core.vlm.preparing import Preparer

PROBES = ((1600, 1200), (2400, 600))
"""Width and height of the images that options are probed with. Where two options tie on the first
one, the second decides: how many tiles there are depends on an image's shape."""
_NO_OPTIONS = {
    "data_format",
    "device",
    "downsample_factor",
    "encoder_patch_size",
    "input_data_format",
    "merge_size",
    "patch_size",
    "pooling_kernel_size",
    "return_tensors",
    "temporal_patch_size",
}
"""Arguments that say how to compute, or that the weights decide."""


def check_keywords(image_processor: Any, options: Options) -> None:
    """Check the names of keyword arguments.

    Raises:
        MismatchError: Naming the option, the argument and the nearest known one; or if an option
            is no mapping.
    """
    known = set(image_processor.valid_kwargs.__annotations__) - _NO_OPTIONS
    for option, keywords in options.items():
        if not isinstance(keywords, Mapping):
            raise MismatchError(
                f"option {option!r} must map arguments of the image processor to values, such as "
                f'{{"max_soft_tokens": 70}}, got {keywords!r}'
            )
        for name in keywords:
            if name not in known:
                what = unknown_name("argument of the image processor", name, known)
                raise MismatchError(f"option {option!r}: {what}")


def probe(preparer: Preparer, names: Iterable[str]) -> None:
    """Prepare one synthetic image at every option, and compare neighbours.

    Args:
        preparer: Knows the options.
        names: The options, the coarsest first.

    Raises:
        MismatchError: If an option is refused by the image processor, gives the image no tokens,
            costs as much as the one before it, or less.
    """
    before: str | None = None
    for name in names:
        if before is not None:
            _compare(preparer, before, name)
        elif _tokens(preparer, PROBES[0], name) < 1:
            raise MismatchError(f"option {name!r} gives an image no tokens; raise its budget")
        before = name


def _compare(preparer: Preparer, coarse: str, fine: str) -> None:
    for size in PROBES:
        less, more = (_tokens(preparer, size, name) for name in (coarse, fine))
        shape = f"an image of {size[0]} x {size[1]} pixels"
        if more < less:
            raise MismatchError(
                f"options must be ordered from the coarsest to the finest: {coarse!r} costs {less} "
                f"tokens for {shape}, {fine!r} after it {more}; exchange them"
            )
        if more > less:
            return
    raise MismatchError(
        f"option {fine!r} changes nothing: like {coarse!r} it costs {more} tokens for {shape}, and "
        "the same for other shapes; leave one of them out, or give them other budgets"
    )


def _tokens(preparer: Preparer, size: tuple[int, int], option: str) -> int:
    try:
        return preparer.count(size, option).image_tokens
    except ImageError as error:
        raise MismatchError(f"option {option!r} cannot be used: {error}") from error
