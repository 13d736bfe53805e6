"""A function, and two models behind one address, from `label` to `ask` through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time

import pytest

from m3router.m3core.endpoint.stand_in import StandIn, coded_image, running

QUESTION = "What is written?"
WORDS = ("seven", "eight", "white")
READER = """
from m3router.m3core.endpoint.stand_in.coded_images import read_code
from m3router.m3core.functions import FunctionModel

SIDES = {"mini": 128, "grand": 512}

def read(images, questions, option):
    side = SIDES[option]
    return [read_code(image.resize((side, side)), 16) or "?" for image in images]

def model():
    costs = {option: side * side for option, side in SIDES.items()}
    return FunctionModel(read, options=list(SIDES), costs=costs, cost_unit="pixels")
"""
OPTIONS = """
[[option]]
name = "mini"
model = "mini"
longest_side = 256
price = {input = 0.1, output = 0.4}

[[option]]
name = "grand"
model = "grand"
price = {input = 2.0, output = 8.0}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve images, every other one with print that needs the dear option."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for n in range(12):
        word = WORDS[n % len(WORDS)]
        coded_image(word, cells=(8, 16)[n % 2]).save(f"{n}.png")
        line = {"id": f"q{n}", "image": f"{n}.png", "question": QUESTION, "answers": [word]}
        lines.append(json.dumps(line))
    (tmp_path / "my.jsonl").write_text("\n".join(lines))
    (tmp_path / "any_model_reader.py").write_text(READER)
    (tmp_path / "options.toml").write_text(OPTIONS)
    return tmp_path


@pytest.fixture
def server():
    with running(StandIn(models=("mini", "grand"), seconds=0.02)) as stand_in:
        yield stand_in


def label(*more):
    return ("label", "--examples", "my.jsonl", "--images", ".", "--out", "run", *more)


def by_endpoint(server, *more):
    return label("--endpoint", f"{server.url}/v1", "--options", "options.toml", *more)


def asked(server):
    """Model and size of image of every request about an example with its image."""
    hits = [hit for hit in list(server.hits) if hit.get("question") == QUESTION and hit.get("size")]
    return [hit["body"]["model"] for hit in hits]


@pytest.mark.parametrize("kind", ["function", "endpoint"])
def test_from_label_to_ask(invoke, folder, server, kind):
    def told(*arguments):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    if kind == "function":
        labelled = told(*label("--model", "any_model_reader:model"))
    else:
        labelled = told(*by_endpoint(server))
        assert sorted(asked(server)) == ["grand"] * 12 + ["mini"] * 12
    assert "mini: 0.500, grand: 1.000" in labelled
    told("train", "run", "--estimator", "knn", "--no-ablations")
    told("calibrate", "run", "--max-loss-observed", "100%")
    assert "fixed grand" in told("evaluate", "run", "--draws", "100")
    before = len(server.hits)
    routed = told("route", "run", "1.png", QUESTION)
    assert len(server.hits) == before, "route asks nobody"
    chosen = re.search(r"(mini|grand) ◀", routed)[1]
    answered = told("ask", "run", "1.png", QUESTION)
    assert re.search(rf"option +{chosen}", answered), answered
    assert ("eight" in answered) == (chosen == "grand")
    unit = "pixels" if kind == "function" else "price"
    assert unit in routed and unit in answered


def test_ctrl_c_loses_nothing_and_nothing_is_asked_twice(invoke, folder, server):
    def interrupt():
        until = time.monotonic() + 30
        while len(asked(server)) < 6 and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    pressed = threading.Thread(target=interrupt)
    pressed.start()
    stopped = invoke(*by_endpoint(server, "--in-flight", "2"))
    pressed.join()
    assert stopped.exit_code == 130, stopped.output
    kept = len(asked(server))
    assert 6 <= kept < 24
    done = invoke(*by_endpoint(server, "--in-flight", "2"))
    assert done.exit_code == 0, done.output
    assert sorted(asked(server)) == ["grand"] * 12 + ["mini"] * 12
    other = invoke(*label("--model", "any_model_reader:model"))
    assert other.exit_code == 2 and "another" in other.output, other.output
