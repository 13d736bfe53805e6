"""Logs that come in from other tools and go out as data sets, by the command line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import disable_progress_bars, load_dataset

from m3router.data.importers import IMPORTERS
from m3router.data.importers.lmms_eval import SCORE_FIELDS
from m3router.data.log.oracle_log import OracleLog
from m3router.router.cli import import_

disable_progress_bars()

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")
SCALES = (1, 9, 36)
HASHED = ("--questions", "hashed")
HEADER = '"index"\t"question"\t"prediction"\t"hit"\n'


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """A run of lmms-eval at each scale."""
    for scale in SCALES:
        lines = [
            {
                "doc_id": i,
                "target": "yes",
                "doc_hash": f"h{i}",
                "filtered_resps": ["yes"],
                "input": f"Is it {i}?",
                "exact_match": float(i < scale),
                "my_metric": 0.5,
            }
            for i in range(4)
        ]
        path = tmp_path / str(scale) / "x_samples_gqa.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [f"{scale}={tmp_path / str(scale)}" for scale in SCALES]


def plain(result: Any) -> str:
    return " ".join(result.output.split())


def test_every_importer_is_a_subcommand() -> None:
    assert {one.name for one in import_.app.registered_commands} == set(IMPORTERS)


def test_the_page_names_every_known_task_and_only_flags_that_exist(invoke, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    named = re.search(r"field is known for (.*?),\sand tasks", PAGE, re.DOTALL)
    assert named and set(re.split(r",\s+| and ", named[1].replace("\n", " "))) == set(SCORE_FIELDS)
    lines = [line for line in PAGE.replace("\\\n", "").splitlines() if line.startswith("m3router ")]
    assert len(lines) >= 7
    for line in lines:
        command, *words = shlex.split(line)[1:]
        flags = [word for word in words if word.startswith("--")]
        path = [command, words[0]] if command == "import" else [command]
        shown = invoke(*path, "--help").output
        assert all(flag in shown for flag in flags), line


def test_lmms_eval_in_and_out_again(invoke, tmp_path, runs):
    run, out, again = tmp_path / "run", tmp_path / "published", tmp_path / "again"
    result = invoke("import", "lmms-eval", *runs, "--cost-unit", "visual tokens", "--out", run)
    assert result.exit_code == 0, result.output
    assert "4 examples with the options 1, 9, 36 (cost in visual tokens) in" in plain(result)
    assert "not mapped: options 1, 9, 36: task gqa: fields not used: my_metric" in plain(result)
    log = OracleLog.read(run / "log")
    assert log.scores.sum(axis=0).tolist() == [1, 4, 4]
    assert any("my_metric" in sentence for sentence in log.metadata["unmapped"])

    result = invoke("export", run, "--out", out, "--license", "cc-by-4.0")
    assert result.exit_code == 0, result.output
    rows = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["score"][:] == log.frame["score"].tolist()
    for source in (out, run):  # a log's folder works as a run's does
        result = invoke("export", source, "--out", tmp_path / f"from-{source.name}")
        assert result.exit_code == 0, result.output

    result = invoke("import", "exported", out, "--out", again)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(OracleLog.read(again / "log").frame, log.frame)
    assert OracleLog.read(again / "log").metadata == log.metadata


def test_an_imported_log_can_be_featurized(invoke, tmp_path, runs, small_world):
    """Images of the data set, saved under their ``doc_id``."""
    run = tmp_path / "run"
    result = invoke("import", "lmms-eval", *runs, "--images", "{id}.png", "--out", run)
    assert result.exit_code == 0, result.output
    assert "name no image file" not in plain(result)
    result = invoke(
        "featurize", run, "--images", small_world.images, "--encoder", "fake",
        "--questions", "hashed",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "features of 4 examples" in plain(result)


def test_metric_and_costs(invoke, tmp_path, runs):
    prices = [word for scale in SCALES for word in ("--cost", f"{scale}={10 - scale / 9}")]
    for metric in ("my_metric", "gqa=my_metric"):
        run = tmp_path / metric
        result = invoke("import", "lmms-eval", *runs, *prices, "--metric", metric, "--out", run)
        assert result.exit_code == 0, result.output
        log = OracleLog.read(run / "log")
        assert log.options == ("36", "9", "1")
        assert set(log.scores.flatten()) == {0.5}


def test_vlmevalkit(invoke, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}_MMStar_result.tsv").write_text(f'{HEADER}"0"\t"Which?"\t"A"\t"1"\n')
    sources = [f"{name}={tmp_path / name}_MMStar_result.tsv" for name in ("a", "b")]
    result = invoke(
        "import", "vlmevalkit", *sources, "--dataset", "star", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    assert OracleLog.read(tmp_path / "run/log").ids == ("star/0",)
    assert "(cost in rank)" in plain(result)


def test_table_with_other_names(invoke, tmp_path):
    (tmp_path / "t.csv").write_text("n,question,option,acc,more\n1,q,small,1,x\n1,q,large,0,x\n")
    result = invoke(
        "import", "table", tmp_path / "t.csv", "--column", "id=n", "--column", "correct=acc",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "not mapped: columns not used: ['more']" in plain(result)
    assert OracleLog.read(tmp_path / "run/log").scores.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lms-eval", "1=x"], 2, "Unknown command 'lms-eval'. Did you mean 'lmms-eval'"),
        (["lmms-eval", "x"], 2, "expected OPTION=PATH, got 'x'"),
        (["lmms-eval", "1=x", "1=x"], 2, "'1=x' is given twice"),
        (
            ["exported", "x", "--skip-bad"],
            2,
            "Unknown option of m3router import exported '--skip-bad'",
        ),
        (["lmms-eval", "1=none"], 2, "none does not exist"),
        (
            ["lmms-eval", "1=none", "--cost", "1=many"],
            2,
            "OPTION=NUMBER is needed, such as 1=7, got",
        ),
        (
            ["lmms-eval", "1=none", "--column", "id=n"],
            2,
            "Unknown option of m3router import lmms-eval '--column'",
        ),
        (["table", "a.csv", "b.csv"], 2, "unexpected extra argument"),
        (["table", "a.csv", "--column", "id"], 2, "expected OURS=THEIRS, got 'id'"),
        (
            ["table", "a.csv", "--metric", "x"],
            2,
            "Unknown option of m3router import table '--metric'",
        ),
    ],
)
def test_wrong_words(invoke, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.setenv("COLUMNS", "300")
    result = invoke("import", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == code, result.output
    assert message in plain(result)
    assert not (tmp_path / "run").exists()


def test_what_export_refuses(invoke, tmp_path, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    run, out = tmp_path / "run", tmp_path / "published"
    assert invoke("import", "lmms-eval", *runs, "--out", run).exit_code == 0
    for arguments, code, message in (
        (["--push-to-hub", "me/log"], 2, "under which licence"),
        (["--private"], 2, "--private is for an upload"),
        (["--license", "Mine!"], 2, "The licence must be an identifier"),
        (["--license", "mit", "--push-to-hub", "log"], 2, "must be 'owner/name', got 'log'"),
    ):
        result = invoke("export", run, "--out", out, *arguments)
        assert result.exit_code == code, result.output
        assert message in plain(result)
    result = invoke("export", tmp_path / "nowhere", "--out", out)
    assert result.exit_code == 2
    assert "has no manifest.json" in plain(result)


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """A router log whose column ``id`` numbers its rows, and ``sample_id`` its questions."""
    lines = ["id,sample_id,question,option,correct,cost,part"]
    for number in range(80):
        part = "train" if number % 4 else "test"
        for place, (option, cost) in enumerate((("weak", 1), ("strong", 10))):
            right = int(place or number % 3 > 0) if number % 7 else 1 - place
            asked = f"Which {'long ' * (number % 3 == 0)}number is {number}?"
            lines.append(f"{2 * number + place},{number},{asked},{option},{right},{cost},{part}")
    path = tmp_path / "answers.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def parts_of(run: Path) -> dict[str, str]:
    parts: dict[str, str] = json.loads((run / "split.json").read_text())["parts"]
    return parts


def test_a_table_given_back_as_split_is_read_by_its_imports_column(invoke, tmp_path, answered):
    run = tmp_path / "run"
    train = ["train", run, "--no-ablations", "--split", answered, "--split-column", "part"]
    for command in (
        ["import", "table", answered, "--column", "id=sample_id", "--out", run],
        ["featurize", run, "--feature-group=cheap", "--feature-group=question", *HASHED],
        train,
    ):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    official = {str(number): "train" if number % 4 else "test" for number in range(80)}
    found = {name: "test" if part == "test" else "train" for name, part in parts_of(run).items()}
    assert found == official

    result = invoke(*train, "--split-id", "id")  # named, and wrong: test questions would move
    assert result.exit_code == 0
    assert parts_of(run) != official
    assert invoke("train", run, "--split-id", "id").exit_code == 2
    other = tmp_path / "official.csv"
    rows = "".join(f"{number},q{number},fit\n" for number in range(80))
    other.write_text(f"number,question_id,split\n{rows}")
    result = invoke("train", run, "--split", other)
    assert result.exit_code == 2
    assert "Its column 'number' covers the log" in plain(result)
    assert "--split-id" in plain(result)


def test_an_image_in_a_table_is_refused_at_import(invoke, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,question,option,correct,image\n1,q,s,1,data:image/png;base64,AAAA\n")
    result = invoke("import", "table", path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "more cells" in plain(result)
    path.write_text('id,question,option,correct,image\n1,q,s,1,"data:image/png;base64,AAAA"\n')
    result = invoke("import", "table", path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "'image' in row 1 holds a data URL" in plain(result)
    assert not (tmp_path / "run" / "log").exists()


def test_a_misspelled_field_is_refused_before_labelling(invoke, small_world, tmp_path):
    line = json.loads(small_world.examples.read_text().splitlines()[0])
    line["metirc"] = line.pop("metric")
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(line))
    result = invoke(
        "label", "--examples", path, "--images", small_world.images, "--model", "fake",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "Unknown field 'metirc'. Did you mean 'metric'" in plain(result)
