"""Whether each option makes a difference, seen by one synthetic image before anything is labelled.

Servers ignore in silence what they do not know: a body's field, a part's ``detail``, an argument of
a processor. A ladder whose options do all the same costs as much to label and teaches nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from m3router.m3core.endpoint.completions import Completion
from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.token_counts import TokenCounts
from m3router.m3core.options import Usage

QUESTION = "Describe this image."
ANSWER_TOKENS = 8
SIZES = ((1600, 1200), (1800, 900))
"""Of the images, width and height. The second is shown where the first makes no difference: tiles
depend on the shape."""
SAME = 0.01
"""Log-probabilities that are nearer are equal: batches and number formats move them."""


@functools.cache
def probe_image(width: int, height: int) -> Image.Image:
    """A detailed image: coloured blocks of 100 pixels, in them of 20, in them of 4."""
    random = np.random.default_rng(0)
    layers = []
    for block, strength in ((100, 120), (20, 80), (4, 55)):
        rows, columns = -(-height // block), -(-width // block)
        colours = random.integers(0, strength, (rows, columns, 3))
        layers.append(colours.repeat(block, 0).repeat(block, 1)[:height, :width])
    return Image.fromarray(np.sum(layers, axis=0).astype(np.uint8))


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What an option made of the synthetic image.

    Attributes:
        option: The option.
        completion: Its answer.
        counts: What the server's usage says.
        usage: What it cost.
    """

    option: EndpointOption
    completion: Completion
    counts: TokenCounts
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What probing found out.

    Attributes:
        answers: Option -> what it answered about the synthetic image, and its tokens.
        unchecked: What could not be checked, one sentence each.
    """

    answers: Mapping[str, Mapping[str, Any]]
    unchecked: tuple[str, ...]


def differing(one: EndpointOption, other: EndpointOption) -> list[str]:
    """What two options ask differently, such as ``["body.mm_processor_kwargs"]``."""
    found = []
    for name, value in one.deciding().items():
        against = other.deciding()[name]
        if isinstance(value, Mapping) and isinstance(against, Mapping):
            keys = sorted({*value, *against})
            found += [f"{name}.{key}" for key in keys if value.get(key) != against.get(key)]
        elif value != against:
            found.append(name)
    return found


def makes_difference(one: Probed, other: Probed) -> bool | None:
    """Whether two options differ in what a server did; None where that cannot be told."""
    ours, theirs = one.counts, other.counts
    if None not in (ours.image, theirs.image):
        equal_tokens: bool | None = ours.image == theirs.image
    elif None not in (ours.prompt, theirs.prompt):
        equal_tokens = ours.prompt == theirs.prompt
    else:
        equal_tokens = None
    if equal_tokens is False or one.completion.text != other.completion.text:
        return True
    pair = (one.completion.logprobs, other.completion.logprobs)
    if all(pair) and len(pair[0]) == len(pair[1]):
        return any(abs(a - b) > SAME for a, b in zip(*pair, strict=True))
    return None if equal_tokens is None else False


def neighbours(options: Sequence[EndpointOption]) -> list[tuple[EndpointOption, EndpointOption]]:
    """Each option and the next finer one with the same model."""
    pairs = []
    for place, finer in enumerate(options):
        same = [one for one in options[:place] if one.model == finer.model]
        pairs += [(same[-1], finer)] if same else []
    return pairs
