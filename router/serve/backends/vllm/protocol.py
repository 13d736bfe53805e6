"""What is sent to a vLLM server for one question, and what it answers.

Read in vllm-project/vllm; files are named as they stood there in version 0.13 and later:

- ``docs/features/multimodal_inputs.md``, "Image Embedding Inputs": a content part
  ``{"type": "image_embeds", "image_embeds": TEXT}``, where TEXT is ``torch.save`` of the tensor in
  base64 (``vllm/utils/serial_utils.py``, ``tensor2base64``). The server reads it with
  ``torch.load(weights_only=True)`` after strict base64 (``vllm/multimodal/media/image.py``,
  ``ImageEmbeddingMediaIO``). It must have been started with ``--enable-mm-embeds``.
- Shape (1, tokens, D): the documented (items, tokens, width of the language model).
  ``vllm/multimodal/parse.py``, ``is_embeddings``, takes a lone tensor for embeddings only where it
  has three dimensions.
- The placeholder is repeated as often as the tensor has tokens
  (``vllm/model_executor/models/llava.py``, ``_get_prompt_updates``: ``get_feature_size``), so any
  scale fits; ``usage.prompt_tokens`` counts them.
- Any number format: the server casts to its own where it puts visual tokens among the others
  (``vllm/model_executor/models/utils.py``, ``_merge_multimodal_embeddings``).
- A part may bring a ``uuid``. None is sent: the server believes it and keeps images under it, so
  that one uuid for two scales of an image would give answers from the wrong one. Without it, the
  tensor itself is hashed.
- Log-probabilities come only where ``top_logprobs`` is given beside ``logprobs``, and for the
  end-of-sequence token too (``vllm/entrypoints/openai/chat_completion/serving.py``;
  ``vllm/v1/engine/detokenizer.py`` drops that token from the text alone).
- ``generation_config.json`` of the model gives sampling defaults, so that everything that greedy
  decoding depends on is sent.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from m3router.data.errors import DataError, M3RouterError
from m3router.m3core.matryoshka.sampling import Sampling

GREEDY: dict[str, Any] = {
    "n": 1,
    "temperature": 0,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logprobs": True,
    "top_logprobs": 1,
    "add_special_tokens": False,
    "skip_special_tokens": True,
}
"""What is the same for every question."""


class BrokenError(M3RouterError):
    """A server's answer that breaks off or is none; the question may be asked again."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """More of an answer, or all of it.

    Attributes:
        text: More text.
        logprobs: Of further tokens, natural logarithms.
        reason: "stop" or "length" where the answer has ended.
        prompt_tokens: Tokens that the server read, visual ones included; with the last piece.
        answer_tokens: Tokens that it answered with; with the last piece.
    """

    text: str = ""
    logprobs: tuple[float, ...] = ()
    reason: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


def packed(tokens: torch.Tensor) -> str:
    """Visual tokens (tokens, D) as they are sent: (1, tokens, D), saved, in base64.

    Raises:
        DataError: If a number is not finite; vLLM would answer nonsense without a word.
    """
    if not torch.isfinite(tokens).all():
        raise DataError("the image gives visual tokens that are not finite; use another image")
    # A copy: of a part of a tensor, `torch.save` would write the whole.
    own = tokens.detach().to("cpu", copy=True).contiguous()[None]
    buffer = io.BytesIO()
    torch.save(own, buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def request_body(
    *,
    model: str,
    messages: list[dict[str, Any]],
    max_tokens: int,
    stream: bool,
    stop: Sequence[str] = (),
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """The body of ``POST /v1/chat/completions``; the server finds stop strings and draws."""
    body = {**GREEDY, "model": model, "messages": messages, "max_tokens": max_tokens}
    if stop:
        body["stop"] = list(stop)
    if sampling is not None:
        body |= asdict(sampling)
    if stream:
        return {**body, "stream": True, "stream_options": {"include_usage": True}}
    return {**body, "stream": False}


def heard_whole(body: bytes) -> Heard:
    """What a whole response says.

    Raises:
        BrokenError: If it is not a chat completion.
    """
    return _heard(body, "message")


def heard_event(line: str) -> Heard | None:
    """What one line of a stream says; None for the mark of its end and for lines between events.

    Raises:
        BrokenError: If it is not an event of a chat completion, or tells of an error.
    """
    if not line or line.startswith(":"):
        return None
    field, _, data = line.partition(":")
    data = data.removeprefix(" ")
    if field != "data":
        raise BrokenError(f"the stream has a line that is not an event: {line[:80]!r}")
    return None if data == "[DONE]" else _heard(data.encode(), "delta")


def _heard(body: bytes, message: str) -> Heard:
    try:
        payload = json.loads(body)
        if "error" in payload:
            raise BrokenError(f"the server broke off: {str(payload['error'])[:200]}")
        usage = payload.get("usage") or {}
        choices = payload["choices"]
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not choices:
            return Heard(prompt_tokens=read, answer_tokens=written)
        choice = choices[0]
        content = (choice.get("logprobs") or {}).get("content") or []
        return Heard(
            text=choice[message].get("content") or "",
            logprobs=tuple(float(one["logprob"]) for one in content),
            reason=choice.get("finish_reason"),
            prompt_tokens=read,
            answer_tokens=written,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BrokenError(f"the server's answer is not a chat completion: {body[:80]!r}") from error
