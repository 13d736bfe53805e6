"""`m3router label --endpoint`: stops where it is told to, goes on, and writes no key."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from m3router.router.cli.main import app
from tests.m3core.endpoint.scripted import Said, ScriptedServer, honest

KEY = "sk-very-secret"
OPTIONS = """
model = "m"
[[option]]
name = "small"
longest_side = 64
[[option]]
name = "large"
longest_side = 640
"""


@pytest.fixture
def given(tmp_path):
    server = ScriptedServer()
    (tmp_path / "options.toml").write_text(OPTIONS)
    lines = []
    for n in range(4):
        Image.new("RGB", (640, 480), (n, 0, 0)).save(tmp_path / f"{n}.png")
        lines.append({"id": f"e{n}", "image": f"{n}.png", "question": "size?", "answers": ["x"]})
    (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def run(*more):
        arguments = ["label", "--examples", "my.jsonl", "--images", ".", "--out", "run"]
        arguments = [
            str(tmp_path / one) if one in ("my.jsonl", ".", "run") else one for one in arguments
        ]
        arguments += ["--endpoint", server.url, "--options", str(tmp_path / "options.toml"), *more]
        return CliRunner().invoke(app, arguments, env={"MY_KEY": KEY})

    yield server, run, tmp_path / "run"
    server.close()


def test_a_run_stops_goes_on_and_writes_no_key(given):
    server, run, folder = given
    # 2 options are tried, 1 question of the trial and 1 of the examples are asked without image.
    stopped = run("--key-env", "MY_KEY", "--in-flight", "1", "--max-requests", "8")
    assert stopped.exit_code == 2 and "--max-requests" in stopped.output, stopped.output
    assert len(server.heard) == 8
    done = run("--key-env", "MY_KEY", "--in-flight", "2")
    assert done.exit_code == 0, done.output
    pairs = [(one.image.getpixel((0, 0)), one.image.width) for one in server.heard if one.image]
    own = [pair for pair in pairs if pair[0][1:] == (0, 0)]
    assert len(own) == len(set(own)) == 8, "what was answered is not asked again"
    log = pd.read_parquet(next(folder.rglob("*.parquet")))
    assert set(log["image_tokens"]) == {2, 300} and set(log["image_tokens_from"]) == {"derived"}
    for path in folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in stopped.output + done.output


def test_a_wrong_key_is_one_message_and_no_log(given):
    server, run, _ = given
    server.script = lambda heard: Said({"error": {"message": f"no {KEY}"}}, 401)
    told = run("--key-env", "MY_KEY")
    assert told.exit_code == 2 and "refuses the key" in told.output and KEY not in told.output
    assert len(server.heard) == 1
    server.script = honest
    neither = run("--key-env", "MY_KEY", "--key-file", "x")
    assert neither.exit_code == 2 and "exclude each other" in neither.output


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--bits", "4"], "--bits"),
        (["--option", "a"], "--option"),
        (["--scoring", "references"], "--scoring"),
        (["--unlisted-grids", "--device", "cpu"], "--device"),
        (["--judge", "http://localhost:1", "--judge-model", "j", "--until-correct"], "--judge"),
        (["--judge-model", "j"], "--judge"),
    ],
)
def test_options_that_an_endpoint_would_ignore_are_refused(given, more, named):
    server, run, folder = given
    told = run(*more)
    assert told.exit_code == 2 and named in told.output, told.output
    assert not server.heard and not folder.exists()


def test_options_of_an_endpoint_need_one(given):
    _, _, folder = given
    place = str(folder.parent)
    base = ["label", "--examples", f"{place}/my.jsonl", "--images", place, "--out", str(folder)]
    for more in (["--options", "x.toml"], ["--preset", "resize"], ["--max-requests", "5"]):
        told = CliRunner().invoke(app, [*base, *more])
        assert told.exit_code == 2 and more[0] in told.output, told.output


def test_the_meter_is_shown(given):
    _, run, _ = given
    told = run("--price", "input=2", "--price", "output=8")
    assert told.exit_code == 0, told.output
    # 2 tried, 8 answers, 2 questions without an image; 2 tokens of each answer
    assert "12 requests, 1630 + 24 tokens, price 0.003452" in " ".join(told.output.split())
