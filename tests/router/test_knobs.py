"""The knobs of a policy are told once: Python, the command line and the server say the same."""

from __future__ import annotations

import pytest
import typer

from m3router.data.errors import DataError
from m3router.router.cli.main import app
from m3router.router.policies.guarantee import Target
from m3router.router.policies.knobs import Knobs, told
from m3router.router.serve.http.schema import ChatRequest

NAMES = list(Knobs.__annotations__)


@pytest.mark.parametrize("name", NAMES)
def test_every_knob_is_told(name):
    assert len(told(name)) > 20
    assert told(name)[:40] in " ".join((Knobs.__doc__ or "").split())


def test_options_of_the_command_line_take_their_words_from_there():
    command = typer.main.get_command(app).commands["calibrate"].load()
    options = {one.name: one.help for one in command.params}
    assert {name: options[name] for name in NAMES} == {name: told(name) for name in NAMES}


@pytest.mark.parametrize("name", ["budget", "max_regret"])
def test_fields_of_a_request_take_their_words_from_there(name):
    assert ChatRequest.model_fields[name].description == told(name)


def test_a_target_is_what_knobs_ask_to_be_guaranteed():
    assert Target.of({"budget": 64.0, "confidence": 0.95, "bound": None}) is None
    assert Target.of({"max_loss": 0.01}) == Target(max_loss=0.01)
    asked = {"max_regret": 0.02, "confidence": 0.9, "bound": "wsr", "most": 2, "cap": 9.0}
    assert Target.of({**asked, "reference": "36"}) == Target(**asked, reference="36")
    with pytest.raises(DataError, match="bound is for a guarantee"):
        Target.of({"budget": 64.0, "bound": "wsr"})
    with pytest.raises(DataError, match="either a max_regret or a max_loss"):
        Target.of({"max_regret": 0.02, "max_loss": 0.02})
