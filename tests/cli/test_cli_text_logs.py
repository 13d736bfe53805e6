"""Logs of text models: what they are told, cascades on them, and tables of any width."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3router.data.log.oracle_log import OracleLog
from m3router.router.cli.console import print_table

WORDS = re.compile(r"\b(picture|image|scale|finer|finest|coarse\w*|visual|vision)s?\b", re.I)
TOPICS = {"biology": (0.8, 0.85), "law": (0.3, 0.8), "a topic with a long name": (0.5, 0.9)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of different price, with confidences that tell right from wrong."""
    random = np.random.default_rng(0)
    lines = ["id,question,option,correct,cost,dataset,confidence,logprob"]
    for n in range(240):
        topic = list(TOPICS)[n % 3]
        for option, cost, share in zip(
            ("weak-7b", "strong"), (0.1, 10), TOPICS[topic], strict=True
        ):
            right = int(random.random() < share)
            sure = round(float(np.clip(random.normal(0.45 + 0.4 * right, 0.1), 0.01, 0.99)), 3)
            asked = f"What of {topic} is number {n}?"
            lines.append(f"q{n},{asked},{option},{right},{cost},{topic},{sure},{-sure}")
    path = tmp_path_factory.mktemp("text") / "answers.csv"
    path.write_text("\n".join(lines))
    return path


def test_text_logs_are_told_about_groups_and_options(invoke, table, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run, page = tmp_path / "run", tmp_path / "log.html"
    said = {}
    for words in (
        ["import", "table", table, "--cost-unit", "USD", "--out", run],
        [
            "featurize",
            run,
            "--feature-group",
            "question",
            "--feature-group",
            "cheap",
            "--questions",
            "hashed",
        ],
        ["train", run, "--estimator", "logistic", "--no-ablations"],
        ["calibrate", run, "--max-loss-observed", "1%"],
        ["calibrate", run, "--max-loss", "30%", "--policy", "net"],
        ["calibrate", run, "--max-regret", "0.3", "--policy", "kept"],
        ["calibrate", run, "--max-regret", "0.001"],
        ["evaluate", run, "--draws", "20"],
        ["report", run],
        ["inspect", run, "--draws", "20", "--html", page],
        ["compare", run, run, "--draws", "20"],
        ["check", run],
    ):
        result = invoke(*words)
        assert result.exit_code == (2 if "0.001" in words else 0), result.output
        said[" ".join(map(str, words[:1]))] = result.output
        lines = result.output.replace(str(tmp_path), "").splitlines()
        wrong = [line for line in lines if WORDS.search(line) and "model embedded" not in line]
        assert not wrong, (words, wrong)
        assert "…" not in result.output, words
    assert "not available: confidence cascade" not in said["evaluate"]
    assert "calibrated cascade" in said["evaluate"]
    assert "48 held-out questions." in said["evaluate"]
    assert "48 test groups are too few" in said["evaluate"]
    assert "What of a topic with a long name is number" in said["inspect"]
    for html in (run / "report" / "report.html", page):
        shown = re.sub(r"<(script|style|svg).*?</\1>|<[^>]+>", " ", html.read_text(), flags=re.S)
        shown = re.sub(r"asked_sha256:.*?\n", " ", shown)  # how features were made, as recorded
        assert not WORDS.search(shown), WORDS.search(shown)


def test_skip_bad_and_patterns(invoke, table, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text(table.read_text() + "\nq999,Why?,strong,perhaps,10,law,0.5,-1\n")
    result = invoke("import", "table", bad, "--out", tmp_path / "run")
    assert result.exit_code == 2 and "--skip-bad leaves these rows out" in result.output
    result = invoke("import", "table", bad, "--skip-bad", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "240 examples" in result.output
    assert "1 of 481 rows are bad and were left out" in " ".join(result.output.split())
    head = "index\tquestion\tprediction\thit\n"
    for model in ("a", "b"):
        for name in ("MMStar", "POPE"):
            (tmp_path / f"{model}_{name}_result.tsv").write_text(f"{head}0\tWhich?\tA\t1\n")
    sources = [f"{model}={tmp_path}/{model}_*.tsv" for model in ("a", "b")]
    result = invoke("import", "vlmevalkit", *sources, "--out", tmp_path / "both")
    assert result.exit_code == 0, result.output
    assert "2 examples with the options a, b" in result.output


@pytest.mark.parametrize("command", ["import", "label", "train", "tune", "evaluate", "featurize"])
def test_no_help_is_cut(invoke, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke(command, "--help").output
    assert "Options" in shown and "…" not in shown


CELLS = ["router, at most 0.625 of the cost", "55.0", "45.5–64.2", "what is it, and why? " * 9]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", [200, 80, 50, 20])
def test_no_cell_of_a_table_is_cut(width: int, terminal: bool) -> None:
    shown = io.StringIO()
    console = Console(
        file=shown, width=width, force_terminal=terminal, soft_wrap=True, color_system=None
    )
    table = Table(box=None, pad_edge=False)
    for name in ("answered by", "accuracy %", "95 %\ninterval", "question"):
        table.add_column(name)
    table.add_row(*map(Text, CELLS))
    table.add_row("x", "1", "2", "3")
    print_table(table, console)
    said = shown.getvalue()
    assert "…" not in said
    letters = "".join(said.split())
    for cell in CELLS[1:3]:
        assert cell in said  # numbers stay whole
    for word in " ".join(CELLS).split():
        assert word in letters
    if not terminal:
        assert CELLS[0] in said and CELLS[3].strip() in said  # a row is a line
        assert len(said.splitlines()) == 4


def test_costs_and_prices_of_an_import(invoke, tmp_path):
    head = "index\tquestion\tprediction\thit\tinput_tokens\toutput_tokens\n"
    for model, tokens in (("a_7b", "600\t40"), ("b", "90\t2")):
        path = tmp_path / f"{model}_MMStar_openai_result.tsv"
        path.write_text(head + "".join(f"{n}\tWhat?\tA\t{n % 2}\t{tokens}\n" for n in range(4)))
    run, files = tmp_path / "run", tmp_path / "*_result.tsv"
    result = invoke("import", "vlmevalkit", files, "--cost", "tokens", "--out", run)
    assert "options b, a_7b (cost in tokens)" in result.stdout
    assert OracleLog.read(run / "log").costs[0].tolist() == [92, 640]
    prices = ["--price", "a_7b=1,1", "--price", "b=10,10,5"]
    result = invoke("import", "vlmevalkit", files, *prices, "--out", run)
    assert "options a_7b, b (cost in USD)" in result.stdout
    for wrong, said in {
        ("--cost", "tokens", "--cost", "b=1"): "give it alone, or OPTION=NUMBER",
        ("--price", "b=1"): "INPUT,OUTPUT or INPUT,OUTPUT,CACHED",
        ("--price", "c=1,2"): "Prices were given for",
    }.items():
        result = invoke("import", "vlmevalkit", files, *wrong, "--out", run)
        assert result.exit_code and said in " ".join(result.output.replace("│", " ").split())
