from __future__ import annotations

import pytest

from m3router.m3core.endpoint.stand_in import StandIn, running
from tests.serve.gateway.endpoint_run import EndpointRun, make_endpoint_run
from tests.serve.gateway.raw_upstream import raw_upstream


@pytest.fixture(scope="session")
def endpoint_run(tmp_path_factory) -> EndpointRun:
    return make_endpoint_run(tmp_path_factory.getbasetemp() / "endpoint_run")


@pytest.fixture
def stand_in():
    with running(StandIn(slow_seconds=3.0)) as server:
        yield server


@pytest.fixture
def upstream():
    with raw_upstream() as server:
        yield server
