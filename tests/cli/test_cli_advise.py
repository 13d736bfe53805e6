"""From a log to a verdict in one command: every kind of log, small ones, and wrong use."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from m3router.data.importers import IMPORTERS
from m3router.data.importers.recognition import KINDS
from m3router.data.log.exporting import export_log
from m3router.data.log.oracle_log import OracleLog
from m3router.router.runs.run import Run
from m3router.router.stages import advising

OPTIONS, COSTS = ("small", "large"), (1, 8)
Right = Callable[[int, int, random.Random], float]
"""Whether an option, by its place, is right on a question of this difficulty from 0 to 3."""


def by_kind(difficulty: int, option: int, rng: random.Random) -> float:
    """Right where the option is up to the question, which its colour tells and no lookup reads."""
    return float(rng.random() < (0.95 if option or difficulty < 2 else 0.05))


def by_chance(difficulty: int, option: int, rng: random.Random) -> float:
    return float(rng.random() < (0.6, 0.7)[option])


def rows_of(images: int, *, right: Right = by_kind, per_image: int = 1) -> Iterator[dict[str, Any]]:
    rng = random.Random(7)
    colours = ("red", "green", "violet", "orange")
    for image in range(images):
        for place in range(per_image):
            difficulty = rng.randrange(4)
            for option, cost in zip(OPTIONS, COSTS, strict=True):
                yield {
                    "id": f"{image}-{place}",
                    "question": f"Is the {colours[difficulty]} one there?",
                    "option": option,
                    "correct": right(difficulty, OPTIONS.index(option), rng),
                    "cost": cost,
                    "group": f"image {image}",
                }


def table(path: Path, rows: Iterator[dict[str, Any]], *, leave_out: str = "") -> Path:
    found = [{name: one for name, one in row.items() if name != leave_out} for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def numbered(output: str) -> list[str]:
    return re.findall(r"^\d\. (.*)$", output, re.MULTILINE)


def test_every_importer_is_a_kind() -> None:
    assert {*IMPORTERS, "run"} == set(KINDS)


def test_a_log_where_routing_pays_and_what_is_kept(invoke, here):
    """Five sentences and a page; again, it is only looked at; and its folder is nobody else's."""
    log = table(here / "answers.csv", rows_of(320))
    result = invoke("advise", "answers.csv", "--cost-unit", "USD")
    assert result.exit_code == 0, result.output
    told = numbered(result.output)
    assert len(told) == 5 and "table: 320 questions" in result.output
    assert told[0].startswith(("Routing pays: ", "A lookup is as good: "))
    assert "points" in told[0] and re.search(r"\([+-][\d.]+ to [+-][\d.]+\)", told[0])
    assert "best fixed" in told[1]
    assert "question-type lookup" in told[2] and "nearest neighbours" in told[2]
    assert "certified" in told[3] or "95 % confidence" in told[3]
    assert told[4].startswith("Next: ")
    run = Run(here / "answers-advice")
    page = (run.report_folder / "report.html").read_text(encoding="utf-8")
    assert told[0] in page and run.policy_names() == ["certified", "default"]
    assert invoke("check", run.root).exit_code == 0

    before = {path: path.stat().st_mtime_ns for path in run.arm().iterdir()}
    before[run.report_folder / "report.html"] = (
        (run.report_folder / "report.html").stat().st_mtime_ns
    )
    again = invoke("advise", "answers.csv", "--cost-unit", "USD")
    assert numbered(again.output) == told
    assert before == {path: path.stat().st_mtime_ns for path in before}

    log.rename(here / "other.csv")
    refused = invoke("advise", "other.csv", "--out", run.root)
    assert refused.exit_code == 2 and "holds the advice on" in refused.output
    (here / "mine").mkdir()
    (here / "mine" / "letter.txt").write_text("dear")
    refused = invoke("advise", "other.csv", "--out", "mine")
    assert refused.exit_code == 2 and "holds something else" in refused.output
    assert [path.name for path in (here / "mine").iterdir()] == ["letter.txt"]


def test_a_log_where_nothing_can_be_learned_from_the_question(invoke, here):
    table(here / "noise.csv", rows_of(60, right=by_chance))
    result = invoke("advise", "noise.csv")
    assert result.exit_code == 0, result.output
    told = numbered(result.output)
    assert "Routing pays" not in told[0] and len(told) == 5
    assert "Nothing can be certified" in told[3] and "59" in told[3]
    assert "fixed option" in told[4] or "one option" in told[4]


@pytest.mark.parametrize("images", [1, 4, 30])
def test_small_logs_end_in_a_verdict(invoke, here, images):
    table(here / "few.csv", rows_of(images))
    result = invoke("advise", "few.csv", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "too few" in result.output and "Routing pays" not in result.output
    assert re.search(r"about [\d,]+ (groups )?in all", result.output)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_all_right_or_all_wrong_is_a_verdict(invoke, here, score):
    table(here / "flat.csv", rows_of(40, right=lambda *_: score))
    result = invoke("advise", "flat.csv")
    assert result.exit_code == 0, result.output
    assert "cannot be learned" in result.output


def of_lmms_eval(here: Path) -> list[str]:
    """Runs of two options, as they lie where both were written to one place."""
    for row in rows_of(30):
        folder = here / "runs" / row["option"] / "maker__model"
        folder.mkdir(parents=True, exist_ok=True)
        line = {
            "doc_id": int(row["id"].split("-")[0]),
            "target": "yes",
            "doc_hash": row["id"],
            "filtered_resps": ["yes"],
            "input": row["question"],
            "exact_match": row["correct"],
        }
        with (folder / "20260101_120000_samples_gqa.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return ["--cost", "small=1", "--cost", "large=8"]


def of_vlmevalkit(here: Path) -> list[str]:
    for option in OPTIONS:
        rows = [row for row in rows_of(30) if row["option"] == option]
        frame = pd.DataFrame(
            {
                "index": [row["id"].split("-")[0] for row in rows],
                "question": [row["question"] for row in rows],
                "prediction": ["yes"] * len(rows),
                "hit": [row["correct"] for row in rows],
            }
        )
        folder = here / "outputs" / option
        folder.mkdir(parents=True)
        frame.to_csv(folder / f"{option}_MMStar_openai_result.tsv", sep="\t", index=False)
    return ["--cost", "small=1", "--cost", "large=8"]


def in_format(suffix: str, here: Path) -> Path:
    frame, path = pd.DataFrame(list(rows_of(30))), here / f"answers{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".xlsx":
        frame.to_excel(path, index=False)
    elif suffix == ".tsv":
        frame.to_csv(path, sep="\t", index=False)
    else:
        frame.to_json(path, orient="records", lines=suffix == ".jsonl")
    return path


def recognised(invoke, monkeypatch, *arguments: object) -> tuple[str, OracleLog]:
    """The kind that a log is taken for, and the log; nothing is learned from it."""
    seen: list[OracleLog] = []
    monkeypatch.setattr(advising, "_can_split", lambda log, seed: seen.append(log) or False)
    result = invoke("advise", *arguments)
    assert result.exit_code == 0, result.output
    return result.output.partition(":")[0], seen[0]


@pytest.mark.parametrize("suffix", [".tsv", ".json", ".jsonl", ".parquet", ".xlsx"])
def test_tables_of_every_format(invoke, here, monkeypatch, suffix):
    if suffix == ".xlsx":
        pytest.importorskip("openpyxl")
    kind, log = recognised(invoke, monkeypatch, in_format(suffix, here))
    assert (kind, len(log), log.options) == ("table", 30, OPTIONS)


def test_folders_of_runs_and_pairs(invoke, here, monkeypatch):
    costs = of_lmms_eval(here)
    ways = (["runs"], [f"{one}=runs/{one}" for one in OPTIONS], ["runs/small", "runs/large"])
    for number, way in enumerate(ways):
        kind, log = recognised(invoke, monkeypatch, *way, *costs, "--out", f"out{number}")
        assert (kind, len(log), log.options) == ("lmms-eval", 30, OPTIONS), way
    costs = of_vlmevalkit(here)
    for number, way in enumerate((["outputs"], ["outputs/*/*.tsv"], ["outputs/*"])):
        kind, log = recognised(invoke, monkeypatch, *way, *costs, "--out", f"kit{number}")
        assert (kind, len(log), log.options) == ("vlmevalkit", 30, OPTIONS), way


def test_runs_in_one_folder_are_told_apart_by_their_settings(invoke, here, monkeypatch):
    of_lmms_eval(here)
    one = here / "one"
    one.mkdir()
    for day, option in enumerate(OPTIONS, start=1):
        (found,) = (here / "runs" / option).rglob("*.jsonl")
        found.rename(one / f"2026010{day}_120000_samples_gqa.jsonl")
        settings = {"config": {"model": "m", "model_args": f"pretrained=x,max_pixels={option}"}}
        (one / f"2026010{day}_120000_results.json").write_text(json.dumps(settings))
    costs = ["--cost", "max_pixels small=1", "--cost", "max_pixels large=8"]
    kind, log = recognised(invoke, monkeypatch, "one", *costs)
    assert (kind, log.options) == ("lmms-eval", ("max_pixels small", "max_pixels large"))


def test_logs_of_our_own(invoke, here, monkeypatch, finished):
    log = OracleLog.read(finished / "log")
    export_log(log, here / "published")
    for place, kind in ((finished, "run"), (here / "published", "exported")):
        found, read = recognised(invoke, monkeypatch, place, "--out", f"{kind}-out")
        assert (found, read.options, len(read)) == (kind, log.options, len(log))
    made = Run(here / "run-out")  # with the features that were made when it was labelled
    assert set(made.features(made.log()).blocks) == {"image", "question"}
    scales = [{"name": n, "pixels": n * n, "correct": True} for n in (384, 768, 1152)]
    shared = {"dataset": "lines", "model": "m", "image": "a.png", "question": "How many?"}
    line = {"id": "a", "group": "a", **shared, "scales": scales}
    (here / "blind").mkdir()
    (here / "blind" / "oracle.jsonl").write_text(json.dumps(line) + "\n")
    for place in ("blind", "blind/oracle.jsonl"):
        found, read = recognised(invoke, monkeypatch, place, "--out", f"{place[:5]}-out")
        assert (found, read.cost_unit) == ("blindtest", "pixels")


WRONG = {
    "nothing there": (["answer.csv"], "answer.csv does not exist. Did you mean 'answers.csv'?"),
    "twice": (["answers.csv", "answers.csv"], "answers.csv is given twice"),
    "two tables": (["answers.csv", "more.csv"], "one path is read"),
    "another kind": (["notes.txt"], "the file ends in '.txt'. Known kinds: table (a row for each"),
    "an empty folder": (["empty"], "the folder is empty"),
    "a folder of tables": (["tables"], "holds 2 tables (a.csv, b.csv); give one of them"),
    "other columns": (["plain.csv"], "its columns are a, b, and a table needs id, question"),
    "questions alone": (["asked.csv"], "`m3router label --examples asked.csv` asks a model"),
    "an unknown kind": (["answers.csv", "--kind", "tabel"], "Did you mean 'table'?"),
    "the wrong kind": (["answers.csv", "--kind", "vlmevalkit"], "does not tell its model"),
    "no costs": (["free.csv"], "--cost small=NUMBER --cost large=NUMBER"),
    "one option": (["one.csv"], "one option, small, so there is nothing to choose between"),
    "one run": (["small=runs/small"], "is what one option answered"),
    "an unknown column": (["answers.csv", "--column", "idd=id"], "Did you mean 'id'?"),
    "of no use": (["answers.csv", "--metric", "acc"], "--metric: of no use for a log of the kind"),
    "no images": (["answers.csv", "--images", "nowhere"], "nowhere does not exist"),
    "two targets": (["answers.csv", "--max-loss", "1%", "--max-regret", "1%"], "one of the two"),
    "an encoder alone": (["answers.csv", "--encoder", "embedded"], "--images"),
    "half a pair": (["small="], "must be a path, or NAME=PATH"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_says_what_to_do(invoke, here, case):
    arguments, message = WRONG[case]
    table(here / "answers.csv", rows_of(30))
    table(here / "more.csv", rows_of(30))
    (here / "notes.txt").write_text("hello")
    (here / "plain.csv").write_text("a,b\n1,2\n")
    (here / "asked.csv").write_text("image,question,answers\na.png,Is it?,yes\n")
    (here / "empty").mkdir()
    (here / "tables").mkdir()
    for name in "ab":
        table(here / "tables" / f"{name}.csv", rows_of(4))
    table(here / "free.csv", rows_of(30), leave_out="cost")
    table(here / "one.csv", (row for row in rows_of(30) if row["option"] == "small"))
    of_lmms_eval(here)
    before = sorted(here.iterdir())
    result = invoke("advise", *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())
    assert sorted(here.iterdir()) == before  # nothing is left behind that blocks the next try
