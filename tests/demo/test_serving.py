"""What `m3router demo` refuses before anything is served."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from m3router.data.errors import DataError
from m3router.router.demo import serving
from tests.cli.conftest import invoke_app


def test_a_port_that_is_taken_is_told(service, world):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DataError, match=f"Nothing can be served at 127.0.0.1, port {port}: "):
            serving.listen("127.0.0.1", port)
    with pytest.raises(DataError, match="Choose another --port or --host"):
        serving.listen("no.such.host.invalid", 0)


def test_who_comes_before_the_page_is_served_waits_and_is_not_refused():
    with serving.listen("127.0.0.1", 0) as listening:
        socket.create_connection(listening.getsockname()).close()
        with pytest.raises(DataError, match="Nothing can be served"):
            serving.listen(*listening.getsockname())


def test_without_gradio_the_extra_is_named(world, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == "gradio" else real(name))
    told = invoke_app("demo", world.run)
    assert told.exit_code == 2
    assert "pip install 'm3router[demo]'" in told.stderr.replace("\n", " ")


def test_wrong_options_are_told(world, tmp_path):
    for arguments, message in (
        ([tmp_path / "none"], "none"),
        ([world.run, "--examples", tmp_path / "nowhere"], "--examples must be a folder"),
        ([world.run, "--policy", "unknown"], "Unknown policy 'unknown'"),
    ):
        told = invoke_app("demo", *arguments)
        assert told.exit_code == 2
        assert message in told.stderr.replace("\n", " ")
        assert "Traceback" not in told.output
    assert invoke_app("demo", world.run, "--port", 70_000).exit_code == 2
