from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.data.videos import open_media
from m3router.m3core.labelling import label
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.scales import ScaleGrid
from tests.data.clips import write_video


class Killed(RuntimeError):
    pass


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """More images than a chunk has."""
    folder = tmp_path_factory.mktemp("drawn")
    for seed in range(20):
        Image.fromarray(render(make_scene(seed))).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def images(drawn, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(drawn, tmp_path / "pictures"))


def examples(count: int = 20, per_image: int = 2) -> list[Example]:
    return [
        Example(
            id=f"{seed}-{number}",
            image=f"{seed}.png",
            question="Is it?" if number else "Is there anything at all to be seen in here?",
            answers=("yes",),
            metric="exact",
            group=f"{seed}.png",
        )
        for seed in range(count)
        for number in range(per_image)
    ]


def test_every_example_is_answered_at_every_scale(images, tmp_path):
    asked = examples()
    log = label(asked, images=images, model=FakeModel(), folder=tmp_path / "log")
    assert log.ids == tuple(one.id for one in asked)
    assert log.options == ("1", "9", "36", "144", "576")
    assert (log.costs == [1, 9, 36, 144, 576]).all()
    assert log.n_gaps == 0
    # The fake answers "yes" from its needed scale on: scores never fall with the scale.
    assert (log.scores[:, 1:] >= log.scores[:, :-1]).all()
    assert 0 < log.scores.mean() < 1
    again = OracleLog.read(tmp_path / "log")
    assert again.frame.equals(log.frame)
    assert again.metadata == log.metadata


def test_labels_do_not_depend_on_the_order_or_company_of_examples(images, tmp_path):
    asked = examples()
    log = label(asked, images=images, model=FakeModel(), folder=tmp_path / "a")
    back = label(asked[::-1], images=images, model=FakeModel(), folder=tmp_path / "b")
    assert back.select(list(log.ids)).frame.equals(log.frame)
    few = label(asked[3:5], images=images, model=FakeModel(), folder=tmp_path / "c")
    assert few.frame.equals(log.select(list(few.ids)).frame)


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(images, tmp_path):
    asked, calls = examples(), []
    undisturbed = label(asked, images=images, model=FakeModel(), folder=tmp_path / "a")

    def dying(state):
        if state.done >= 30:
            raise Killed

    with pytest.raises(Killed):
        label(asked, images=images, model=FakeModel(), folder=tmp_path / "b", progress=dying)
    resumed = label(
        asked,
        images=images,
        model=FakeModel(),
        folder=tmp_path / "b",
        progress=lambda state: calls.append(state.done),
    )
    assert calls[0] >= 30 and calls[-1] == len(asked)
    assert resumed.frame.equals(undisturbed.frame)


def test_one_bad_example_never_stops_the_run(images, tmp_path):
    (images / "0.png").write_bytes(b"")
    (images / "1.png").unlink()
    whole = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(whole[: len(whole) // 2])
    asked = examples(6)
    asked.append(
        Example(id="long", image="3.png", question="why " * 1500, answers=("yes",), group="3.png")
    )
    seen = []
    log = label(
        asked, images=images, model=FakeModel(), folder=tmp_path / "log", progress=seen.append
    )
    failed = log.errors()
    assert set(failed["example_id"]) == {"0-0", "0-1", "1-0", "1-1", "2-0", "2-1", "long"}
    causes = failed.set_index("example_id")["error"]
    assert "empty" in causes["0-0"].iloc[0]
    assert "no such file" in causes["1-0"].iloc[0]
    assert "truncated" in causes["2-0"].iloc[0]
    assert "does not fit" in causes["long"].iloc[0]
    assert failed["score"].isna().all() and failed["answer"].isna().all()
    assert seen[-1].errors == 7
    with pytest.raises(DataError, match="gaps"):
        log.require_complete()
    assert len(log.require_complete("drop")) == 6


def test_errors_are_asked_again_only_on_request(images, tmp_path):
    whole = (images / "0.png").read_bytes()
    (images / "0.png").write_bytes(b"")
    asked, folder = examples(2), tmp_path / "log"
    label(asked, images=images, model=FakeModel(), folder=folder)
    (images / "0.png").write_bytes(whole)
    assert label(asked, images=images, model=FakeModel(), folder=folder).n_gaps == 10
    (images / "1.png").write_bytes(b"")
    again = label(asked, images=images, model=FakeModel(), folder=folder, retry_errors=True)
    assert again.n_gaps == 0


def test_what_fails_again_keeps_its_error(images, tmp_path):
    (images / "0.png").write_bytes(b"")
    asked, folder = examples(2), tmp_path / "log"
    label(asked, images=images, model=FakeModel(), folder=folder)
    (images / "0.png").unlink()
    again = label(asked, images=images, model=FakeModel(), folder=folder, retry_errors=True)
    assert again.ids == tuple(one.id for one in asked)
    assert set(again.errors()["example_id"]) == {"0-0", "0-1"}
    assert again.errors()["error"].str.contains("no such file").all()
    assert again.n_gaps == 10


def test_features_are_offered_before_their_answers_are_kept(images, tmp_path):
    folder = tmp_path / "log"

    def check(encoded):
        kept = (folder / "journal.jsonl").read_text().splitlines()[1:]
        known = {row["image"] for line in kept for row in json.loads(line)["rows"]}
        assert known.isdisjoint(name for name, _ in encoded)
        names.extend(name for name, _ in encoded)

    names: list[str] = []
    label(examples(), images=images, model=FakeModel(), folder=folder, on_encoded=check)
    assert sorted(names) == sorted(f"{seed}.png" for seed in range(20))


def test_another_model_or_other_examples_are_refused(images, tmp_path):
    folder = tmp_path / "log"
    label(examples(2), images=images, model=FakeModel(), folder=folder)
    with pytest.raises(MismatchError, match="examples_sha256"):
        label(examples(3), images=images, model=FakeModel(), folder=folder)
    coarse = FakeModel(ScaleGrid(scales=(1, 4, 16), side=4))
    with pytest.raises(MismatchError, match="grid"):
        label(examples(2), images=images, model=coarse, folder=folder)


def test_no_examples_are_refused(images, tmp_path):
    with pytest.raises(DataError, match="nothing to label"):
        label([], images=images, model=FakeModel(), folder=tmp_path / "log")


def test_videos_are_labelled_as_collages_and_bad_ones_recorded(images, tmp_path):
    write_video(images / "clip.mp4")
    write_video(images / "still.mp4", 1)
    (images / "empty.mp4").write_bytes(b"")
    videos = [
        Example(id=name, image=f"{name}.mp4", question="Is it?", answers=("yes",))
        for name in ("clip", "still", "empty")
    ]
    encoded = {}
    log = label(
        videos,
        images=images,
        model=FakeModel(),
        folder=tmp_path / "run",
        on_encoded=lambda pairs: encoded.update(pairs),
        frames=4,
    )
    assert log.complete.tolist() == [True, False, False]
    assert log.costs[0].tolist() == [1, 9, 36, 144, 576]  # of all frames together
    causes = " ".join(log.errors()["error"])
    assert "single frame" in causes and "0 bytes" in causes
    (expected,) = FakeModel().encode([open_media(images / "clip.mp4", frames=4)])
    assert torch.equal(encoded["clip.mp4"].features, expected.features)


def test_a_run_over_videos_keeps_its_number_of_frames(images, tmp_path):
    write_video(images / "clip.mp4")
    video = Example(id="1", image="clip.mp4", question="Is it?", answers=("yes",))
    run = {"images": images, "model": FakeModel(), "folder": tmp_path / "run"}
    assert label([video], **run).metadata["frames"] == 6
    label([video], **run, frames=6)
    with pytest.raises(MismatchError, match="frames: journal 6, now 8"):
        label([video], **run, frames=8)
    still = {**run, "folder": tmp_path / "other"}
    assert "frames" not in label(examples(2), **still).metadata
    label(examples(2), **still, frames=8)  # without a video it does not matter


def test_a_missing_decoder_ends_the_run_instead_of_marking_examples(images, tmp_path, monkeypatch):
    write_video(images / "clip.mp4")
    video = Example(id="1", image="clip.mp4", question="Is it?", answers=("yes",))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"m3router\[video\]"):
        label([video], images=images, model=FakeModel(), folder=tmp_path / "run")
