from __future__ import annotations

import csv
import json
import re

import pytest

from m3router.data.log.journal import Journal
from m3router.data.log.oracle_log import OracleLog
from m3router.router.runs.run import Run


def test_inspect_prints_every_table(invoke, finished):
    result = invoke("inspect", finished, "--draws", 50)
    assert result.exit_code == 0, result.output
    for title in (
        "Every scale",
        "Fixed scales and the oracle",
        "Smallest sufficient scale, first_correct",
        "Smallest sufficient scale, stable",
        "Smallest sufficient scale, matches_full",
        "How often answers differ",
        "What more tokens change",
        "The most expensive questions",
    ):
        assert f"{title}\n" in result.stdout
    assert "Errors by cause" not in result.stdout
    assert "takes away too much" in result.stdout
    log = Run(finished).log()
    for place, scale in enumerate(log.options):
        shown = f"{100 * log.scores[:, place].mean():.1f}"
        assert re.search(rf"^fixed {scale} +{re.escape(shown)} ", result.stdout, re.MULTILINE)
    for word in ("all", "short", "long", "1 → 9", "1 → 576", "never"):
        assert word in result.stdout


def test_inspect_as_json_is_json_alone_and_may_be_narrowed(invoke, finished):
    result = invoke(
        "inspect", finished / "log", "--json", "--dataset", "long", "--rule", "stable", "--top", 2
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (part,) = document["parts"]
    log = Run(finished).log()
    rows = log.datasets == "long"
    assert (part["dataset"], part["examples"]) == ("long", rows.sum())
    assert [one["rule"] for one in part["oracles"]] == ["stable"]
    assert part["scales"][4]["accuracy"]["value"] == pytest.approx(log.scores[rows, 4].mean())
    assert document["finished"] is True
    assert len(document["expensive"]) == 2


def test_inspect_writes_a_page_and_tables(invoke, finished, small_world, tmp_path):
    page, tables = tmp_path / "new" / "log.html", tmp_path / "tables"
    arguments = ["--images", small_world.images, "--thumbnails", 5, "--draws", 20]
    result = invoke("inspect", finished, *arguments, "--html", page, "--csv", tables)
    assert result.exit_code == 0, result.output
    assert "5 images inside, 31 linked" in result.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 5
    assert "144 questions, 5 scales" in text
    with (tables / "scales.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 5
    log = Run(finished).log()
    assert float(rows[2]["accuracy"]) == pytest.approx(log.scores[:, 2].mean())
    assert {"oracles.csv", "smallest.csv", "disagreements.csv", "steps.csv", "expensive.csv"} < {
        path.name for path in tables.iterdir()
    }


def test_inspect_looks_at_an_unfinished_run_and_at_errors(invoke, finished, tmp_path):
    log = Run(finished).log()
    rows = json.loads(log.frame.to_json(orient="records"))[:23]
    for row in rows[:5]:
        row |= {"score": None, "cost": None, "error": "Image 0.png cannot be read: no such file."}
    metadata = {**log.metadata, "grid": list(log.options)}
    page = tmp_path / "log.html"
    with Journal.open(tmp_path / "new" / "log", metadata) as journal:
        journal.append(rows)
        result = invoke("inspect", tmp_path / "new", "--draws", 9, "--html", page)
    assert result.exit_code == 0, result.output
    assert "Unfinished: 5 of 144 questions are labelled so far." in result.stderr
    assert "Unfinished: 5 of 144 questions" in page.read_text(encoding="utf-8")
    assert "Errors by cause" in result.stdout
    lines = [line.split() for line in result.stdout.split("Fixed scales")[0].splitlines()]
    last = next(line for line in lines if line[:1] == ["576"])  # of all datasets
    assert last[-3:] == ["3", "1", "1"]  # answered, errors, not asked


def test_inspect_takes_imported_logs_of_any_options(invoke, tmp_path):
    table = tmp_path / "answers.csv"
    table.write_text(
        "id,question,option,correct,cost\n"
        "a,what [bold]?,small,1,0.1\na,what [bold]?,large model,0,0.7\n"
        "b,which?,small,,0.1\nb,which?,large model,1,0.7\n"
    )
    run = tmp_path / "run"
    assert invoke("import", "table", table, "--out", run).exit_code == 0
    page = tmp_path / "log.html"
    result = invoke("inspect", run, "--draws", 9, "--html", page)
    assert result.exit_code == 0, result.output
    assert "what [bold]?" in result.stdout
    assert "small →" in result.stdout and "large model" in result.stdout
    assert "How often answers differ" not in result.stdout  # no answers in the table
    assert OracleLog.read(run / "log").n_gaps == 1
    assert page.is_file()


def test_inspect_says_what_is_wrong(invoke, finished, tmp_path):
    page = tmp_path / "log.html"
    for arguments, message in (
        ([tmp_path], "holds no oracle log"),
        ([finished, "--dataset", "shorts"], "Did you mean 'short'?"),
        ([finished, "--rule", "best"], "Unknown rule 'best'"),
        ([finished, "--html", page, "--images", tmp_path / "none"], "does not exist"),
    ):
        result = invoke("inspect", *arguments, *(["--draws", 2] if arguments[1:] else []))
        assert result.exit_code == 2, result.output
        assert message in result.stderr.replace("\n", " ")
        assert "Traceback" not in result.output
    assert not page.exists()
