"""What a server's ``usage`` says, and whether it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST = 10**9
"""No prompt or answer has so many tokens."""
SLACK = 1
"""Tokens by which an answer may be longer than its limit: some servers count its end."""


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens of one request; None where the server does not name them.

    Attributes:
        prompt: The whole prompt.
        answer: The answer.
        image: Those that stand for images.
        cached: Those of the prompt that the server had read before.
        wrong: Why the server's usage cannot be; then all counts are None.
    """

    prompt: int | None = None
    answer: int | None = None
    image: int | None = None
    cached: int | None = None
    wrong: str | None = None


def read_usage(
    usage: Mapping[str, Any] | None, *, max_tokens: int, with_image: bool = True
) -> TokenCounts:
    """Read a ``usage``, as vLLM, SGLang, OpenAI and those who imitate them write it.

    >>> read_usage({"prompt_tokens": 90, "completion_tokens": 2,
    ...     "prompt_tokens_details": {"multimodal_tokens": {"image": 80}}}, max_tokens=16).image
    80

    Args:
        usage: None where the server says nothing.
        max_tokens: Of the longest answer that was asked for.
        with_image: Whether there was an image in the prompt.

    Returns:
        The counts. NOTE: of a usage that is wrong in one place, nothing is taken.
    """
    if not usage:
        return TokenCounts()
    details = _inner(usage, "prompt_tokens_details")
    multimodal = _inner(details, "multimodal_tokens")
    image = multimodal.get("image")
    found = {
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "image tokens": details.get("image_tokens") if image is None else image,
        "cached_tokens": details.get("cached_tokens"),
    }
    for name, value in found.items():
        if value is not None and (type(value) is not int or not 0 <= value < MOST):
            return TokenCounts(wrong=f"{name} is {value!r:.40}, which is no count")
    prompt, answer, image, cached = found.values()
    # Some servers write 0 image tokens where they do not count them.
    image = image or None
    problems = {
        "prompt_tokens is 0": prompt == 0,
        "more image tokens than prompt_tokens": prompt is not None and (image or 0) > prompt,
        "more cached_tokens than prompt_tokens": prompt is not None and (cached or 0) > prompt,
        "more completion_tokens than were allowed": (answer or 0) > max_tokens + SLACK,
        "image tokens in a prompt without an image": bool(image) and not with_image,
    }
    wrong = next((problem for problem, there in problems.items() if there), None)
    if wrong is not None:
        return TokenCounts(wrong=wrong)
    return TokenCounts(prompt=prompt, answer=answer, image=image, cached=cached)


def _inner(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = outer.get(name)
    return value if isinstance(value, dict) else {}
