"""Real labelling runs in processes of their own: killed, ended, several at once."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.log.journal import Journal
from m3router.data.log.oracle_log import OracleLog
from m3router.data.scenes.export import VALIDATION_SEEDS, write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.m3core.labelling import label
from m3router.router.features.table import FeatureTable
from m3router.router.runs.run import Run
from tests.children import child
from tests.m3core import faults
from tests.m3core.faults import Forked


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images, their examples as JSONL, and an undisturbed run over them."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "pictures").mkdir()
    for seed in range(faults.IMAGES):
        noise = np.random.default_rng(seed).integers(0, 2 + seed, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / "pictures" / f"{seed}.png")
    (folder / "pictures" / "7.png").write_bytes(b"")  # an error record belongs to every log
    lines = [
        {
            "id": one.id,
            "image": one.image,
            "question": one.question,
            "answers": list(one.answers),
            "metric": one.metric,
            "group": one.group,
        }
        for one in faults.examples()
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "examples.jsonl").write_text(text)
    faults.run(folder, folder / "undisturbed")
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Forks a labelling process; see :func:`faults.starter`."""
    with faults.starter(tmp_path_factory.mktemp("outputs")) as starting:
        yield starting


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Logs are equal row for row, and so are the features."""
    ours, theirs = (
        OracleLog.read(Run(folder).log_folder),
        OracleLog.read(Run(undisturbed).log_folder),
    )
    assert ours.frame.equals(theirs.frame)
    first, second = (FeatureTable.read(Run(one).features_folder) for one in (folder, undisturbed))
    assert first.ids == second.ids
    for name, block in first.blocks.items():
        np.testing.assert_array_equal(block, second.blocks[name])


def until(condition, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize("kills", [9, pytest.param(60, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_loses_nothing(root, start, tmp_path, kills):
    draw = random.Random(0)
    for name in ("first", "timed"):  # the first one does what is done once
        began = time.monotonic()
        whole = start("run", str(root), str(tmp_path / name))
        until(lambda one=whole: one.gone)
        length = time.monotonic() - began

    number, middle = 0, 0
    for _ in range(kills):
        folder = tmp_path / str(number)
        killed = start("run", str(root), str(folder))
        time.sleep(draw.uniform(0, 0.5 * length))
        killed.kill()
        until(lambda one=killed: one.gone)
        journal = folder / "log" / "journal.jsonl"
        if (folder / "features" / "manifest.json").is_file():
            assert_same(folder, root / "undisturbed")
            number += 1
        elif journal.is_file() and len(journal.read_bytes().splitlines()) > 1:
            middle += 1
    assert middle >= kills / 3  # many kills did hit a run that had something to lose
    faults.run(root, tmp_path / str(number))
    for one in range(number + 1):
        assert_same(tmp_path / str(one), root / "undisturbed")


def words(root: Path, out: Path, *, model: str = "fake") -> list[str]:
    images = ["--examples", str(root / "examples.jsonl"), "--images", str(root / "pictures")]
    return ["label", *images, "--model", model, "--out", str(out)]


def test_sigterm_to_all_processes_finishes_the_chunk_and_says_how_to_go_on(root, start, tmp_path):
    """Its readers of images, which get it too, do not end before what they read is used."""
    journal = tmp_path / "log" / "journal.jsonl"
    labelling = start(*words(root, tmp_path), "--workers", "1")
    until(lambda: journal.is_file() and len(journal.read_bytes().splitlines()) > 1)
    os.killpg(labelling.pid, signal.SIGTERM)
    until(lambda: labelling.gone, 60)
    assert labelling.code == 0, labelling.said
    assert "go on with the same command" in " ".join(labelling.said.split())
    assert not (tmp_path / "log" / "oracle.parquet").exists()
    kept = journal.read_bytes()
    faults.run(root, tmp_path)
    assert journal.read_bytes().startswith(kept)
    assert_same(tmp_path, root / "undisturbed")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def together(start, root: Path, out: Path, *, model: str = "fake") -> list[Forked]:
    """Two processes with what a launcher tells them, once both have ended."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": free_port()}
    processes = [
        start(*words(root, out, model=model), **common, RANK=rank, LOCAL_RANK=rank)
        for rank in ("0", "1")
    ]
    until(lambda: all(one.gone for one in processes))
    return processes


def test_two_processes_label_together_and_their_rows_are_merged_once(root, start, tmp_path):
    first, _ = together(start, root, tmp_path / "together")
    # An example has an error record, so the first process, which merges, ends with code 3.
    assert "300 examples" in first.said and first.code == 3, first.said
    log = tmp_path / "together" / "log"
    kept = [
        {row["example_id"] for line in file.read_text().splitlines()[1:] for row in rows(line)}
        for file in (log / "journal.jsonl", log / "journal.1.jsonl")
    ]
    assert not kept[0] & kept[1] and len(kept[0] | kept[1]) == 300
    assert min(map(len, kept)) > 90  # about half each
    assert_same(tmp_path / "together", root / "undisturbed")
    effort = json.loads((log / "effort.json").read_text())
    alone = json.loads((root / "undisturbed" / "log" / "effort.json").read_text())
    assert effort["processes"] == 2
    assert effort["examples"] == alone["examples"] == 300
    assert effort["flops"] == pytest.approx(alone["flops"])


def test_labels_do_not_depend_on_the_number_of_processes(start, tmp_path):
    """The embedded model in float32, two processes against one: the same answers."""
    seeds = range(VALIDATION_SEEDS.start + 500, VALIDATION_SEEDS.start + 504)
    write_scenes(tmp_path, seeds, questions=2)
    (tmp_path / "images").rename(tmp_path / "pictures")
    processes = together(start, tmp_path, tmp_path / "two", model="embedded")
    assert [one.code for one in processes] == [0, 0], [one.said for one in processes]
    assert (tmp_path / "two" / "log" / "journal.1.jsonl").is_file()
    alone = label(
        load_jsonl(tmp_path / "examples.jsonl", images=tmp_path / "pictures"),
        images=tmp_path / "pictures",
        model=load_model("embedded", device="cpu"),
        folder=tmp_path / "one",
    ).frame
    merged = OracleLog.read(tmp_path / "two" / "log").frame
    numbers = ["logprob", "confidence"]
    assert merged.drop(columns=numbers).equals(alone.drop(columns=numbers))
    np.testing.assert_allclose(merged[numbers], alone[numbers], atol=1e-4)


def rows(line: str) -> list[dict]:
    return json.loads(line)["rows"]


def test_when_a_process_dies_the_others_end_and_one_alone_goes_on(root, tmp_path):
    """Started by torchrun. In the meantime nobody else may label into the folder."""
    log = tmp_path / "log"
    lock = log / "journal.1.lock"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--master-port", free_port(), "-m", "m3router"]
    with child(
        [sys.executable, *launcher, *words(root, tmp_path)],
        cwd=faults.ROOT,
        env=faults.ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as run:
        until(lambda: lock.is_file() and lock.read_text().strip().isdigit())
        with pytest.raises(DataError, match="being labelled by another process"):
            Journal.open(log, {})
        os.kill(int(lock.read_text()), signal.SIGKILL)
        run.communicate(timeout=120)
    assert run.returncode != 0
    faults.run(root, tmp_path)
    assert_same(tmp_path, root / "undisturbed")
