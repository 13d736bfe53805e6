"""Whoever means harm to the gateway harms nobody else."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.serve.attacks import ATTACKS
from tests.serve.gateway.endpoint_run import EndpointRun
from tests.serve.others import Attacked, await_ready, cost, free_port, process, served, unharmed

REFUSED = (
    "chunks_without_a_key",
    "long_headers",
    "many_headers",
    "a_long_line",
    "trailers",
    "long_numbers",
    "two_lengths",
    "without_a_key",
)
"""What is refused at the door."""
READ = {"unknown_fields": 30, "brackets": 30, "empty_lists": 30, "fresh_budgets": 4, "bombs": 8}
"""What comes in: how many times as much it may cost as an ordinary question."""


@pytest.fixture(scope="module")
def attacked(
    endpoint_run: EndpointRun, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    port, folder = free_port(), tmp_path_factory.mktemp("gateway")
    with process("tests.serve.gateway.careless_upstream", str(port)):
        await_ready(port, "/v1/models")
        command = (str(endpoint_run.root), "--upstream", f"http://127.0.0.1:{port}/v1")
        with served(folder, *command, model="m3router/auto") as found:
            yield found


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's clock")
def test_an_attack_costs_the_front_little(attacked: Attacked) -> None:
    """Processor time, which no other load of the machine changes."""
    question = cost("questions", attacked)
    most = {**dict.fromkeys(REFUSED, 2), **READ}
    found = {name: cost(name, attacked) / question for name in most}
    assert {name: times for name, times in found.items() if times > most[name]} == {}


@pytest.mark.slow  # some ten seconds each, on two idle cores
@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_not_harmed(attacked: Attacked, name: str) -> None:
    unharmed(name, attacked)
