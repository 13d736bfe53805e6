"""Videos from the command line: labelled, learned from and asked about like images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from m3router.router.features.table import FeatureTable
from m3router.router.inference.pipeline import AutoScalePipeline
from tests.cli.conftest import QUESTIONS
from tests.data.clips import SIZE, write_video

VIDEOS = 30


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Videos of growing contrast between their frames, each with questions of growing length."""
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for number in range(VIDEOS):
        contrast = 127 * number // VIDEOS

        def image(place: int, contrast: int = contrast) -> np.ndarray:
            grey = 128 + contrast * (-1) ** (place // 2)
            return np.full((SIZE[1], SIZE[0], 3), grey, np.uint8)

        write_video(folder / f"{number}.mp4", 8, image=image)
        for place, question in enumerate(QUESTIONS):
            line = {"id": f"{number}-{place}", "video": f"{number}.mp4", "question": question}
            lines.append(line | {"answers": ["yes"], "metric": "yes_no", "chance": 0.0})
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_videos_from_label_to_ask(clips, invoke, tmp_path):
    run = tmp_path / "run"
    label = ["label", "--examples", clips / "examples.jsonl", "--images", clips, "--model", "fake"]
    for command in (
        [*label, "--frames", 4, "--out", run],
        ["train", run, "--estimator", "knn", "--no-ablations"],
        ["calibrate", run, "--budget", 100],
        ["evaluate", run, "--draws", 20],
        ["report", run, "--images", clips],
    ):
        result = invoke(*command)
        assert result.exit_code == 0, result.output

    other = invoke(*label, "--frames", 6, "--out", run)
    assert other.exit_code == 2
    assert "frames: journal 4, now 6" in other.stderr

    answered = invoke("ask", run, clips / "20.mp4", QUESTIONS[2])
    assert answered.exit_code == 0, answered.output
    assert "chosen by the router" in answered.stdout
    missing = invoke("ask", run, clips / "none.mp4", QUESTIONS[2])
    assert missing.exit_code == 2
    assert "none.mp4 cannot be read: no such file" in missing.stderr

    pipeline = AutoScalePipeline.load(run)
    assert pipeline.frames == 4
    first, again = pipeline.answer([clips / "20.mp4"] * 2, [QUESTIONS[2]] * 2)
    assert first.sufficiency == again.sufficiency and first.answer == again.answer

    # What the pipeline saw of a file is what the router was trained on: 4 frames, not 6.
    features = FeatureTable.read(run / "features")
    assert features.metadata["frames"] == 4
    shorter = tmp_path / "run6"
    assert invoke(*label, "--out", shorter).exit_code == 0
    assert FeatureTable.read(shorter / "features").metadata["frames"] == 6
    again = invoke("featurize", run, "--images", clips, "--encoder", "fake")
    assert again.exit_code == 0, again.output
    assert FeatureTable.read(run / "features").metadata["frames"] == 4


def test_frames_below_one_are_a_wrong_option(clips, invoke, tmp_path):
    label = ["label", "--examples", clips / "examples.jsonl", "--images", clips, "--model", "fake"]
    result = invoke(*label, "--frames", 0, "--out", tmp_path / "run")
    assert result.exit_code == 2
