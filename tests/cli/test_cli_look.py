from __future__ import annotations

import numpy as np
from PIL import Image

from tests.data.clips import write_video

ASK = ["--question", "Is there a red one?", "--model", "fake"]


def test_look_writes_a_image_of_every_scale(invoke, small_world, tmp_path):
    image = small_world.images / "30.png"
    result = invoke("look", image, *ASK, "--out", tmp_path / "deep" / "all.png")
    assert result.exit_code == 0, result.output
    for scale in (1, 9, 36, 144, 576):
        assert f"{scale} visual token" in result.stdout
    two = invoke("look", image, *ASK, "--scale", 1, "--scale", 9, "--out", tmp_path / "two.png")
    assert two.exit_code == 0, two.output
    with (
        Image.open(tmp_path / "deep" / "all.png") as everything,
        Image.open(tmp_path / "two.png") as few,
    ):
        assert everything.format == "PNG" and everything.size[0] > 5 * 384
        assert 2 * 384 < few.size[0] < 3 * 384
        assert np.asarray(everything).std() > 10


def test_look_takes_another_pooling_and_a_video(invoke, small_world, tmp_path):
    image, out = small_world.images / "30.png", tmp_path / "a.png"
    drawn = []
    for pooling in ("average", "spatial", "sequential"):
        result = invoke("look", image, *ASK, "--scale", 9, "--pooling", pooling, "--out", out)
        assert result.exit_code == 0, result.output
        drawn.append(out.read_bytes())
    assert len(set(drawn)) == 3
    clip = write_video(tmp_path / "clip.mp4")
    result = invoke("look", clip, *ASK, "--frames", 4, "--out", out)
    assert result.exit_code == 0, result.output


def test_look_says_what_is_wrong(invoke, small_world, tmp_path):
    picture, out = small_world.images / "1.png", tmp_path / "a.png"
    for image, extra, message in (
        (tmp_path / "none.png", ["--out", out], "none.png cannot be read: no such file"),
        (picture, ["--out", out, "--scale", 100], "choose one of 1, 9, 36, 144, 576"),
        (picture, ["--out", out, "--tokens", 1], "are for MQT models"),
        (picture, ["--out", tmp_path / "a.jpg"], "must end in .png"),
    ):
        result = invoke("look", image, *ASK, *extra)
        assert result.exit_code == 2, result.output
        assert message in result.stderr.replace("\n", " ")
        assert "Traceback" not in result.output
    assert not out.exists()
