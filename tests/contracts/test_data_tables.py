"""A new metric, benchmark or importer is one file and one line of a literal table, nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.importers import IMPORTERS, importer
from m3router.data.scoring.metrics import METRICS, Expects, MetricEntry, load_metric
from m3router.data.sources.benchmarks.table import BENCHMARKS, benchmark
from m3router.data.sources.fetching import fetch_benchmark
from m3router.data.sources.hub import Origin
from m3router.data.sources.jsonl import load_jsonl

METRIC = '''
"""A toy: an answer is right by its length."""

from m3router.data.texts import on_clean_texts


@on_clean_texts
def score_length(answer, answers, choices=()):
    return float(len(answer) in map(len, answers))
'''
BENCHMARK = '''
"""A toy benchmark."""

from m3router.data.sources.benchmarks.base import Benchmark, RawExample


def read_toy(row):
    return RawExample(
        id=row["number"], question=row["asked"], answers=(row["said"],), image=row["image"]
    )


TOY = Benchmark(
    title="Toy",
    hub="nobody/toy",
    split="test",
    columns=("number", "asked", "said", "image"),
    read=read_toy,
    metric="exact",
    max_new_tokens=4,
)
'''
IMPORTER = '''
"""A toy importer: lines of id, option and score."""

import pandas as pd

from m3router.data.log.oracle_log import OracleLog


def read_toy_log(path):
    lines = [line.split() for line in path.read_text().splitlines()]
    rows = [
        {"example_id": name, "group": name, "dataset": "toy", "question": "?", "image": "",
         "scale": option, "cost": float(option), "score": float(score), "chance": 0.0}
        for name, option, score in lines
    ]
    options = sorted({row["scale"] for row in rows}, key=float)
    return OracleLog(pd.DataFrame(rows), options=options, cost_unit="tokens")
'''


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


Add = Callable[[str, str], None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Write a file of a contributor's where it can be imported."""
    folder = tmp_path / "contributed"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(name: str, text: str) -> None:
        (folder / f"{name}.py").write_text(text, encoding="utf-8")

    return write


def test_a_metric_is_one_file_and_one_line(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("toy_metric", METRIC)
    monkeypatch.setitem(METRICS, "length", MetricEntry("toy_metric:score_length"))
    example = Example(id="a", image="a.png", question="?", answers=("cat",), metric="length")
    assert example.score(" dog ") == 1.0
    assert example.score("mouse") == load_metric("length")("mouse", ["cat"]) == 0.0
    assert example.chance_level == 0.0
    assert Example.from_dict(example.to_dict()) == example


@pytest.mark.parametrize("expects", Expects)
def test_what_a_metric_expects_of_references_is_in_its_line(
    expects: Expects, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("toy_metric", METRIC)
    monkeypatch.setitem(METRICS, "length", MetricEntry("toy_metric:score_length", expects))
    refused = {
        Expects.SEVERAL_PEOPLE: "of several people",
        Expects.YES_OR_NO: "needs the answer 'yes' or 'no'",
        Expects.LETTERS: "needs a capital",
        Expects.LETTERS_OR_TEXTS: "needs a capital",
        Expects.CHOICES: "needs a letter or one of",
    }
    fields = {"id": "a", "image": "a.png", "question": "?", "metric": "length"}
    if expects in refused:
        with pytest.raises(DataError, match=refused[expects]):
            Example(**fields, answers=("a cat here",), choices=("x", "y"))  # type: ignore[arg-type]
    else:
        Example(**fields, answers=("a cat here",), choices=("x", "y"))  # type: ignore[arg-type]


def test_a_benchmark_is_one_file_and_one_line(
    add: Add, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add("toy_benchmark", BENCHMARK)
    monkeypatch.setitem(BENCHMARKS, "toy", "toy_benchmark:TOY")
    assert benchmark("toy").title == "Toy"
    rows = [
        {"number": str(n), "asked": f"What {n}?", "said": "cat", "image": {"bytes": png(n)}}
        for n in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "toy.parquet")
    fetched = fetch_benchmark(
        "toy", folder=tmp_path / "out", origin=Origin(files=(tmp_path / "toy.parquet",))
    )
    examples = load_jsonl(fetched.examples, images=fetched.images)
    assert [one.id for one in examples] == ["toy-0", "toy-1", "toy-2"]
    assert {one.metric for one in examples} == {"exact"} and examples[0].score("Cat.") == 1.0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["params"]["benchmark"] == (
        "toy"
    )


def test_an_importer_is_one_file_and_one_line(
    add: Add, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add("toy_importer", IMPORTER)
    monkeypatch.setitem(IMPORTERS, "toy", "toy_importer:read_toy_log")
    (tmp_path / "log.txt").write_text("a 1 0\na 9 1\nb 1 1\nb 9 1\n", encoding="utf-8")
    log = importer("toy")(tmp_path / "log.txt")
    assert log.options == ("1", "9") and log.scores.tolist() == [[0, 1], [1, 1]]
    log.write(tmp_path / "log")
    assert type(log).read(tmp_path / "log").scores.tolist() == log.scores.tolist()


def test_every_line_of_the_tables_can_be_imported() -> None:
    for table, load in ((BENCHMARKS, benchmark), (IMPORTERS, importer), (METRICS, load_metric)):
        for name in table:
            assert load(name) is not None
