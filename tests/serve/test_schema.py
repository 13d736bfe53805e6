"""The server against its own OpenAPI schema, by schemathesis."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.serve.backends.engine import LocalEngine
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.app import Front, create_app
from m3router.router.serve.settings import EngineSettings, FrontSettings
from tests.serve.image_server import read

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgAB"
    "SK+kcQAAAABJRU5ErkJggg=="
)
OPERATIONS = (
    ("/v1/chat/completions", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/health", "GET"),
    ("/ready", "GET"),
    ("/metrics", "GET"),
)

EXAMPLES = {GenerationMode.POSITIVE: 60, GenerationMode.NEGATIVE: 25}
"""Of a body; few that are right are also answered."""


@pytest.fixture(scope="module")
def app(small_run):
    pipeline = AutoScalePipeline.load(small_run.root, device="cpu")
    front = Front(
        backend=LocalEngine(EngineSettings(run=str(small_run.root)), pipeline=pipeline),
        image=partial(asyncio.to_thread, read),
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=FrontSettings(),
    )
    return create_app(front)


@pytest.fixture(scope="module")
def schema(app):
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_these_are_all_operations(schema):
    found = [one.ok() for one in schema.get_all_operations()]
    assert {(one.path, one.method.upper()) for one in found} == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_keeps_to_the_schema(schema, path, method, mode):
    """NOTE: valid JSON may still ask for what no image or scale can give: 400 is told then."""
    operation = schema[path][method]
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES[mode] if method == "POST" else 5,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        with_image(case)
        if mode is GenerationMode.POSITIVE:
            askable(case)
        answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
        statuses.add(answer.status_code)

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE and method == "GET"  # takes nothing
    if method == "POST":
        assert statuses >= ({200, 400} if mode is GenerationMode.POSITIVE else {400})


def with_image(case):
    """A random text is hardly ever an image: every other address is replaced by one that is."""
    body = case.body if isinstance(case.body, dict) else {}
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            url = isinstance(part, dict) and part.get("image_url")
            if isinstance(url, dict) and isinstance(url.get("url"), str) and len(url["url"]) % 2:
                url["url"] = PIXEL


def askable(case):
    """A text alone is no question here: some get the image that they are about."""
    for message in case.body.get("messages") or [] if isinstance(case.body, dict) else []:
        if isinstance(message["content"], str):
            message["content"] = [
                {"type": "text", "text": message["content"][:1000] or "Is it?"},
                {"type": "image_url", "image_url": {"url": PIXEL}},
            ]
