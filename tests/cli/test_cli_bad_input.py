"""Degenerate logs through the command line: a sentence each, never a crash or an empty number.

Each kind is imported, looked at, featurized, trained on, calibrated and evaluated, and some with
every knob, compared, reported, studied and monitored; a stage may refuse it, but only in a sentence
of its own.
"""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Row = dict[str, Any]
OPTIONS = {"small": (1, 0.35), "medium": (4, 0.55), "large": (16, 0.75)}
NO_NUMBER = re.compile(r"(?<![\w/'.-])(nan|-?inf(inity)?|NaN|None)(?![\w'])")
NOISE = re.compile(r"Traceback|\w*Warning\b|site-packages|-\d{3,}(\.\d+)? %")
FOUR = "fit, tune, calibrate, test"


def questions(
    count: int = 60, options: Iterable[str] = OPTIONS, *, seed: int = 0, prefix: str = "q"
) -> list[Row]:
    """Long questions are harder; every question is in a group of its own."""
    random = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        hard = n % 2 == 0
        asked = "What colour is the tag" + " below the left one" * (2 if hard else 0) + f" {n}?"
        for option in options:
            cost, share = OPTIONS[option]
            right = int(random.random() < np.clip(share + (-0.3 if hard else 0.25), 0, 1))
            sure = round(float(np.clip(random.normal(0.45 + 0.4 * right, 0.1), 0.01, 0.99)), 3)
            rows.append(
                {
                    "id": f"{prefix}{n}",
                    "question": asked,
                    "option": option,
                    "correct": right,
                    "cost": cost,
                    "dataset": f"d{n % 3}",
                    "group": f"{prefix}{n}",
                    "answer": "yes" if right else "no",
                    "confidence": sure,
                    "logprob": -sure,
                }
            )
    return rows


def changed(rows: list[Row], **columns: Any) -> list[Row]:
    """Rows with other cells: values, or functions of the row."""
    return [
        {**row, **{name: new(row) if callable(new) else new for name, new in columns.items()}}
        for row in rows
    ]


def number(row: Row) -> int:
    return int(re.sub(r"\D", "", row["id"]))


def at(option: str, score: float) -> Callable[[Row], float]:
    return lambda row: score if row["option"] == option else row["correct"]


@dataclass(frozen=True)
class Kind:
    """A kind of log, and what must be said of it.

    Attributes:
        rows: Of the table.
        imported: What `import` and `inspect` say of it.
        train: What the error of `train` says; empty where it trains.
        evaluate: What `evaluate` says.
        calibrate: Knob -> what `calibrate` says with it.
        flags: Of `train`.
        estimator: Of `train`: the quickest, unless scores or features are what is degenerate.
        deep: Whether every stage and every knob is tried; else those that tell kinds apart.
    """

    rows: Callable[[], list[Row]]
    imported: str = ""
    train: str = ""
    evaluate: str = ""
    calibrate: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()
    estimator: str = "knn"
    deep: bool = False


KINDS = {
    "one option": Kind(
        lambda: questions(options=["small"]),
        imported="There is one option, small, so there is nothing to choose between",
        train="nothing to choose between",
    ),
    "equal costs": Kind(
        lambda: changed(questions(), cost=7),
        imported="Every answer costs 7, whatever the option: choosing cannot save anything",
        evaluate="AIQ: every option costs the same on the mean",
        calibrate=(("--budget 5", "The budget must be at least 7"),),
        deep=True,
    ),
    "some equal costs": Kind(
        lambda: changed(questions(), cost=lambda row: 1 if row["option"] == "small" else 9),
        imported="The options medium, large cost the same on every question",
    ),
    "no costs": Kind(
        lambda: changed(questions(), cost=0),
        imported="Answers cost nothing, whatever the option",
        evaluate="so that nothing can be saved",
    ),
    "no column of costs": Kind(
        lambda: [{k: v for k, v in row.items() if k != "cost"} for row in questions()],
        imported="no column 'cost'",
    ),
    "the most expensive is never right": Kind(
        lambda: changed(questions(), correct=at("large", 0)),
        imported="Option large is not right on any of its 60 questions",
        deep=True,
        estimator="logistic",
    ),
    "the cheapest is always right": Kind(
        lambda: changed(questions(), correct=at("small", 1)),
        imported="Option small is right on all of its 60 questions",
        estimator="logistic",
    ),
    "all are never right": Kind(
        lambda: changed(questions(), correct=0),
        imported="No option is right on any of the 60 questions",
        train="is wrong. Check the model",
    ),
    "all are always right": Kind(
        lambda: changed(questions(), correct=1),
        imported="Every option is right on every one of the 60 questions",
        train="suffices; use it fixed",
    ),
    "a dataset that occurs once": Kind(
        lambda: changed(questions(), dataset=lambda row: "rare" if number(row) == 5 else "common"),
        imported="Of 2 datasets, 1 has fewer than 4 groups (rare 1)",
    ),
    "fewer images than parts": Kind(
        lambda: questions(3),
        imported="There are 3 groups of questions, too few for a split into " + FOUR,
        train="needs at least 4 groups, got 3",
    ),
    "fewer images than folds": Kind(
        lambda: changed(questions(), group=lambda row: f"g{number(row) % 5}"),
        imported="There are 5 groups of questions, of which about 1 will be tested on",
        evaluate="1 test group is too few to tell",
        calibrate=(
            ("--budget 9 --escalate", "too few to learn when to stop"),
            ("--max-regret 0.2", "too small"),
        ),
        deep=True,
        estimator="logistic",
    ),
    "confidences that are no numbers": Kind(
        lambda: changed(
            questions(),
            confidence=lambda row: ("nan", "", "inf", "-1", "2")[number(row) % 5],
            logprob=lambda row: ("nan", "", "-inf", "1", "x")[number(row) % 5],
        ),
        imported="108 of 180 cells are not a number in [0, 1], first 'inf' in row 7",
        evaluate="confidence cascade: the log has no confidences",
        calibrate=(("--budget 9 --escalate", "The log has no confidences"),),
    ),
    "confidences that say nothing": Kind(
        lambda: changed(questions(), confidence=1.0, logprob=-1e300),
    ),
    "options missing for some questions": Kind(
        lambda: [row for place, row in enumerate(questions()) if place % 11 != 3],
        imported="17 of 60 ids lack some of the 3 options",
        flags=("--gaps", "drop"),
        deep=True,
    ),
    "options missing for all questions": Kind(
        lambda: [row for row in questions() if list(OPTIONS)[number(row) % 3] != row["option"]],
        imported="No question has a result at every option (of 60: small 40, medium 40, large 40)",
        train="complete examples of 60 in the log is in the",
        flags=("--gaps", "drop"),
    ),
    "an option without any score": Kind(
        lambda: changed(
            questions(), correct=lambda row: "" if row["option"] == "large" else row["correct"]
        ),
        imported="Option large has no score on any of the 60 questions",
        train="gaps in 60 of 60 examples",
    ),
    "questions that read alike": Kind(
        lambda: changed(questions(), question="What is it?"), estimator="logistic"
    ),
    "partial scores": Kind(
        lambda: changed(questions(), correct=lambda row: 0.4 * row["correct"] + number(row) / 200),
        estimator="logistic",
    ),
    "costs of very different size": Kind(
        lambda: changed(questions(), cost=lambda row: row["cost"] * 10.0 ** (number(row) % 25)),
    ),
}

REFUSED = {
    "costs beyond reach": (
        lambda: changed(questions(4), cost=1e300),
        "'cost' is beyond reach in 12 rows, first 1e+300 in row 1",
    ),
    "negative costs": (lambda: changed(questions(4), cost=-1), "must be a number of at least 0"),
    "costs that are no numbers": (
        lambda: changed(questions(4), cost="nan"),
        "'cost' must be a number of at least 0 in every row: 12 rows have none, first 'nan'",
    ),
    "scores above 1": (lambda: changed(questions(4), correct=2), "'correct' must be in [0, 1]"),
    "scores that are no numbers": (
        lambda: changed(questions(4), correct="nan"),
        "A cell without a value is empty",
    ),
    "empty questions": (lambda: changed(questions(4), question=" "), "'question' is empty"),
    "certain guesses": (lambda: changed(questions(4), chance=1), "'chance' must be below 1"),
    "rows twice": (
        lambda: questions(4) + questions(1),
        "3 (id, option) pairs are duplicate, first [('q0', 'small')",
    ),
    "no rows": (lambda: [], "holds no rows"),
}

QUESTION = ("--feature-group", "question", "--feature-group", "cheap", "--questions", "hashed")
KNOBS = (
    "--budget 9",
    "--max-loss 30%",
    "--max-loss-observed 1%",
    "--price 0.01",
    "--max-regret 0.3",
    "--cap 20",
    "--budget 9 --escalate",
)


@pytest.fixture
def ask(invoke):
    """Invoke a command that may refuse, but must do so in words."""

    def asked(*words: object, code: int | None = None) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("error", UserWarning)  # scikit-learn's are among them
            result = invoke(*words)
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            words,
            repr(result.exception),
        )
        assert result.exit_code in ((0, 2, 4, 5) if code is None else (code,)), result.output
        text = " ".join(result.output.split())
        assert not NOISE.search(text), (words, NOISE.search(text), text)
        shown = re.sub(r"'[^']*'", "", text)  # cells are quoted as they came
        given = " ".join(map(str, words))  # and so are values of options
        assert NO_NUMBER.search(given) or not NO_NUMBER.search(shown), (words, text)
        if result.exit_code == 2:
            assert "Error: " in text
        return text

    return asked


def write(rows: list[Row], path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    with path.open("w", newline="") as file:
        names = list(rows[0]) if rows else ["id", "question", "option", "correct"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def without_dashes(text: str) -> None:
    """A dash is a number that is not known: the output says why."""
    if re.search(r"(^|\s)–(\s|$)", text):
        assert re.search(r"AIQ: |gap closed: |No interval|–: |undefined|too few", text), text


@pytest.mark.parametrize("name", KINDS)
def test_a_degenerate_log_is_a_sentence_at_every_stage(ask, tmp_path, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "400")
    kind, run, fresh = KINDS[name], tmp_path / "run", tmp_path / "fresh"
    rows = kind.rows()
    said = ask("import", "table", write(rows, tmp_path / "t.csv"), "--out", run, code=0)
    assert kind.imported in said
    inspected = ask("inspect", run, "--draws", "20", code=0)
    if not kind.imported.startswith(("no column", "17 of", "108 of")):  # what could not be mapped
        assert kind.imported in inspected
    if kind.deep:
        json.loads(ask("inspect", run, "--draws", "20", "--json", code=0))
    ask("featurize", run, *QUESTION, code=0)
    train = ("train", run, "--estimator", kind.estimator, "--no-ablations", *kind.flags)
    trained = ask(*train, code=2 if kind.train else 0)
    assert kind.train in trained
    if kind.train:
        return
    for place, knob in enumerate(KNOBS if kind.deep else KNOBS[:1]):
        ask("calibrate", run, *knob.split(), "--policy", f"k{place}")
    for knob, expected in kind.calibrate:
        assert expected in ask("calibrate", run, *knob.split(), code=2)
    evaluated = ask("evaluate", run, "--draws", "20", code=0)
    assert kind.evaluate in evaluated
    without_dashes(evaluated)
    if not kind.deep:
        return
    without_dashes(ask("compare", run, run, "--draws", "20", code=0))
    for row in rows:
        row |= {"id": f"t{row['id']}", "group": f"t{row['group']}"}
    ask("import", "table", write(rows, tmp_path / "f.csv"), "--out", fresh, code=0)
    ask("featurize", fresh, *QUESTION, code=0)
    ask("monitor", run, "--traffic", fresh, "--policy", "k3")


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_be_used_are_refused_in_a_sentence(ask, tmp_path, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "400")
    rows, expected = REFUSED[name]
    table = write(rows(), tmp_path / "t.csv")
    assert expected in ask("import", "table", table, "--out", tmp_path / "run", code=2)
    assert not (tmp_path / "run" / "log").exists()


def trained(ask, tmp_path: Path, rows: list[Row], *, name: str = "run") -> Path:
    run = tmp_path / name
    ask("import", "table", write(rows, tmp_path / "t.jsonl"), "--out", run, code=0)
    ask("featurize", run, *QUESTION, code=0)
    ask("train", run, "--estimator", "knn", "--no-ablations", code=0)
    return run


CURVE = ("--share", "0.04", "--seeds", "1", "--draws", "20")


@pytest.mark.parametrize(
    ("rows", "command", "code", "expected"),
    [
        (
            lambda: changed(questions(), cost=7),
            ("learning-curve", *CURVE),
            2,
            "every option costs 7 on the mean: there is no curve",
        ),
        (
            lambda: changed(questions(), cost=7),
            ("leave-one-out", "--draws", "20"),
            2,
            "every option costs 7 on the mean: there is no curve",
        ),
        (
            questions,
            ("learning-curve", *CURVE),
            0,
            "0.04 of the labels, seed 0: A router cannot be learned",
        ),
        (
            lambda: changed(questions(), dataset=lambda row: "rare" if number(row) == 5 else "d"),
            ("leave-one-out", "--draws", "20"),
            0,
            "rare: It is missing from the fit, calibrate or test split",
        ),
        (
            lambda: changed(questions(6), dataset=lambda row: row["id"]),
            ("leave-one-out", "--draws", "20"),
            0,
            "Of the 6, none can be left out, for the reasons above",
        ),
    ],
)
def test_studies_of_what_cannot_be_studied(
    ask, tmp_path, monkeypatch, rows, command, code, expected
):
    monkeypatch.setenv("COLUMNS", "400")
    run = trained(ask, tmp_path, rows())
    assert expected in ask("study", command[0], run, *command[1:], code=code)


def test_one_test_question_has_no_interval_and_no_dash_for_one(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    run = trained(ask, tmp_path, questions(6))
    said = ask("evaluate", run, "--draws", "20", code=0)
    assert "Only 1 test group: there are no intervals" in said
    assert "1 held-out" in said and "(–)" not in said and "interval –" not in said
    few = "1 cannot be divided into those to fit on and those to stop at"
    assert few in ask("tune", run, "--trials", "1", "--folds", "2", code=2)
    ask("report", run, code=0)


def test_budgets_that_are_no_numbers_or_alike(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    run = trained(ask, tmp_path, questions())
    for value in ("nan", "-1"):
        assert "budget must be" in ask("evaluate", run, "--budget", value, code=2).lower()
        assert "budget must be" in ask("compare", run, run, "--budget", value, code=2).lower()
        for knob in ("--budget", "--price", "--max-loss", "--max-regret", "--cap"):
            ask("calibrate", run, knob, value, code=2)
    said = ask("evaluate", run, "--budget", "4", "--budget", "4.0", "--draws", "20", code=0)
    assert said.count("router, at most 4 ") == 1
