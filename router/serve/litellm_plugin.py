"""Routes LiteLLM's requests as a gateway of m3router says; a file to put beside LiteLLM's config.

It needs LiteLLM and what LiteLLM needs, nothing of m3router: copy it as ``m3router_plugin.py`` and
name it in the config::

    litellm_settings:
      callbacks: m3router_plugin.instance

docs/litellm.md says how models are named. Environment variables:

- ``M3ROUTER_GATEWAY``: address of the gateway, such as ``http://127.0.0.1:8000``
- ``M3ROUTER_GATEWAY_KEY``: its key, where it asks for one
- ``M3ROUTER_ROUTED``: names of models that are routed, with commas; ``m3router/auto`` by itself
- ``M3ROUTER_MODELS``: JSON object from an option to LiteLLM's ``model_name``; without it the
  option's own model, where LiteLLM has one of that name
- ``M3ROUTER_TIMEOUT``: seconds for a decision; 5 by itself

Whatever fails, the request goes on as it came.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import httpx

try:
    from litellm.integrations.custom_logger import CustomLogger
except ModuleNotFoundError:  # where it is only read

    class CustomLogger:  # type: ignore[no-redef]
        """Stands in for LiteLLM's."""


PAUSE = 5.0
"""Seconds for which a gateway that did not answer is not asked again."""
AUTO = "m3router/auto"

_log = logging.getLogger("m3router.litellm")


class M3Router(CustomLogger):
    """Asks a gateway which option suffices, before LiteLLM chooses a deployment."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        super().__init__()
        known = os.environ if environment is None else environment
        self._url = known.get("M3ROUTER_GATEWAY", "").rstrip("/").removesuffix("/v1")
        self._key = known.get("M3ROUTER_GATEWAY_KEY", "")
        routed = known.get("M3ROUTER_ROUTED", AUTO).split(",")
        self._routed = {name.strip() for name in routed if name.strip()}
        self._models: dict[str, str] = json.loads(known.get("M3ROUTER_MODELS") or "{}")
        self._timeout = float(known.get("M3ROUTER_TIMEOUT") or 5.0)
        self._client: httpx.AsyncClient | None = None
        self._down_until = 0.0

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Give a request the model, the fields and the image of the option that suffices."""
        if data.get("model") not in self._routed or not isinstance(data.get("messages"), list):
            return data
        wish = data.pop("m3router", None)  # no field of the models'
        if not self._url:
            _log.warning("not routed: M3ROUTER_GATEWAY is not set")
        if not self._url or time.monotonic() < self._down_until:
            return data
        try:
            body = {"messages": data["messages"], "m3router": wish}
            answer = await self._ask(body, wishes_of(data))
            return self._patched(data, answer)
        except httpx.HTTPStatusError as error:
            _log.warning("not routed: the gateway said %d", error.response.status_code)
        except httpx.HTTPError as error:
            self._down_until = time.monotonic() + PAUSE
            _log.warning("not routed: the gateway did not answer (%s)", type(error).__name__)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("not routed: no answer of a gateway (%s)", type(error).__name__)
        return data

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], *_: Any, **__: Any
    ) -> dict[str, str]:
        """Tell the client the option."""
        told = (data.get("metadata") or {}).get("m3router") or {}
        return {"x-m3router-option": told["option"]} if "option" in told else {}

    async def _ask(self, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        if self._client is None:
            own = {"authorization": f"Bearer {self._key}"} if self._key else {}
            self._client = httpx.AsyncClient(headers=own, timeout=self._timeout, trust_env=False)
        url = f"{self._url}/v1/route?image=true"
        answer = await self._client.post(url, json=body, headers=headers)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _patched(self, data: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The request as the option is asked; `data` stays as it is where the answer is wrong."""
        option, ask = answer["option"], answer["ask"]
        patched = merged(data, ask.get("body") or {})
        patched["messages"] = with_image(
            data["messages"], url=answer.get("image"), patch=ask.get("image") or {}
        )
        wanted = self._models.get(option) or ask.get("model")
        if wanted in self._models.values() or wanted in model_names():
            patched["model"] = wanted
        told = {name: answer.get(name) for name in ("option", "reason", "saved")}
        patched["metadata"] = {**(data.get("metadata") or {}), "m3router": told}
        data.clear()
        data.update(patched)  # LiteLLM keeps other references to it
        return data


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch applied (RFC 7396); what it does not touch is shared, not copied.

    >>> merged({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}})
    {'b': {'c': 2, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def with_image(messages: list[Any], *, url: str | None, patch: dict[str, Any]) -> list[Any]:
    """Messages whose last image has another URL and further fields."""
    if url is None and not patch:
        return messages
    for place in reversed(range(len(messages))):
        content = messages[place].get("content")
        for number in reversed(range(len(content) if isinstance(content, list) else 0)):
            part = content[number]
            if not isinstance(part, dict) or part.get("type") != "image_url":
                continue
            image = part["image_url"]
            image = {"url": image} if isinstance(image, str) else image
            image = merged(image, patch) | ({} if url is None else {"url": url})
            changed = [*content]
            changed[number] = {**part, "image_url": image}
            found = [*messages]
            found[place] = {**messages[place], "content": changed}
            return found
    return messages


def wishes_of(data: dict[str, Any]) -> dict[str, str]:
    """Headers of the client's request that say how it wants to be routed."""
    headers = (data.get("proxy_server_request") or {}).get("headers") or {}
    return {name: value for name, value in headers.items() if name.startswith("x-m3router-")}


def model_names() -> list[str]:
    """What LiteLLM's proxy calls its models; none outside of it."""
    proxy = sys.modules.get("litellm.proxy.proxy_server")
    router = getattr(proxy, "llm_router", None)
    return list(router.get_model_names()) if router is not None else []


instance = M3Router()
