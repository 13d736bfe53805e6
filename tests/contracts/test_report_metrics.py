"""A metric of the report is one entry of one table: the document and every output follow it."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.split import split_by_group
from m3router.router.cli import console
from m3router.router.evaluation import metric_table, row_metrics
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.metric_table import METRICS, Measured, Metric
from m3router.router.evaluation.row_metrics import ROW_METRICS, RowMetric
from m3router.router.features.table import FeatureTable
from m3router.router.reports import tables
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage

OPTIONS = ("1", "9", "36")
TITLE = "mean points of the curve"


def points_of_the_curve(one: Measured) -> dict[str, float]:
    """A toy: the plain mean of the accuracies of a curve's points."""
    accuracy = one.table.columns.pair(f"curve-accuracy/{one.name}")
    return one.estimated(accuracy.then(lambda means: means.mean(axis=-1)))


TOY = Metric(name="toy_mean", title=TITLE, function=points_of_the_curve, digits=3)


def simulated_log(n: int = 240) -> tuple[OracleLog, FeatureTable]:
    generator = np.random.default_rng(5)
    need = generator.standard_normal(n)
    detail = np.array([-1.0, 0.0, 1.0])
    right = generator.random((n, 3)) < 1 / (1 + np.exp(-4 * (detail - need[:, None])))
    frame = pd.DataFrame(
        {
            "example_id": np.repeat([f"e{i}" for i in range(n)], 3),
            "group": np.repeat([f"g{i}" for i in range(n)], 3),
            "dataset": "toy",
            "question": "how many?",
            "image": np.repeat([f"g{i}.png" for i in range(n)], 3),
            "scale": list(OPTIONS) * n,
            "cost": np.tile([1.0, 9.0, 36.0], n),
            "score": right.astype(float).ravel(),
            "chance": 0.0,
            "error": None,
        }
    )
    log = OracleLog(frame, options=OPTIONS, cost_unit="visual tokens", metadata={"model": "toy"})
    blocks = {"image": need[:, None], "question": generator.standard_normal((n, 1))}
    return log, FeatureTable(ids=log.ids, blocks=blocks, metadata={"source": "toy"})


ROW_TITLE = "twice as right"
ROW_TOY = RowMetric(
    name="twice",
    title=ROW_TITLE,
    function=lambda table, row: {
        key: None if value is None else 2 * value
        for key, value in table.columns.estimate(f"accuracy/{row}").to_dict().items()
    },
    console="twice\nright",
    column="twice",
)


@dataclass(frozen=True)
class Reported:
    """A run that was evaluated while both tables held a toy."""

    run: Run
    document: dict[str, Any]
    page: str
    methods: str
    headline: str


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Reported:
    run = Run(tmp_path_factory.mktemp("toys") / "run")
    log, features = simulated_log()
    log.write(run.log_folder)
    features.write(run.features_folder)
    train_stage(run, estimator="logistic")
    calibrate_stage(run, budget=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_table, "METRICS", (*METRICS, TOY))
        patch.setattr(row_metrics, "ROW_METRICS", (*ROW_METRICS, ROW_TOY))
        document = evaluate_stage(run, draws=20)
        page = report_stage(run).read_text(encoding="utf-8")
        shown = []
        for show in (console.show_methods, console.show_headline):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                show(document)
            shown.append(out.getvalue())
    return Reported(run, document, page, *shown)


def test_one_entry_is_in_the_document_on_the_console_the_page_and_in_files(reported):
    run, document = reported.run, reported.document
    methods = {
        name: method for name, _, method in tables.methods(document) if method.get("metrics")
    }
    assert {"router", "image-only", "dataset lookup"} <= set(methods)
    for method in methods.values():
        mean = np.mean(method["curve"]["accuracy"])
        assert method["metrics"]["toy_mean"]["value"] == pytest.approx(mean)
    value = methods["router"]["metrics"]["toy_mean"]["value"]

    assert TITLE in reported.methods
    assert re.search(rf"router .*\b{100 * value:.1f}", reported.methods)

    assert f'<th scope="col">{TITLE}</th>' in reported.page
    assert f"<b>{100 * value:.3f}</b>" in reported.page
    with (run.report_folder / "tables/baselines.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert float(rows["router"]["toy_mean"]) == value
    assert float(rows["router"]["toy_mean_low"]) < value < float(rows["router"]["toy_mean_high"])
    latex = (run.report_folder / "tables/baselines.tex").read_text(encoding="utf-8")
    assert "toy mean" in latex and f"{value:.4g}" in latex


def test_so_is_a_metric_of_a_row(reported):
    run, document = reported.run, reported.document
    for row in document["rows"]:
        assert row["twice"]["value"] == 2 * row["accuracy"]["value"]
    value = document["rows"][0]["twice"]["value"]
    text = reported.headline
    assert re.search(rf"fixed 1 .*\b{100 * value:.1f}", text) and "twice" in text
    assert f'<th scope="col">{ROW_TITLE}</th>' in reported.page
    assert f"<b>{100 * value:.1f}</b>" in reported.page
    with (run.report_folder / "tables/headline.csv").open(encoding="utf-8", newline="") as file:
        assert float(next(csv.DictReader(file))["twice"]) == value
    assert "twice" in (run.report_folder / "tables/headline.tex").read_text(encoding="utf-8")


def test_a_report_without_images_says_nothing_about_them(reported):
    assert "<img" not in reported.page
    assert (reported.run.report_folder / "report.html").is_file()


def test_a_metric_that_needs_probabilities_is_none_without_them_and_the_rest_goes_on(monkeypatch):
    needy = Metric(
        name="needy",
        title="needy",
        function=lambda one: one.method.p.mean(),
        needs=("probabilities",),
    )
    own = Metric(name="own", title="own", function=lambda one: 1.0, of="router")
    monkeypatch.setattr(metric_table, "METRICS", (*METRICS, needy, own))
    log, features = simulated_log(120)
    frame = log.frame
    frame["confidence"], frame["logprob"] = 0.5, -0.5
    log = OracleLog(frame, options=OPTIONS, cost_unit="visual tokens", metadata={})
    p = np.full(log.scores.shape, 0.5)
    document = evaluate(
        log, p, split=split_by_group(log.groups, seed=0), settings=Settings(draws=20)
    )
    assert document["metrics"]["needy"] == 0.5
    assert document["metrics"]["own"] == 1.0
    cascade = document["baselines"]["confidence cascade"]["metrics"]
    assert cascade["needy"] is None
    assert "own" not in cascade
    lines = {line["key"]: line for line in tables.method_lines(document)}
    assert lines["router"]["needy"]["value"] == 0.5
    assert lines["confidence cascade"]["needy"]["value"] is None


def test_names_and_titles_are_each_there_once():
    for values in ([one.name for one in METRICS], [one.title for one in METRICS]):
        assert len(values) == len(set(values))
