"""`label --max-new-tokens`, from the command to what answers with the run."""

from __future__ import annotations

import json

import pytest

from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.runs.run import Run
from tests.cli.conftest import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = write_world(tmp_path_factory.mktemp("world"))
    lines = [json.loads(line) for line in world.examples.read_text().splitlines()]
    for line in lines[::2]:
        line["max_new_tokens"] = 5
    world.examples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return world


def test_the_option_goes_before_examples_and_a_run_keeps_its_lengths(invoke, world, tmp_path):
    own, run = tmp_path / "own", tmp_path / "run"
    label = ["label", "--examples", world.examples, "--images", world.images, "--model", "fake"]
    assert invoke(*label, "--out", own).exit_code == 0
    log = Run(own).log()
    assert log.metadata["max_new_tokens"] == {"1": 72, "5": 72}  # 1 is the fake's own
    assert log.max_new_tokens[:4].tolist() == [5, 1, 5, 1]
    command = [*label, "--out", run, "--max-new-tokens"]
    assert invoke(*command, 7).exit_code == 0
    assert Run(run).log().metadata["max_new_tokens"] == 7
    again = invoke(*command, 8)
    assert again.exit_code == 2
    told = " ".join(again.stderr.split())
    assert "other settings: another longest answer. Resume with the same" in told
    assert invoke(*command, 0).exit_code == 2
    for folder in (own, run):
        train = ["train", folder, "--estimator", "knn", "--no-ablations"]
        for stage in (train, ["calibrate", folder, "--budget", 100]):
            result = invoke(*stage)
            assert result.exit_code == 0, result.output
    # What answers with a run answers as long as the run did; of several lengths the longest.
    assert AutoScalePipeline.load(run).model.max_new_tokens == 7
    assert AutoScalePipeline.load(own, model="fake").model.max_new_tokens == 5


def test_a_length_of_an_example_that_is_none_is_told_by_line(invoke, world, tmp_path):
    lines = world.examples.read_text().splitlines()
    bad = json.loads(lines[1]) | {"max_new_tokens": 0}
    examples = tmp_path / "bad.jsonl"
    examples.write_text("\n".join([lines[0], json.dumps(bad)]) + "\n")
    result = invoke("label", "--examples", examples, "--images", world.images, "--out", tmp_path)
    assert result.exit_code == 2
    assert "line 2: Example '0-1': max_new_tokens must be a whole number" in " ".join(
        result.stderr.split()
    )
