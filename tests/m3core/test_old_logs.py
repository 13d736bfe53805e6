"""What was labelled before logs held references, metrics and longest answers still reads.

`tests/data/old_log` was written by the version before them: three examples, one log finished and
one journal killed behind the first two.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import MismatchError
from m3router.data.example import fingerprint
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.partial_log import find_log
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.labelling import label
from m3router.m3core.labelling.rows import longest_in
from m3router.m3core.labelling.verification import VERIFIED
from m3router.m3core.matryoshka.models.fake import FakeModel

OLD = Path(__file__).parents[1] / "data" / "old_log"
NEW = ["references", "metric", "max_new_tokens", "finish"]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (8, 8), name).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_finished_log_reads_and_does_not_know(old):
    log = OracleLog.read(old / "finished")
    assert log.references.tolist() == log.metrics.tolist() == [None] * 3
    assert np.isnan(log.max_new_tokens).all() and log.frame["finish"].isna().all()
    assert longest_in(log.metadata) is None
    assert log.n_gaps == 0 and log.scores.shape == (3, 5)


def test_examples_without_a_longest_answer_have_the_hash_they_had(old, images):
    examples = load_jsonl(old / "examples.jsonl", images=images)
    recorded = OracleLog.read(old / "finished").metadata["examples_sha256"]
    assert fingerprint(examples) == recorded


def test_an_old_journal_is_looked_at_and_goes_on(old, images):
    folder = old / "unfinished"
    found = find_log(folder)
    assert not found.finished and (len(found.log), found.asked) == (2, 3)
    assert found.log.references.tolist() == [None, None]
    examples = load_jsonl(old / "examples.jsonl", images=images)
    log = label(examples, images=images, model=FakeModel(), folder=folder)
    finished = OracleLog.read(old / "finished")
    assert log.frame.drop(columns=NEW).equals(finished.frame.drop(columns=NEW))
    # What the examples say is known of all; how an old answer ended is not.
    assert log.references.tolist() == [("yes",), ("B",), ("yes", "yeah")]
    assert log.metrics.tolist() == ["exact", "choice", "exact"]
    assert log.laid_out("finish").tolist() == [[None] * 5] * 2 + [["stop"] * 5]


def test_an_old_journal_was_asked_with_the_models_length(old, images):
    examples = load_jsonl(old / "examples.jsonl", images=images)
    with pytest.raises(MismatchError, match="max_new_tokens: journal 1, now 64"):
        label(
            examples,
            images=images,
            model=FakeModel(),
            folder=old / "unfinished",
            max_new_tokens=64,
        )


def test_the_same_command_completes_a_finished_log_and_keeps_what_was_found(old, images):
    examples = load_jsonl(old / "examples.jsonl", images=images)
    folder = old / "finished"
    before = OracleLog.read(folder)
    verified = OracleLog(
        before.frame,
        options=before.options,
        cost_unit=before.cost_unit,
        metadata={**before.metadata, VERIFIED: {"examples": 3}},
    )
    verified.write(folder)
    log = label(examples, images=images, model=FakeModel(), folder=folder)
    assert log.metadata[VERIFIED] == {"examples": 3}
    assert log.metrics.tolist() == ["exact", "choice", "exact"]
    assert log.frame.drop(columns=NEW).equals(before.frame.drop(columns=NEW))
