"""What is saved in the language model alone and in everything, where towers cost by option."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from m3router.data.errors import NotLearnableError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import require_choice
from m3router.data.log.warnings import log_warnings, same_options
from m3router.data.splits.split import split_by_group
from m3router.router.cli.console import show_headline, show_usage
from m3router.router.evaluation.documents import upgraded
from m3router.router.evaluation.evaluate import SCHEMA, Settings, evaluate
from m3router.router.evaluation.usage import ENCODED, LogUsage
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.policies.outcomes import Asked
from m3router.router.reports.latex import latex_table
from m3router.router.reports.log_summary import inspect_log
from m3router.router.reports.log_summary_tables import csv_files, shown_tables
from m3router.router.reports.tables import headline_table, usage_table
from m3router.router.text.words import words_of
from m3router.router.training.fit import warn_of_constants

OPTIONS = ("low", "high", "full")
LANGUAGE = np.array([1.0, 4.0, 10.0])
TOWER = np.array([2.0, 6.0, 30.0])
VLM = {"spec": {"kind": "vlm", "name": "tiny"}, "model": "tiny"}


def log_of(n: int = 120, *, metadata: dict | None = None, **columns: object) -> OracleLog:
    """One question of three needs the finest option, which is wrong on another."""
    size = 1 + np.arange(n) % 2  # every other image is twice as large
    scores = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])[np.arange(n) % 3]
    wide = {
        "score": scores,
        "cost": size[:, None] * np.array([10.0, 40.0, 100.0]),
        "flops": np.broadcast_to(1e9 * LANGUAGE, (n, 3)),
        "vision_flops": 1e9 * size[:, None] * TOWER,
        **columns,
    }
    frame = pd.DataFrame(
        {
            "example_id": np.repeat([f"e{i}" for i in range(n)], 3),
            "group": np.repeat([f"g{i}" for i in range(n)], 3),
            "dataset": "toy",
            "question": "how many?",
            "image": np.repeat([f"g{i}.png" for i in range(n)], 3),
            "scale": list(OPTIONS) * n,
            "chance": 0.0,
            "error": None,
            **{name: np.broadcast_to(value, (n, 3)).ravel() for name, value in wide.items()},
        }
    )
    return OracleLog(
        frame,
        options=OPTIONS,
        cost_unit="image tokens",
        metadata=VLM if metadata is None else metadata,
    )


def measured(log: OracleLog, *, encoder: float = 0.0, **more: object) -> dict:
    """The router knows which questions need the finest option."""
    p = np.where(log.scores == 1, 0.9, 0.1)
    return evaluate(
        log,
        p,
        split=split_by_group(log.groups, seed=0),
        gflops=log.flops / 1e9,
        usage=LogUsage.of(log, encoder=encoder),
        settings=Settings(draws=20, budgets=(80.0,)),
        **more,
    )


def rows_of(document: dict) -> dict:
    return {row["name"]: row for row in document["rows"]}


@pytest.fixture(scope="module")
def document() -> dict:
    return measured(log_of(seconds=np.array([0.5, 1.0, 4.0]), price=[1e-4, 2e-4, 4e-4]))


def test_both_savings_by_hand(document):
    log = log_of()
    test = split_by_group(log.groups, seed=0).part("test")
    size, hard = (1 + test % 2).astype(float), test % 3 == 0
    row = rows_of(document)["oracle (raw)"]
    choice = np.where(hard, 2, 0)
    language = LANGUAGE[choice].mean()
    everything = (LANGUAGE[choice] + size * TOWER[choice]).mean()
    finest = (LANGUAGE[2] + size * TOWER[2]).mean()
    assert row["gflops"]["value"] == pytest.approx(language)
    assert row["tower_gflops"]["value"] == pytest.approx((size * TOWER[choice]).mean())
    assert row["total_gflops"]["value"] == pytest.approx(everything)
    assert row["saved_gflops"]["value"] == pytest.approx(1 - language / LANGUAGE[2])
    assert row["saved_total_gflops"]["value"] == pytest.approx(1 - everything / finest)
    assert row["saved_seconds"]["value"] == pytest.approx(1 - np.where(hard, 4, 0.5).mean() / 4)
    assert row["price"]["value"] == pytest.approx(np.where(hard, 4e-4, 1e-4).mean())
    for name in ("saved_gflops", "saved_total_gflops"):
        assert row[name]["low"] < row[name]["value"] < row[name]["high"]
    full = rows_of(document)["full"]
    assert full["saved_total_gflops"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert full["image_tokens"] is None  # the log has no such numbers
    # without chance the corrected oracle is the same way of choosing, and uses the same
    corrected = rows_of(document)["oracle (chance-corrected)"]
    for name in ("gflops", "total_gflops", "seconds", "price"):
        assert corrected[name]["value"] == pytest.approx(row[name]["value"])


def test_the_tower_of_a_matryoshka_model_is_always_paid_and_once():
    once = np.broadcast_to(30e9 * (1 + np.arange(120) % 2)[:, None], (120, 3))
    document = measured(log_of(metadata={"model": "m3"}, vision_flops=once))
    for row in document["rows"]:
        total = row["gflops"]["value"] + row["tower_gflops"]["value"]
        assert row["total_gflops"]["value"] == pytest.approx(total)
    oracle = rows_of(document)["oracle (raw)"]
    assert 0 < oracle["saved_total_gflops"]["value"] < oracle["saved_gflops"]["value"] / 2
    assert "routing cannot save them" in document["tower"]["text"]
    assert document["tower"]["once"]


def test_whatever_is_asked_again_runs_its_tower_again_unless_one_pass_serves_all():
    log = log_of(4)
    asked = Asked(
        first=np.zeros(4, dtype=int),
        final=np.full(4, 2),
        options=np.tile([True, False, True], (4, 1)),
    )
    size = 1 + np.arange(4) % 2
    usage = LogUsage.of(log, encoder=0.25)
    spent = usage.spent(asked, reads=("question",), language=np.full(4, 11.0))
    assert spent["tower_gflops"].tolist() == (32 * size).tolist()
    assert spent["total_gflops"].tolist() == (11 + 32 * size).tolist()
    own = usage.spent(asked, reads=("image",), language=np.full(4, 11.0))
    assert own["total_gflops"].tolist() == (11.25 + 32 * size).tolist()
    shared = LogUsage(tower=log.vision_flops / 1e9, once=True)
    assert shared.spent(asked, reads=(), language=None)["tower_gflops"].tolist() == (
        (30 * size).tolist()
    )


def test_what_is_not_known_is_never_0():
    partly = np.broadcast_to([0.5, np.nan, 4.0], (120, 3))
    document = measured(log_of(seconds=partly, vision_flops=np.nan))
    rows = rows_of(document)
    assert rows["high"]["seconds"] is None and rows["low"]["seconds"]["value"] == 0.5
    assert all(row["total_gflops"] is None for row in document["rows"])
    assert "not known" in document["tower"]["text"]
    unknown = measured(log_of(), encoder=float("nan"), reads={"router": ("image",)})
    assert rows_of(unknown)["budget 80"]["total_gflops"] is None
    assert rows_of(unknown)["full"]["total_gflops"]["value"] > 0
    assert "image encoder computes is not known" in unknown["tower"]["text"]
    json.dumps(unknown, allow_nan=False)


def test_every_way_of_choosing_is_in_the_table_and_on_the_console(document, capsys):
    table = usage_table(document)
    names = [name for name, _, _ in table.rows]
    assert {"fixed low", "router, at most 80", "oracle (raw)"} <= set(names)
    assert {"dataset lookup, budget 80", "best fixed per dataset"} <= set(names)
    columns = [metric.name for metric in table.metrics]
    assert columns[2:7] == [
        "gflops",
        "saved_gflops",
        "tower_gflops",
        "total_gflops",
        "saved_total_gflops",
    ]
    assert "image_tokens" not in columns
    show_usage(document)
    said = capsys.readouterr().out
    assert "saved of what the last option, full, uses" in said
    assert "decides before encoding" in said


def test_image_tokens_that_are_the_cost_have_no_column_of_their_own():
    tokens = log_of().costs
    columns = [one.name for one in usage_table(measured(log_of(image_tokens=tokens))).metrics]
    assert "cost" in columns and "image_tokens" not in columns
    markers = [one.name for one in usage_table(measured(log_of(image_tokens=tokens + 2))).metrics]
    assert "image_tokens" in markers


def test_documents_of_before_tell_one_tower_cost(document):
    rows = [{"name": "1", "kind": "fixed", "gflops": {"value": 2.0, "low": 1.0, "high": 3.0}}]
    old = {"schema": 5, "options": ["1", "9"], "vision_gflops": 5.0, "rows": rows}
    found = upgraded(old)
    assert found["rows"][0]["total_gflops"] == {"value": 7.0, "low": None, "high": None}
    assert "whatever the option" in found["tower"]["text"] and found["finest"] == "9"
    assert upgraded(found) == found
    unknown = upgraded({**old, "vision_gflops": None})
    assert "total_gflops" not in unknown["rows"][0] and "not known" in unknown["tower"]["text"]
    assert document["schema"] == SCHEMA and upgraded(document) == document


def test_words_and_blocks():
    assert not words_of(log_of(3)).scales and words_of(log_of(3)).images
    assert words_of(log_of(3, metadata={"model": "m3"})).scales
    encoded = [name for name, group in FEATURE_GROUPS.items() if group.of_encoding is not None]
    assert encoded == [ENCODED]


def test_inspection_tells_what_every_option_used_and_which_tie():
    n = 40
    costs = np.tile([10.0, 40.0, 40.0], (n, 1))
    costs[:10, 2] = 100.0
    origin = np.array([["counted"] * 3] * n, dtype=object)
    origin[:10, 1] = "reported"
    log = log_of(
        n,
        cost=costs,
        answer="yes",
        image_tokens=costs + 2,
        image_tokens_from=origin,
        text_tokens=8.0,
        cached_tokens=[2.0, np.nan, 0.0],
        seconds=[0.5, 1.0, 4.0],
        attempts=[1.0, 2.0, 1.0],
    )
    found = inspect_log(log, draws=10)
    low, high, full = found.usage
    assert (low.cost, low.image_tokens, low.seconds, low.cached) == (10, 12, 0.5, 0.1)
    assert (high.counted, high.reported, high.attempts, high.cached) == (0.75, 0.25, 2.0, None)
    assert full.cached == 0.0 and full.price is None
    assert (low.gflops, low.tower_gflops) == (1.0, 3.0)
    last = found.ties[1]
    assert (found.ties[0].tied, last.both, last.tied, last.answers, last.same) == (0, n, 30, 30, 30)
    shown = {one.title: one for one in shown_tables(found)}
    assert "price" not in shown["What answers used"].header
    assert "75.0 % counted, 25.0 % reported" in shown["What answers used"].rows[1]
    assert shown["Options of equal cost"].rows == [["high → full", "40", "30", "75.0", "100.0"]]
    assert {"usage", "ties"} <= set(csv_files(found))


def test_options_that_change_nothing_are_told_and_not_trained_on(caplog):
    tied = [10.0, 40.0, 40.0]
    told = "The options high, full cost the same and gave the same answer on every question"
    log = log_of(cost=tied, answer=np.array(["no", "yes", "yes"], dtype=object))
    assert told in " ".join(log_warnings(log))
    other = log_of(cost=tied, answer=np.array(["no", "yes", "maybe"], dtype=object))
    assert not same_options(other)
    assert "between them only accuracy counts" in " ".join(log_warnings(other))
    require_choice(log)
    warn_of_constants(log, np.arange(len(log)))
    assert told in caplog.text
    with pytest.raises(NotLearnableError, match="low, high, full cost the same .* leave all but"):
        require_choice(log_of(cost=5.0, answer="yes"))


def test_latency_throughput_and_price_stand_beside_the_cost_everywhere(document, capsys):
    full = rows_of(document)["full"]
    assert full["per_second"]["value"] == pytest.approx(1 / full["seconds"]["value"])
    header, rows = headline_table(document)
    assert {"seconds", "answers_per_second", "price"} <= set(header)
    line = dict(zip(header, next(row for row in rows if row[0] == "fixed full"), strict=True))
    assert (line["seconds"], line["price"]) == (4.0, pytest.approx(4e-4))
    assert "answers per second" in latex_table((header, rows), caption="x", label="x")
    show_headline({**document, "provenance": {}})
    shown = capsys.readouterr().out
    assert "seconds" in shown and "answers" in shown and "price" in shown
    unknown = measured(log_of())
    assert not {"seconds", "answers_per_second", "price"} & set(headline_table(unknown)[0])
    still = measured(log_of(seconds=np.zeros(3)))
    assert rows_of(still)["full"]["per_second"] is None  # nothing took any time


def test_a_cost_that_is_seconds_is_not_there_twice():
    seconds = np.array([10.0, 40.0, 100.0]) * (1 + np.arange(120) % 2)[:, None]
    document = measured(log_of(seconds=seconds))
    assert "seconds" not in headline_table(document)[0]
