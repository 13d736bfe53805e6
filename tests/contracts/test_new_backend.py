"""A new backend is one file and one line of a table."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from m3router.data.errors import DataError
from m3router.router.serve.backends import factory
from m3router.router.serve.backends.engine import LocalEngine
from m3router.router.serve.backends.vllm.backend import VllmBackend
from m3router.router.serve.backends.vllm.client import VllmAddress
from m3router.router.serve.settings import ServeSettings

TOY = """
from m3router.router.serve.backends.backend import UnavailableError


class Toy:
    def __init__(self, settings, word):
        self.settings, self.word = settings, word

    async def ask(self, query):
        yield f"{self.word} {query.question}"


def from_settings(settings, environment):
    return Toy(settings.engine, environment["TOY_WORD"])
"""


@dataclass(frozen=True, kw_only=True)
class ToySettings(ServeSettings):
    toy: bool = False


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_backend.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(factory.BACKENDS, "toy", "toy_backend:from_settings")
    yield
    sys.modules.pop("toy_backend", None)


def test_a_toy_is_chosen_by_the_setting_of_its_name(toy):
    made = factory.backend_of(ToySettings(run="run", toy=True, batch=3), {"TOY_WORD": "well,"})
    assert type(made).__name__ == "Toy" and made.word == "well," and made.settings.batch == 3
    assert isinstance(factory.backend_of(ToySettings(run="run"), {}), LocalEngine)


def test_two_ways_to_answer_are_refused(toy):
    with pytest.raises(DataError, match="--ray and --vllm are different ways to answer"):
        factory.backend_of(ServeSettings(run="run", ray=True, vllm="http://gpu"), {})


def test_the_real_ones_read_their_settings():
    made = factory.backend_of(
        ServeSettings(run="run", vllm="http://gpu", vllm_model="mine"), {"M3ROUTER_VLLM_KEY": "k"}
    )
    assert isinstance(made, VllmBackend)
    assert made._address == VllmAddress(url="http://gpu", model="mine", key="k")
    assert isinstance(factory.backend_of(ServeSettings(run="run"), {}), LocalEngine)


def test_replicas_are_as_many_as_was_said():
    pytest.importorskip("ray")
    made = factory.backend_of(ServeSettings(run="run", ray=True, replicas=3), {})
    assert made._ray_settings.replicas == 3 and made._ray_settings.most_replicas is None
    made = factory.backend_of(ServeSettings(run="run", ray=True, autoscale="1:4"), {})
    assert (made._ray_settings.replicas, made._ray_settings.most_replicas) == (1, 4)


@pytest.mark.parametrize("given", [{"replicas": 2}, {"autoscale": "1:2"}])
def test_settings_of_replicas_go_with_ray(given):
    with pytest.raises(DataError, match="go with --ray"):
        ServeSettings(run="run", **given)
