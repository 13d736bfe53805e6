from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.sources.jsonl import load_jsonl
from m3router.router.traffic import TrafficFolder, read_traffic
from m3router.router.traffic.folder import ANSWERED, EXAMPLES, IMAGES, SETS
from tests.children import child
from tests.traffic.made import NOW, add, answered, filled, new_image, record

ROOT = Path(__file__).resolve().parents[2]


def everything(root: Path) -> bytes:
    """All bytes of all files, and their names."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in paths)


def ids(root: Path) -> list[str]:
    return [one["id"] for one in read_traffic(root)]


def images(root: Path) -> set[str]:
    return set(os.listdir(root / IMAGES))


def test_what_is_written_are_examples_with_their_images(tmp_path):
    root = filled(tmp_path / "traffic")
    examples = load_jsonl(root / EXAMPLES, images=root / IMAGES)
    assert [one.id for one in examples] == ["one", "other", "alone"]
    assert examples[0].group == examples[1].group != examples[2].group
    assert (examples[0].metric, examples[0].answers) == ("agreement", ())
    assert {one.image for one in examples} == images(root)
    with Image.open(root / IMAGES / examples[2].image) as image:
        assert image.format == "PNG"
        assert image.tobytes() == new_image(2).tobytes()
    told = load_jsonl(root / ANSWERED, images=root / IMAGES)
    assert [(one.id, one.answers, one.metric) for one in told] == [
        ("one", ("a dog",), "exact"),
        ("alone", ("a dog",), "exact"),
    ]
    assert load_jsonl(root / SETS / "all.jsonl", images=root / IMAGES) == examples
    assert root.stat().st_mode & 0o077 == 0  # for its owner alone


def test_a_image_is_kept_without_what_its_file_held_beside(tmp_path):
    image = new_image(1)
    image.info["comment"] = "taken at home"
    with TrafficFolder.open(tmp_path / "traffic", make=True) as folder:
        folder.add(record("one", image), image)
    assert b"taken at home" not in everything(tmp_path)


def test_what_is_forgotten_is_nowhere(tmp_path):
    root = filled(tmp_path / "traffic")
    (alone,) = images(root) - {read_traffic(root)[0]["image"]}
    with TrafficFolder.open(root) as folder:
        assert folder.forget(["alone"]) == 1
        assert folder.forget(["alone", "never"]) == 0
    assert b"alone" not in everything(root)
    assert alone.encode() not in everything(root)
    assert ids(root) == ["one", "other"]
    with TrafficFolder.open(root) as folder:
        assert folder.forget(["one"]) == 1
        assert len(images(root)) == 1  # the other request is about it too
        assert folder.forget(["other"]) == 1
        assert not images(root)
        add(folder, "one", 1)  # the same id may come again
    assert ids(root) == ["one"]
    assert len(images(root)) == 1


def test_what_is_too_old_is_purged(tmp_path):
    root = filled(tmp_path / "traffic")
    with TrafficFolder.open(root) as folder:
        assert folder.purge(NOW - timedelta(days=41)) == 0
        assert folder.purge(NOW - timedelta(days=30)) == 1
        assert len(folder) == 2
    assert b"alone" not in everything(root)


@pytest.fixture(scope="module")
def deadly():
    """Runs an action on a folder that is killed before its n-th change; gives the exit code."""
    program = [sys.executable, "-m", "tests.traffic.made"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with child(program, cwd=ROOT, env=environment, **pipes) as starter:

        def run(root: Path, action: str, step: int) -> int:
            starter.stdin.write(f"{root} {action} {step}\n")
            starter.stdin.flush()
            return int(starter.stdout.readline())

        yield run
        starter.stdin.close()


@pytest.mark.parametrize("action", ["forget", "purge", "add"])
def test_a_process_killed_before_any_change_leaves_all_or_nothing(deadly, tmp_path, action):
    before = filled(tmp_path / "before")
    one = "new" if action == "add" else "alone"
    left, step, code = set(), 0, -9
    while code == -9:
        step += 1
        root = shutil.copytree(before, tmp_path / str(step))
        code = deadly(root, action, step)
        seen = ids(root)  # readable as it is
        load_jsonl(root / EXAMPLES, images=root / IMAGES)
        with TrafficFolder.open(root):
            assert ids(root) == seen
        there = one in seen
        left.add(there)
        assert (one.encode() in everything(root)) == there
        assert {line["image"] for line in read_traffic(root)} == images(root)
        assert {"one", "other"} <= set(seen)
        copies = (root / SETS / "all.jsonl").read_text(), (root / ANSWERED).read_text()
        assert [text.count('"alone"') for text in copies] == [int("alone" in seen)] * 2
        assert not list(root.rglob("*.tmp"))
        shutil.rmtree(root)
    assert code == 0
    assert step > 5
    assert left == {True, False}  # there were kills on both sides of the decisive moment


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(tmp_path):
    root = filled(tmp_path / "traffic")
    whole = (root / EXAMPLES).read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    near = {end + step for end in ends for step in (-1, 0, 1)}
    for size in sorted({*range(0, len(whole), 97), *near} - {len(whole) + 1}):
        torn = shutil.copytree(root, tmp_path / str(size))
        os.truncate(torn / EXAMPLES, size)
        count = sum(end <= size for end in ends)
        assert len(ids(torn)) == count
        with TrafficFolder.open(torn) as folder:
            add(folder, "later", 4)
        assert ids(torn)[-1] == "later"
        assert len(load_jsonl(torn / EXAMPLES, images=torn / IMAGES)) == count + 1


def test_damage_and_edits_are_named_and_nothing_is_deleted(tmp_path):
    root = filled(tmp_path / "traffic")
    whole = (root / EXAMPLES).read_bytes()
    lines = whole.splitlines(keepends=True)
    edited = lines[1].replace(b'"answers":[]', b'"answers":["x"]')
    (root / EXAMPLES).write_bytes(lines[0] + edited + lines[2])
    before = everything(root)
    with pytest.raises(DataError, match=f"damaged at byte {len(lines[0])}.*edited by hand"):
        TrafficFolder.open(root)
    assert everything(root) == before
    (root / EXAMPLES).write_bytes(whole)
    with TrafficFolder.open(root) as folder:
        assert len(folder) == 3


FULL = """
import os, resource, sys
from pathlib import Path
from m3router.data.errors import DataError
from m3router.router.traffic import TrafficFolder
from m3router.router.traffic.folder import EXAMPLES
from tests.traffic.made import new_image, record, add
root = Path(sys.argv[1])
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def tried(action):
    try:
        action()
    except DataError as error:
        return str(error)
with TrafficFolder.open(root) as folder:
    size = (root / EXAMPLES).stat().st_size
    limit(size + 100)  # the image fits, the line does not
    print(tried(lambda: add(folder, "line", 3)))
    limit(50)  # the image does not, nor does what is left after forgetting
    print(tried(lambda: add(folder, "drawn", 3)))
    print(tried(lambda: folder.forget(["alone"])))
    limit(resource.RLIM_INFINITY)
    print((root / EXAMPLES).stat().st_size == size, len(folder), len(os.listdir(root / "images")))
    add(folder, "after", 3)
"""


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    root = filled(tmp_path / "traffic")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(root)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    *errors, state = run.stdout.splitlines()
    assert all("Disk full while writing" in error for error in errors)
    assert len(errors) == 3
    assert state == "True 3 2"
    assert ids(root) == ["one", "other", "alone", "after"]
    assert len(load_jsonl(root / EXAMPLES, images=root / IMAGES)) == 4


def test_a_folder_has_one_writer_and_any_number_of_readers(tmp_path):
    root = filled(tmp_path / "traffic")
    code = (
        "import sys; from pathlib import Path; from m3router.router.traffic import *\n"
        "from m3router.data.errors import DataError\n"
        "print(len(read_traffic(Path(sys.argv[1]))))\n"
        "try:\n    TrafficFolder.open(Path(sys.argv[1]))\n"
        "except DataError as error:\n    print(error)\n"
    )
    with TrafficFolder.open(root):
        run = subprocess.run(
            [sys.executable, "-c", code, str(root)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        count, refused = run.stdout.splitlines()
        assert count == "3"
        assert f"in use by another process (id {os.getpid()})" in refused
        with pytest.raises(DataError, match="in use"):
            TrafficFolder.open(root)
    TrafficFolder.open(root).close()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    mine = tmp_path / "scenes"
    (mine / "images").mkdir(parents=True)
    new_image(1).save(mine / "images" / f"{'0' * 32}.png")
    (mine / "examples.jsonl").write_text("{}\n")
    before = everything(mine)
    for make in (True, False):
        with pytest.raises(DataError, match=r"Give a folder of its own|has no sampling\.key"):
            TrafficFolder.open(mine, make=make)
    with pytest.raises(DataError, match="is not a folder of recorded traffic"):
        read_traffic(tmp_path / "none")
    assert everything(mine) == before
    assert not (tmp_path / "none").exists()


def test_images_of_others_in_the_images_folder_stay(tmp_path):
    root = filled(tmp_path / "traffic")
    (root / IMAGES / "README.txt").write_text("mine")
    (root / IMAGES / f"{'0' * 32}.png").write_bytes(b"left by a killed process")
    TrafficFolder.open(root).close()
    assert "README.txt" in images(root)
    assert f"{'0' * 32}.png" not in images(root)


def test_what_cannot_be_done_is_said(tmp_path):
    root = filled(tmp_path / "traffic")
    with TrafficFolder.open(root) as folder:
        with pytest.raises(DataError, match="a record of 'one' already"):
            add(folder, "one", 5)
        assert len(images(root)) == 2
        with pytest.raises(DataError, match="no record of 1 of the 2 answered"):
            folder.answer([answered("other", 1), answered("never", 1)])
        assert folder.answer([answered("one", 1, "a cow")]) == 2
        for name in ("../all", "", ".hidden", "a/b"):
            with pytest.raises(DataError, match="name must be letters"):
                folder.write_set(name)
        with pytest.raises(DataError, match="exists"):
            folder.write_set("all")
    with pytest.raises(DataError, match="is closed"):
        folder.forget(["one"])
    told = load_jsonl(root / ANSWERED, images=root / IMAGES)
    assert [one.answers for one in told] == [("a cow",), ("a dog",)]
    empty = TrafficFolder.open(tmp_path / "empty", make=True)
    with empty, pytest.raises(DataError, match="no records"):
        empty.write_set("all")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")).filter(str.strip), max_size=4))
def test_any_question_comes_back(tmp_path_factory, questions):
    root = tmp_path_factory.mktemp("any") / "traffic"
    with TrafficFolder.open(root, make=True) as folder:
        for number, question in enumerate(questions):
            add(folder, f"id {number}", number, question=question)
    assert [one["question"] for one in read_traffic(root)] == questions
    if questions:
        examples = load_jsonl(root / EXAMPLES, images=root / IMAGES)
        assert [one.question for one in examples] == questions
    lines = (root / EXAMPLES).read_text().splitlines()
    assert [json.loads(line)["question"] for line in lines] == questions
