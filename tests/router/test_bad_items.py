"""One image that cannot be read, at whatever stage, is an error record and stops no other."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.labelling.verification import VERIFIED
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.preprocessing import LONGEST_SIDE, pad_to_square
from m3router.router.features.examples import with_errors
from m3router.router.reports.html import thumbnails
from m3router.router.reports.log_browser import write_page
from m3router.router.reports.log_summary import inspect_log
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import featurize_stage, label_stage, verify_stage
from m3router.router.stages.learning import train_stage

COUNT = 40
FEATURE_GROUPS = ("question", "cheap", "image")


def example(name: str, image: str) -> Example:
    return Example(
        id=name,
        image=image,
        question=f"How many things are there in image {name}, if any at all?",
        answers=("yes",),
        metric="exact",
    )


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(COUNT):
        Image.fromarray(render(make_scene(seed))).save(folder / f"{seed}.png")
    return folder


def usual(count: int = COUNT) -> list[Example]:
    return [example(str(seed), f"{seed}.png") for seed in range(count)]


def label_all(run: Run, asked: list[Example], images: Path, model: FakeModel | None = None):
    return label_stage(
        run,
        asked,
        images=images,
        model=model or FakeModel(),
        questions="hashed",
        feature_groups=FEATURE_GROUPS,
    )


def causes(log: OracleLog) -> dict[str, str]:
    errors = log.errors().drop_duplicates("example_id")
    return dict(zip(errors["example_id"], errors["error"], strict=True))


def test_strange_files_are_records_and_the_others_get_features(images, tmp_path):
    (images / "folder.png").mkdir()
    os.mkfifo(images / "pipe.png")
    os.mkfifo(images / "pipe.mp4")
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "zero.png").symlink_to("/dev/zero")
    bad = {
        "long": "x" * 300 + ".png",
        "folder": "folder.png",
        "pipe": "pipe.png",
        "video": "pipe.mp4",
        "loop": "loop.png",
        "zero": "zero.png",
        "gone": "gone.png",
        "out": "../images/0.png",
        "here": ".",
    }
    asked = usual(4) + [example(*item) for item in bad.items()] + [example("last", "5.png")]
    run = Run(tmp_path / "run")
    log = label_all(run, asked, images)
    assert set(causes(log)) == set(bad)
    assert run.features(log).ids == ("0", "1", "2", "3", "last")
    again = label_all(run, asked, images)  # nothing is asked again, and nothing ends it
    assert again.frame.equals(log.frame)
    table, found = featurize_stage(run, images=images, feature_groups=("question", "cheap"))
    assert table.ids == ("0", "1", "2", "3", "last") and set(found) == set(bad.values())


class Vanishing(FakeModel):
    """Answers, and loses an image's file while it encodes."""

    def __init__(self, lost: Path) -> None:
        super().__init__()
        self.lost = lost

    def encode(self, images):
        self.lost.unlink(missing_ok=True)
        return super().encode(images)


def test_a_file_that_vanishes_after_its_encoding(images, tmp_path):
    run, asked = Run(tmp_path / "run"), usual(20)
    log = label_all(run, asked, images, Vanishing(images / "3.png"))
    assert list(causes(log)) == ["3"]
    assert "No features: Image" in causes(log)["3"] and "no such file" in causes(log)["3"]
    assert len(run.features(log).ids) == 19
    assert OracleLog.read(run.log_folder).frame.equals(log.frame)


def test_features_made_later_without_a_file_that_is_gone(images, tmp_path):
    run, asked = Run(tmp_path / "run"), usual(20)
    whole = label_all(run, asked, images)
    shutil.rmtree(run.features_folder)
    kept = (images / "3.png").read_bytes()
    (images / "3.png").unlink()
    log = label_all(run, asked, images)
    assert list(causes(log)) == ["3"] and len(run.features(log).ids) == 19
    (images / "3.png").write_bytes(kept)
    assert label_all(run, asked, images).frame.equals(whole.frame)
    assert len(run.features(whole).ids) == 20
    shutil.rmtree(run.features_folder)
    shutil.rmtree(images)
    images.mkdir()
    assert len(causes(label_all(run, asked, images))) == 20


def test_training_leaves_out_what_has_no_features(images, tmp_path):
    run, asked = Run(tmp_path / "run"), usual()
    whole = label_all(run, asked, images)
    shutil.rmtree(run.features_folder)
    (images / "3.png").write_bytes(b"")
    featurize_stage(run, images=images, feature_groups=("question", "cheap"))
    assert OracleLog.read(run.log_folder).frame.equals(
        whole.frame
    )  # an imported log cannot be redone
    assert run.log(as_labelled=True).frame.equals(whole.frame)
    log = run.log()
    assert list(causes(log)) == ["3"] and log.complete.sum() == COUNT - 1
    with pytest.raises(DataError, match="No features: Image .*empty.*gaps drop"):
        train_stage(run, estimator="logistic")
    assert train_stage(run, estimator="logistic", gaps="drop").metadata["n"]
    Image.fromarray(render(make_scene(3))).save(images / "3.png")
    featurize_stage(run, images=images, feature_groups=("question", "cheap"))
    assert run.log().frame.equals(whole.frame)


def test_asking_again_leaves_out_what_cannot_be_read(images, tmp_path):
    run, asked = Run(tmp_path / "run"), usual(6)
    label_all(run, asked, images)
    (images / "2.png").unlink()
    found = verify_stage(run, asked, images=images, model=FakeModel(), count=6)
    assert found["examples"] == 5 and list(found["unreadable"]) == ["2"]
    assert set(found["asked"].values()) == {5}
    assert OracleLog.read(run.log_folder).metadata[VERIFIED] == found


@pytest.mark.parametrize(("disk", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_either_spelling_of_a_name_is_labelled_and_shown(images, tmp_path, disk, asked):
    def spelled(form: str) -> str:
        return unicodedata.normalize(form, "Caf\u00e9/\u00c5.png")

    (images / spelled(disk)).parent.mkdir()
    shutil.copy(images / "0.png", images / spelled(disk))
    run = Run(tmp_path / "run")
    log = label_all(run, [*usual(3), example("cafe", spelled(asked))], images)
    assert log.n_gaps == 0 and log.images[3] == spelled(asked)
    assert len(run.features(log).ids) == 4
    shown = thumbnails([{"id": "cafe", "image": spelled(asked)}], images, frames=6)
    assert list(shown) == ["cafe"]
    page = tmp_path / "page.html"
    written = write_page(log, inspect_log(log), page, images=images, thumbnails=0)
    assert written.linked == 4
    assert f'"files":{{"3":"{spelled(disk)}"}}' in page.read_text(encoding="utf-8")


def test_pages_leave_out_what_cannot_be_read(images, tmp_path):
    log = label_all(Run(tmp_path / "run"), usual(3), images)
    (images / "1.png").unlink()
    os.mkfifo(images / "1.png")
    names = ["0.png", "1.png", "x" * 300, "../images/0.png", "\0", ""]
    listed = [{"id": name, "image": name} for name in names]
    assert list(thumbnails(listed, images, frames=6)) == ["0.png"]
    written = write_page(log, inspect_log(log), tmp_path / "page.html", images=images)
    assert (written.inside, written.unreadable) == (2, 1) and "named pipe" in written.cause


def test_a_long_image_is_made_smaller_before_it_is_padded():
    strip = Image.new("RGB", (200_000, 100), "red")
    square = pad_to_square(strip, (0.5, 0.5, 0.5))
    assert square.size == (LONGEST_SIDE, LONGEST_SIDE)
    assert square.getpixel((9, LONGEST_SIDE // 2)) == (255, 0, 0)
    ordinary = Image.effect_noise((LONGEST_SIDE, 20), 80).convert("RGB")
    top = (LONGEST_SIDE - 20) // 2
    shown = pad_to_square(ordinary, (0.5, 0.5, 0.5)).crop((0, top, LONGEST_SIDE, top + 20))
    assert shown.tobytes() == ordinary.tobytes()


def test_errors_are_added_to_answers_only(images, tmp_path):
    log = label_all(Run(tmp_path / "run"), [*usual(2), example("gone", "gone.png")], images)
    assert with_errors(log, {"gone": "x", "unknown": "y"}) is log
    marked = with_errors(log, {"0": "lost", "gone": "x"})
    assert causes(marked)["0"] == "lost" and "no such file" in causes(marked)["gone"]
    assert np.isnan(marked.scores[0]).all() and marked.questions[0] == log.questions[0]
    assert marked.select(["1"]).frame.equals(log.select(["1"]).frame)
