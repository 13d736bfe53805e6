"""What to do about a server's refusal: words of its message -> advice; literal tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMEDIES: tuple[tuple[str, str], ...] = (
    (
        r"trust.request.mm.kwargs|mm_processor_kwargs.*(not allowed|disabled|trust|untrusted)",
        "start vLLM with --trust-request-mm-kwargs",
    ),
    (
        r"unexpected.*mm_processor_kwargs",
        "this server, as `transformers serve`, takes chat_template_kwargs instead: see the presets "
        "transformers-...",
    ),
    (r"mm_processor_kwargs", "start vLLM with --trust-request-mm-kwargs"),
    (r"chat_template_kwargs", "this server does not take chat_template_kwargs; try a vllm- preset"),
    (
        r"max_completion_tokens",
        'write `length_field = "max_completion_tokens"` into the file of options, or the other way '
        "round",
    ),
    (r"max_tokens.*(unsupported|not supported)", 'write `length_field = "max_completion_tokens"`'),
    (r"logprobs", "write `logprobs = false` into the file of options"),
    (
        r"temperature",
        'the model takes no temperature: write `remove = ["temperature"]` into the file of options',
    ),
    (
        r"context length|context window|too many tokens|too long|maximum.*tokens|"
        r"max_model_len|exceeds? .*(length|limit)",
        "the prompt with its image is too long for the model: shorten the question, take a coarser "
        "option, or start the server with a longer context",
    ),
    (
        r"not (a )?(multi-?modal|vision)|no (image|vision)|(image|vision|multi-?modal).*"
        r"(not support|unsupported|not accept|not allowed|invalid content)|does ?n.t support image|"
        r"not support.*image|at most 0 image|image_url.*(invalid|not|only)|only.*text",
        "the model behind the endpoint takes no images: name one that does",
    ),
)
"""Patterns in a server's message, tried in order -> what to do."""

KNOBS: tuple[tuple[str, str], ...] = (
    (
        "body.mm_processor_kwargs",
        "vLLM reads it when it was started with --trust-request-mm-kwargs, and drops names that "
        "the model's processor does not know; `transformers serve` takes chat_template_kwargs",
    ),
    (
        "body.chat_template_kwargs",
        "`transformers serve` hands it to the processor, which drops names that it does not know; "
        "vLLM takes mm_processor_kwargs",
    ),
    ("image.detail", "vLLM and `transformers serve` ignore it; OpenAI's API reads it"),
    ("image.max_dynamic_patch", "SGLang reads it, for InternVL only"),
    ("longest_side", "the server or the model's processor brings all images to one size"),
    ("max_pixels", "the server or the model's processor brings all images to one size"),
    ("encoding", "the two encodings give the same pixels, or nearly so"),
)
"""What differs between two options -> why a server may make no difference."""


def remedy(message: str, *, status: int) -> str:
    """What to do about a refusal, by the server's message.

    >>> remedy("Please set --trust-request-mm-kwargs", status=400)
    'start vLLM with --trust-request-mm-kwargs'
    """
    for pattern, advice in REMEDIES:
        if re.search(pattern, message, re.IGNORECASE | re.DOTALL):
            return advice
    if status == 413:
        return "the image is too large for the server: take a smaller size or another encoding"
    return "change what the message names, in the file of options or in the example"


def likely_reason(knobs: Iterable[str]) -> str:
    """Why a server may have ignored what differs between two options."""
    for knob in knobs:
        for name, reason in KNOBS:
            if knob == name or knob.startswith(f"{name}."):
                return reason
    return "the server does not know it, or the model makes no use of it"
