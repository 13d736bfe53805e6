"""How each imitated server reads a request, what it refuses, and what it tells.

vLLM 0.32 and `transformers serve` 5.23 were run and asked; SGLang, LMDeploy and OpenAI are imitated
by their sources and documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from m3router.data.errors import DataError, M3RouterError
from m3router.data.registry import unknown_name

Json = dict[str, Any]


class RefusedError(M3RouterError):
    """A request that the imitated server refuses.

    Attributes:
        status: HTTP status.
        message: What it says.
        parameter: The field that is meant.
    """

    def __init__(self, status: int, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.parameter = status, message, parameter


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The manners of one server.

    Attributes:
        family: Whose model it serves, where nothing else is said (:data:`.seeing.FAMILIES`).
        arguments: Body and image part -> arguments of the image processor; refuses what is unknown.
        error: Status, message and parameter -> body of an error, JSON or plain text.
        lists_models: Whether ``GET /v1/models`` names what is served.
        unknown_model: Status where another model is asked for.
        broken_image: Status where the image processor fails.
        answers_as: What an answer calls the model, ``{}`` for its name.
        details: Image tokens and cached tokens -> ``usage.prompt_tokens_details``, or None.
        details_by_flag: Whether those are told only where the server was started to tell them.
        trust_by_flag: Whether arguments of the image processor need a start flag.
        logprobs: Whether log-probabilities are told where they are asked for.
        done: Whether a stream ends with ``[DONE]``.
        usage_chunk: Whether usage comes in a chunk of its own, and only where it was asked for.
        end_counts: Whether the end of an answer counts as a token.
        fingerprint: ``system_fingerprint``; None where there is none.
        version: What ``GET /version`` says; None where there is no such route.
        tokenize: Whether ``POST /tokenize`` counts a prompt.
        forms: Whether ``n``, ``stop``, JSON schemas and tools that must be called are heeded.
        responses: Whether there is ``/v1/responses``.
    """

    family: str
    arguments: Callable[[Mapping[str, Any], Mapping[str, Any]], Json]
    error: Callable[[int, str, str | None], Json | str]
    lists_models: bool = True
    unknown_model: int = 404
    broken_image: int = 400
    answers_as: str = "{}"
    details: Callable[[int, int], Json] | None = None
    details_by_flag: bool = False
    trust_by_flag: bool = False
    logprobs: bool = True
    done: bool = True
    usage_chunk: bool = True
    end_counts: bool = True
    fingerprint: str | None = None
    version: str | None = None
    tokenize: bool = False
    forms: bool = True
    responses: bool = True


def dialect_named(name: str) -> Dialect:
    """The manners of the server of this name.

    Raises:
        DataError: There is none; names the nearest.
    """
    if name not in DIALECTS:
        raise DataError(unknown_name("server of the stand-in", name, DIALECTS))
    return DIALECTS[name]


def _object(body: Mapping[str, Any], field: str) -> Json:
    found = body.get(field) or {}
    if not isinstance(found, dict):
        raise RefusedError(400, f"{field} must be an object, got {found!r}", parameter=field)
    return found


_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    413: "BadRequestError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


def _vllm_error(status: int, message: str, parameter: str | None) -> Json:
    kind = _TYPES.get(status, "BadRequestError")
    return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}


def _detail_error(status: int, message: str, parameter: str | None) -> Json | str:
    return "Internal Server Error" if status == 500 else {"detail": message}


def _flat_error(status: int, message: str, parameter: str | None) -> Json:
    kind = _TYPES.get(status, "BadRequestError")
    return {"object": "error", "message": message, "type": kind, "param": parameter, "code": status}


def _openai_error(status: int, message: str, parameter: str | None) -> Json:
    kind = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "server_error"}
    code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
    return {
        "error": {
            "message": message,
            "type": kind.get(status, "invalid_request_error"),
            "param": parameter,
            "code": code.get(status),
        }
    }


def _processor_arguments(body: Mapping[str, Any], part: Mapping[str, Any]) -> Json:
    return _object(body, "mm_processor_kwargs")


_OPENAI_FIELDS = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model"),
        *("moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier"),
        *("stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools"),
        *("top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
    }
)
_TRANSFORMERS_FIELDS = _OPENAI_FIELDS | {"chat_template_kwargs", "generation_config"}


def _template_arguments(body: Mapping[str, Any], part: Mapping[str, Any]) -> Json:
    unexpected = set(body) - _TRANSFORMERS_FIELDS
    if unexpected:
        raise RefusedError(422, f"Unexpected fields in the request: {unexpected}")
    return _object(body, "chat_template_kwargs")


def _image_field(body: Mapping[str, Any], part: Mapping[str, Any]) -> Json:
    most = part.get("max_dynamic_patch")
    return {} if most is None else {"max_patches": most}


def _pixel_limits(body: Mapping[str, Any], part: Mapping[str, Any]) -> Json:
    limits = _object(_object(body, "mm_processor_kwargs"), "image")
    names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    size = {new: limits[old] for old, new in names.items() if old in limits}
    default = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    return {"size": default | size} if size else {}


def _detail(body: Mapping[str, Any], part: Mapping[str, Any]) -> Json:
    for field in sorted(set(body) - _OPENAI_FIELDS):
        raise RefusedError(400, f"Unknown parameter: '{field}'.", parameter=field)
    detail, known = part.get("detail", "auto"), ("low", "high", "auto", "original")
    if detail not in known:
        raise RefusedError(
            400,
            f"Invalid value: {detail!r}. Supported values are: {', '.join(known)}.",
            parameter="messages",
        )
    return {"detail": detail}


DIALECTS: dict[str, Dialect] = {
    "vllm": Dialect(
        family="qwen3-vl",
        arguments=_processor_arguments,
        error=_vllm_error,
        details=lambda image, cached: {
            "cached_tokens": cached,
            "created_cache_tokens": 0,
            "multimodal_tokens": {"image": image} if image else None,
        },
        details_by_flag=True,
        trust_by_flag=True,
        fingerprint="vllm-0.32.0-standin",
        version="0.32.0",
        tokenize=True,
    ),
    "transformers-serve": Dialect(
        family="gemma4",
        arguments=_template_arguments,
        error=_detail_error,
        lists_models=False,
        unknown_model=400,
        broken_image=500,
        answers_as="{}@main",
        logprobs=False,
        done=False,
        usage_chunk=False,
        forms=False,
    ),
    "sglang": Dialect(
        family="internvl3",
        arguments=_image_field,
        error=_flat_error,
        details=lambda image, cached: {"cached_tokens": cached, "image_tokens": image},
    ),
    "lmdeploy": Dialect(
        family="qwen2.5-vl", arguments=_pixel_limits, error=_flat_error, responses=False
    ),
    "openai": Dialect(
        family="gpt-4o",
        arguments=_detail,
        error=_openai_error,
        details=lambda image, cached: {"cached_tokens": cached, "audio_tokens": 0},
        end_counts=False,
        fingerprint="fp_stand_in",
    ),
}
"""Name -> manners."""
