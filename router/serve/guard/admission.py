"""Who is let in: by key and rate, before anything of a body is read."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates, neighbourhood

OPEN = frozenset({"/health", "/ready", "/openapi.json"})
"""Paths that need no key: they tell nothing of what is asked."""


OPEN_A_MINUTE, OPEN_BURST = 1200, 20
"""Requests for these on one connection; more come later. No 429: it is how a server's health is
looked at."""


def admission(keys: KeyRing, rates: Rates) -> Callable[[MutableMapping[str, Any]], float]:
    """What lets requests in by their key and their rate, before their bodies are read.

    Returns:
        What :class:`~m3router.router.serve.guard.request_guard.RequestGuard` takes: from a
        request's scope to the seconds that it waits. It raises ApiError: 401 without a valid key,
        429 where requests come too fast.
    """
    looks = Rates(OPEN_A_MINUTE, OPEN_BURST)

    def admit(scope: MutableMapping[str, Any]) -> float:
        client = scope.get("client") or ("unknown", 0)
        if scope["path"] in OPEN:
            return looks.take(f"{client[0]}:{client[1]}")
        _check(keys, rates, scope, client)
        return 0.0

    return admit


def _check(
    keys: KeyRing, rates: Rates, scope: MutableMapping[str, Any], client: tuple[str, int]
) -> None:
    who, own_rate = neighbourhood(str(client[0])), None
    if keys.needed:
        key = keys.authenticate(_token(scope))
        if key is None:
            raise ApiError(
                401,
                "A valid API key is needed: Authorization: Bearer <key>.",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scope.setdefault("state", {})["key"] = key.name
        who, own_rate = f"key {key.name}", key.requests_per_minute
    if scope["path"] == "/metrics":
        return
    wait = rates.take(who, own_rate)
    if wait > 0:
        raise ApiError(
            429,
            f"Too many requests; the next one is let in after {wait:.1f} s.",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(max(1, round(wait + 0.5)))},
        )


def _token(scope: MutableMapping[str, Any]) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""
