"""What passes through which client and the gateway: as it does without the gateway between.

Each client asks the stand-in server itself and then the gateway before it, and nothing but address
and model differs. It must be told the same, and the stand-in must be sent the same but for what an
option says.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from m3router.m3core.endpoint.stand_in import StandIn, running
from tests.clients.driving import PROXY, SCRIPTS, Asked, ask, litellm_proxy
from tests.clients.tables import GATEWAY, table
from tests.serve.gateway.endpoint_run import (
    LARGE,
    OPTIONS,
    asked_image,
    data_url,
    make_endpoint_run,
)
from tests.serve.served import end, start

PATCHES = {one["name"]: one["body"]["mm_processor_kwargs"] for one in OPTIONS["option"]}


def test_the_table_has_every_client():
    told = table(GATEWAY)
    assert list(told) == list(SCRIPTS)
    assert {cell for column in told.values() for cell in column.values()} == {"yes"}


@dataclass(frozen=True)
class Between:
    """A gateway, and what it stands before.

    Attributes:
        upstream: The stand-in.
        direct: What is asked of the stand-in itself.
        routed: The same, of the gateway.
    """

    upstream: StandIn
    direct: Asked
    routed: Asked

    def metrics(self) -> str:
        """The gateway's own numbers."""
        return httpx.get(self.routed.base_url.replace("/v1", "/metrics"), timeout=20).text

    def sent(self) -> list[dict[str, Any]]:
        """What the stand-in was sent since the last time."""
        hits = [one for one in self.upstream.hits if "body" in one]
        self.upstream.hits.clear()
        return hits


@pytest.fixture(scope="module")
def between(tmp_path_factory) -> Iterator[Between]:
    run = make_endpoint_run(tmp_path_factory.getbasetemp() / "endpoint_run")
    data, word = asked_image(900, cells=8)
    with running(StandIn()) as upstream:
        server = start(tmp_path_factory.mktemp("gateway"), run.root, "--upstream", upstream.url)
        direct = Asked(
            base_url=f"{upstream.url}/v1",
            model="stand-in",
            image=data_url(data),
            question=LARGE,
            stop=word[2:],
        )
        try:
            routed = replace(direct, base_url=f"{server.url}/v1", model="m3router/auto")
            yield Between(upstream, direct, routed)
        finally:
            end(server)


@pytest.mark.clients
@pytest.mark.parametrize("client", list(SCRIPTS))
def test_what_passes_through_a_client_and_the_gateway(client, between, cache, tmp_path):
    cases = list(table(GATEWAY)[client])
    direct, routed = between.direct, between.routed
    with contextlib.ExitStack() as stack:
        if client == PROXY:
            models = {"direct": direct, "routed": routed}
            url = stack.enter_context(litellm_proxy(models, tmp_path, cache=cache))
            direct = replace(direct, base_url=url, model="direct")
            routed = replace(routed, base_url=url, model="routed")
        between.sent()
        without = ask(client, direct, cases, cache=cache)
        sent_without = between.sent()
        behind = ask(client, routed, cases, cache=cache)
        sent = between.sent()
    assert set(cases) == set(without.cases)
    assert "error" not in str(without.found), without.found
    if "models" in cases:
        listed = {"routed"} if client == PROXY else {"m3router/auto", "m3router/coarse", "stand-in"}
        assert listed <= set(behind.found.pop("models")["text"].split())
        del without.found["models"]
    assert {case: said(one) for case, one in behind.found.items()} == {
        case: said(one) for case, one in without.found.items()
    }
    assert sorted(map(asked_for, sent)) == sorted(map(asked_for, sent_without))
    asked_at = [one["body"]["mm_processor_kwargs"] for one in sent]
    assert all(one in PATCHES.values() for one in asked_at)
    late = 'reason="router-failed"' in between.metrics()  # a busy machine: asked at the finest
    assert PATCHES["coarse"] in asked_at or late
    unjudged = [one["body"] for one in sent if one["image_tokens"] not in (64, 256)]
    assert all(one["mm_processor_kwargs"] == PATCHES["fine"] for one in unjudged)


def said(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without its tokens, which are fewer where it was routed."""
    return {name: value for name, value in answer.items() if name != "tokens"}


def asked_for(hit: dict[str, Any]) -> str:
    """What the stand-in was sent, without what an option says and how it looked at images."""
    body = {
        key: value
        for key, value in hit["body"].items()
        if key not in ("model", "mm_processor_kwargs")
    }
    words = hit["prompt_tokens"] - hit["image_tokens"]
    return json.dumps([hit["path"], hit["question"], words, body], sort_keys=True)
