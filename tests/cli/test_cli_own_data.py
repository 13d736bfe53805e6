"""`label` on a user's own data: any table, images in it, images that are missing, more examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3router.data.log.oracle_log import OracleLog
from tests.cli.conftest import World, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("own"), images=12)


def rows_of(world: World) -> list[dict]:
    return [json.loads(line) for line in world.examples.read_text().splitlines()]


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_examples_are_added_corrected_and_left_out(invoke, world, tmp_path):
    rows, out = rows_of(world), ["--model", "fake", "--out", tmp_path / "run"]

    def label(few: list[dict], *more: object):
        return invoke(
            "label", "--examples", lines(tmp_path / "e.jsonl", few), "--images", world.images,
            *out, *more,
        )  # fmt: skip

    assert label(rows[:36]).exit_code == 0
    journal = (tmp_path / "run/log/journal.jsonl").read_bytes()
    first = OracleLog.read(tmp_path / "run/log")

    added = label(rows)
    assert added.exit_code == 0 and "Examples: 12 added; the answers to 36 stayed" in added.output
    log = OracleLog.read(tmp_path / "run/log")
    assert len(log) == 48
    assert log.frame[:180].equals(first.frame)
    assert (tmp_path / "run/log/journal.jsonl").read_bytes().startswith(journal)
    pd.DataFrame(rows).assign(answers="yes").to_csv(tmp_path / "e.csv", index=False)
    same = invoke("label", "--examples", tmp_path / "e.csv", "--images", world.images, *out)
    assert same.exit_code == 0 and "Examples:" not in same.output

    corrected = label([{**rows[0], "answers": ["no"]}, *rows[1:]])
    assert corrected.exit_code == 0 and "1 scored again" in corrected.output
    again = OracleLog.read(tmp_path / "run/log")
    assert np.array_equal(again.scores[0], 1 - log.scores[0])
    assert np.array_equal(again.scores[1:], log.scores[1:])

    other = label([{**rows[0], "question": "Is it now?"}, *rows[1:]])
    assert other.exit_code in (1, 2) and "another question" in other.stderr
    assert "'0-0'" in other.stderr
    fewer = label(rows[4:])
    assert fewer.exit_code in (1, 2) and "--drop-removed" in fewer.stderr
    assert label(rows[4:], "--drop-removed").exit_code == 0
    left = OracleLog.read(tmp_path / "run/log")
    assert left.ids == log.ids[4:] and np.array_equal(left.scores, log.scores[4:])
    assert label(rows).exit_code == 0  # their answers were kept
    assert OracleLog.read(tmp_path / "run/log").frame.equals(log.frame)


def test_a_table_with_images_needs_no_folder(invoke, world, tmp_path):
    table = pd.DataFrame(
        {
            "image": [(world.images / row["image"]).read_bytes() for row in rows_of(world)],
            "question": [row["question"] for row in rows_of(world)],
        }
    )
    table.to_parquet(tmp_path / "e.parquet")
    run = tmp_path / "run"
    result = invoke("label", "--examples", tmp_path / "e.parquet", "--model", "fake", "--out", run)
    assert result.exit_code == 0, result.output
    told = result.output.replace("\n", " ")
    assert "agreement with it, not accuracy" in told and "numbers of the rows are the ids" in told
    log = OracleLog.read(run / "log")
    assert len(set(log.groups.tolist())) == 12 == len(list((run / "images").iterdir()))
    assert (log.scores[:, -1] == 1).all()


def test_missing_images_are_told_before_anything_is_asked(invoke, world, tmp_path):
    rows, run = rows_of(world), tmp_path / "run"

    def label(few: list[dict], *more: object):
        examples = lines(tmp_path / "e.jsonl", few)
        return invoke("label", "--examples", examples, "--model", "fake", "--out", run, *more)

    wrong = label(rows, "--images", world.images.parent)
    assert wrong.exit_code in (1, 2)
    assert f"All of them are in {world.images}" in wrong.stderr.replace("\n", "")
    assert not (run / "log").exists()
    lost = [{**row, "image": row["image"].replace("0.png", "0.PNG")} for row in rows]
    few = label(lost, "--images", world.images)
    told = few.stderr.replace("\n", " ")
    assert few.exit_code in (1, 2) and "2 of 12 images are not in" in told
    assert "'0.PNG' is perhaps '0.png'" in told
    skipped = label(lost, "--images", world.images, "--skip-missing")
    assert skipped.exit_code == 3 and "They become error records" in skipped.output
    assert label(lost, "--images", world.images).exit_code == 3  # nothing is left to ask
    mixed = [{**row, "answers": [], "metric": "agreement"} for row in rows[:3]] + rows[3:]
    refused = label(mixed, "--images", world.images)
    assert refused.exit_code in (1, 2) and "3 of 48 examples" in refused.stderr
