"""Numbers of an inspection against slow loops over rows, written without arrays."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from m3router.data.errors import DataError
from m3router.data.log.checks import ASKED, UNTIL_CORRECT
from m3router.data.log.journal import JOURNAL, Journal
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.partial_log import find_log
from m3router.router.evaluation.breakdown import by_dataset
from m3router.router.metrics import oracles
from m3router.router.metrics.oracles import RULES, stable_rows
from m3router.router.reports.error_groups import general
from m3router.router.reports.log_summary import inspect_log, only_dataset
from m3router.router.reports.log_summary_tables import csv_files, shown_tables
from tests.router.logs import log_of_cells, logs

Row = dict[str, Any]


def by_example(log: OracleLog) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in log.frame.to_dict("records"):
        plain = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        found.setdefault(plain["example_id"], {})[plain["scale"]] = plain
    return found


def said(row: Row | None) -> str | None:
    return None if row is None or row["answer"] is None else row["answer"].strip().casefold()


def right(row: Row) -> bool:
    return row["score"] >= 0.5


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def is_complete(rows: dict[str, Row], options: tuple[str, ...]) -> bool:
    return all(o in rows and rows[o]["score"] is not None for o in options)


def suffices(rule: str, rows: dict[str, Row], options: tuple[str, ...], k: int) -> bool:
    if rule == "first_correct":
        return right(rows[options[k]])
    if rule == "stable":
        return all(right(rows[o]) for o in options[k:])
    return said(rows[options[k]]) == said(rows[options[-1]])


def cheapest(rows: dict[str, Row], options: list[str]) -> str:
    best = options[0]
    for option in options:
        if rows[option]["cost"] < rows[best]["cost"]:
            best = option
    return best


def close(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, abs=1e-9)


def check_part(part: Any, examples: list[dict[str, Row]], options: tuple[str, ...]) -> None:
    whole = [rows for rows in examples if is_complete(rows, options)]
    assert (part.examples, part.complete) == (len(examples), len(whole))
    assert part.images == len({next(iter(rows.values()))["group"] for rows in examples})
    for one in part.scales:
        rows = [rows[one.scale] for rows in examples if one.scale in rows]
        scored = [row for row in rows if row["score"] is not None]
        assert one.answered == len(scored)
        assert one.errors == sum(row["error"] is not None for row in rows)
        assert one.missing == len(examples) - len(rows)
        assert one.accuracy.value == close(mean([row["score"] for row in scored]))
        assert one.cost == close(mean([row["cost"] for row in scored]))
        assert one.gflops == close(mean([row["flops"] / 1e9 for row in scored]))
        assert one.fixed.value == close(mean([rows[one.scale]["score"] for rows in whole]))
        assert one.fixed_cost.value == close(mean([rows[one.scale]["cost"] for rows in whole]))
    lacking = any(said(rows[o]) is None for rows in whole for o in options)
    rules = [rule for rule in RULES if not (rule == "matches_full" and lacking)] if whole else []
    assert [one.rule for one in part.oracles] == rules
    for one in part.oracles:
        check_oracle(one, whole, options)


def check_oracle(one: Any, whole: list[dict[str, Row]], options: tuple[str, ...]) -> None:
    counts = dict.fromkeys([*options, "never"], 0)
    scores, costs = [], []
    for rows in whole:
        enough = [o for k, o in enumerate(options) if suffices(one.rule, rows, options, k)]
        counts[cheapest(rows, enough) if enough else "never"] += 1
        if one.rule == "first_correct":  # soft scores: the oracle takes the best, as evaluated
            top = max(row["score"] for row in rows.values())
            enough = [o for o in options if rows[o]["score"] == top]
        taken = rows[cheapest(rows, enough or list(options))]
        scores.append(taken["score"])
        costs.append(taken["cost"])
    assert one.smallest == tuple(counts.values())
    assert one.accuracy.value == close(mean(scores))
    assert one.cost.value == close(mean(costs))


@settings(max_examples=30)
@given(logs)
def test_counts_and_oracles_are_those_of_slow_loops(log: OracleLog) -> None:
    examples = by_example(log)
    inspection = inspect_log(log, draws=3, top=4)
    names = [str(next(iter(rows.values()))["dataset"]) for rows in examples.values()]
    wanted = sorted(set(names), key=lambda name: (-names.count(name), name))
    assert [part.dataset for part in inspection.parts[1:]] == (wanted if len(wanted) > 1 else [])
    check_part(inspection.parts[0], list(examples.values()), log.options)
    for part in inspection.parts[1:]:
        inside = zip(names, examples.values(), strict=True)
        check_part(part, [rows for name, rows in inside if name == part.dataset], log.options)
    json.dumps(inspection.to_dict(), allow_nan=False)
    shown_tables(inspection)
    for header, rows in csv_files(inspection).values():
        assert all(len(row) == len(header) for row in rows)


@settings(max_examples=30)
@given(logs)
def test_disagreements_and_the_most_expensive_are_those_of_slow_loops(log: OracleLog) -> None:
    examples = by_example(log)
    inspection = inspect_log(log, draws=2, top=4)
    options = log.options
    pairs = {(p.coarse, p.fine): (p.answers, p.differ) for p in inspection.pairs}
    assert list(pairs) == [(a, b) for b in options for a in options[: options.index(b)]]
    for (a, b), counted in pairs.items():
        both = [(said(r.get(a)), said(r.get(b))) for r in examples.values()]
        both = [pair for pair in both if None not in pair]
        assert counted == (len(both), sum(x != y for x, y in both))
    for step in inspection.steps:
        a, b = step.coarse, step.fine
        both = [
            (right(r[a]), right(r[b]))
            for r in examples.values()
            if a in r and b in r and None not in (r[a]["score"], r[b]["score"])
        ]
        lost, won = both.count((True, False)), both.count((False, True))
        assert (step.scored, step.right_to_wrong, step.wrong_to_right) == (len(both), lost, won)
        assert step.lost.value == close(lost / len(both) if both else None)
        assert step.won.value == close(won / len(both) if both else None)
    steps = [(step.coarse, step.fine) for step in inspection.steps]
    assert steps == list(itertools.pairwise(options)) + [(options[0], options[-1])] * (
        len(options) > 2
    )
    spent = [
        (sum(row["flops"] for row in rows.values() if row["flops"] is not None), name)
        for name, rows in examples.items()
        if any(row["flops"] is not None for row in rows.values())
    ]
    ranked = [name for _, name in sorted(spent, key=lambda one: -one[0])]  # stable: as logged
    assert [one.id for one in inspection.expensive] == ranked[:4]


def test_intervals_and_values_are_those_of_the_evaluation(build_log) -> None:
    generator = np.random.default_rng(3)
    scores = (generator.random((80, 5)) < 0.6).astype(float)
    log = build_log(scores, groups=[f"g{i // 4}" for i in range(80)], chance=0.25)
    (part,) = inspect_log(log, draws=200, seed=7).parts
    (wanted,) = by_dataset(log, {}, costs=log.costs, best="576", reference="576", draws=200, seed=7)
    for one in part.scales:
        for end in ("value", "low", "high"):
            assert getattr(one.fixed, end) == pytest.approx(wanted["fixed"][one.scale][end])
            assert getattr(one.accuracy, end) == pytest.approx(wanted["fixed"][one.scale][end])
    first = part.oracles[0]
    assert first.accuracy.value == pytest.approx(wanted["oracle"]["value"])
    assert first.accuracy.low == pytest.approx(wanted["oracle"]["low"])
    rows = oracles.corrected_oracle_rows(log.scores, log.costs, log.chance, never_known="cheapest")
    accuracy, cost = (float(one.mean()) for one in rows)
    assert first.corrected_accuracy is not None and first.corrected_cost is not None
    assert first.corrected_accuracy.value == pytest.approx(accuracy)
    assert first.corrected_cost.value == pytest.approx(cost)
    assert first.corrected_accuracy.low <= accuracy <= first.corrected_accuracy.high
    # Four questions about one image are not four images.
    alone = build_log(scores, chance=0.25)
    assert inspect_log(alone, draws=200).parts[0].images == 80
    repeated = build_log(
        np.repeat(scores[::4], 4, axis=0), groups=[f"g{i // 4}" for i in range(80)]
    )
    spread = build_log(np.repeat(scores[::4], 4, axis=0))
    widths = [
        one.fixed.high - one.fixed.low
        for log in (repeated, spread)
        for one in inspect_log(log, draws=400).parts[0].scales[:1]
    ]
    assert widths[0] > 1.5 * widths[1]


def test_the_corrected_stable_oracle_is_unbiased() -> None:
    """Over all outcomes of guessing, weighted by their probability, whatever is known."""
    generator = np.random.default_rng(0)
    for k, g in itertools.product((1, 2, 3, 4), (0.0, 0.25, 0.5)):
        for known in itertools.product((False, True), repeat=k):
            costs = np.sort(generator.random(k)) * generator.choice([1.0, -1.0]) + 2
            accuracy = cost = 0.0
            for lucky in itertools.product((False, True), repeat=k):
                weight = math.prod(g if luck else 1 - g for luck in lucky)
                scores = [[float(a or b) for a, b in zip(known, lucky, strict=True)]]
                rows = stable_rows(np.array(scores), costs[None], np.array([g]))
                accuracy += weight * rows[0][0]
                cost += weight * rows[1][0]
            place = min(range(k), key=costs.__getitem__)
            first = next((at for at in range(k) if all(known[at:])), None)
            sure = first is not None or known[place]
            assert accuracy == pytest.approx(1.0 if sure else g)
            assert cost == pytest.approx(costs[place if first is None else first])


def test_without_chance_the_corrected_oracles_are_the_raw_ones(build_log) -> None:
    scores = (np.random.default_rng(1).random((50, 5)) < 0.5).astype(float)
    (part,) = inspect_log(build_log(scores), draws=2).parts
    assert [one.rule for one in part.oracles] == ["first_correct", "stable"]  # no answers
    for one in part.oracles:
        assert one.corrected_accuracy is not None and one.corrected_cost is not None
        assert one.corrected_accuracy.value == pytest.approx(one.accuracy.value)
        assert one.corrected_cost.value == pytest.approx(one.cost.value)


def failed(text: str) -> Row:
    return {"cost": None, "error": text}


def answered(score: float, answer: str = "yes", cost: float = 1.0) -> Row:
    return {"cost": cost, "score": score, "answer": answer, "error": None}


def test_a_log_of_errors_only_has_counts_and_causes_but_no_accuracy() -> None:
    texts = ["Image in/a 1.png cannot be read", "Image in/g0.png cannot be read", "no memory 3"]
    log = log_of_cells([[failed(text), failed(text)] for text in texts])
    inspection = inspect_log(log, draws=5)
    (part,) = inspection.parts
    assert (part.examples, part.complete, part.oracles) == (3, 0, ())
    for one in part.scales:
        assert (one.answered, one.errors, one.missing) == (0, 3, 0)
        assert one.accuracy.value is None and one.cost is None and one.fixed.value is None
    assert {one.scored for one in inspection.steps} == {0}
    assert inspection.expensive == ()
    assert sum(one.rows for one in inspection.causes) == 6
    assert inspection.causes[-1].example == "e2"
    titles = [table.title for table in shown_tables(inspection)]
    assert titles == ["Every scale", "Errors by cause"]
    json.dumps(inspection.to_dict(), allow_nan=False)


def test_causes_that_differ_in_names_and_numbers_are_one() -> None:
    text = "CUDA out of memory: 20.5 MiB of 16 GiB"
    cells = [[failed(text.replace("20", str(i))), answered(1.0)] for i in range(5)]
    cells += [[failed("the prompt is too long"), failed("the prompt is too long")]]
    one, two = inspect_log(log_of_cells(cells), draws=2).causes
    assert (one.rows, one.examples, one.scales, one.example) == (5, 5, ("1",), "e0")
    assert one.text == text.replace("20", "0")
    assert (two.rows, two.examples, two.scales) == (2, 1, ("1", "4"))
    assert general("bad a.png", "a.png") == general("bad b/c.png") == "bad …"
    assert general("no 1", "") != general("yes 1", "")


def test_a_single_scale_and_ties() -> None:
    log = log_of_cells([[answered(1.0)], [answered(0.0)], [answered(0.5)]])
    inspection = inspect_log(log, draws=5)
    assert inspection.pairs == inspection.steps == ()
    assert [one.smallest for one in inspection.parts[0].oracles] == [(2, 1), (2, 1), (3, 0)]
    # Equal costs: the first in the log's order of options; equal totals: as logged.
    tied = log_of_cells([[answered(1.0), answered(1.0)], [answered(0.0), answered(0.0, "no")]])
    inspection = inspect_log(tied, draws=5)
    assert inspection.parts[0].oracles[0].smallest == (1, 0, 1)
    assert inspection.parts[0].oracles[2].smallest == (1, 1, 0)
    assert [one.id for one in inspection.expensive] == ["e0", "e1"]


def test_scales_that_were_not_asked_cost_nothing() -> None:
    waiting = {"cost": 4.0, "error": "not yet"}
    cells = [[answered(1.0), waiting], [answered(0.0), answered(1.0, cost=4.0)]]
    frame = log_of_cells(cells).frame.assign(error=None)
    log = OracleLog(frame, options=["1", "4"], cost_unit="t", metadata={ASKED: UNTIL_CORRECT})
    costs = {one.id: one.cost for one in inspect_log(log, draws=5).expensive}
    assert costs == {"e0": 1.0, "e1": 5.0}


def test_thirty_datasets_are_shown_a_few_beside_each_other() -> None:
    cells = [[answered(1.0), answered(0.0, cost=4.0)] for _ in range(60)]
    examples = [{"dataset": f"d{i % 30:02d}"} for i in range(60)]
    inspection = inspect_log(log_of_cells(cells, examples=examples), draws=5)
    assert len(inspection.parts) == 31
    tables = [t for t in shown_tables(inspection) if t.title.startswith("Fixed scales")]
    names = [name for table in tables for name in table.header[1:]]
    assert names == ["all", *[f"d{i:02d}" for i in range(30)]]
    lines = {row[0]: row[1:] for row in tables[0].rows}
    assert lines["fixed 1"][0].startswith("100.0") and lines["fixed 4"][0].startswith("0.0")
    assert lines["oracle, stable"][0].startswith("100.0")  # never stable: the cheapest is taken
    assert lines["oracle, matches_full"][0].startswith("100.0")


def test_texts_of_a_log_cannot_command_a_terminal() -> None:
    hostile = "\x1b[2J\x07\u202edlrow\r"
    cells = [[answered(1.0), failed(f"no {hostile}")]]
    examples = [{name: f"{name} {hostile}" for name in ("example_id", "dataset", "question")}]
    log = log_of_cells(cells, options=["1", f"4{hostile}"], examples=examples)
    tables = shown_tables(inspect_log(log, draws=2))
    texts = [text for table in tables for row in (table.header, *table.rows) for text in row]
    assert any("question �[2J��dlrow" in text for text in texts)
    assert not any(set(hostile) - set("[2Jdlrow") & set(text) for text in texts)


def test_what_cannot_be_inspected_is_refused(build_log) -> None:
    log = build_log(np.ones((3, 2)))
    with pytest.raises(DataError, match="Unknown rule 'first'"):
        inspect_log(log, rules=["first"])
    with pytest.raises(DataError, match="Unknown dataset 'word'. Did you mean 'world'"):
        only_dataset(log, "word")
    with pytest.raises(DataError, match="empty"):
        inspect_log(log.select([]))
    assert len(only_dataset(log, "world")) == 3


def test_a_log_is_found_finished_or_not(tmp_path, build_log) -> None:
    log = build_log(np.ones((3, 2)))
    with pytest.raises(DataError, match="holds no oracle log"):
        find_log(tmp_path)
    metadata = {"grid": list(log.options), "cost_unit": log.cost_unit, "n_examples": 9}
    rows = json.loads(log.frame.to_json(orient="records"))
    with Journal.open(tmp_path / "log", metadata) as journal:
        with pytest.raises(DataError, match="no answers yet"):
            find_log(tmp_path)
        journal.append(rows[:3])
        journal.append(rows[3:5])
        before = (tmp_path / "log" / JOURNAL).read_bytes()
        found = find_log(tmp_path)  # while the run goes on
        assert (found.finished, found.asked, len(found.log)) == (False, 9, 3)
        assert (found.log.n_gaps, found.log.cost_unit) == (1, "visual tokens")
        assert inspect_log(found.log, draws=2).parts[0].scales[1].missing == 1
    with (tmp_path / "log" / JOURNAL).open("ab") as file:
        file.write(b'{"rows":[{"example')  # torn: being written just now
    assert find_log(tmp_path / "log").log.frame.equals(found.log.frame)
    assert (tmp_path / "log" / JOURNAL).read_bytes() == before + b'{"rows":[{"example'
    log.write(tmp_path / "log")
    for folder in (tmp_path, tmp_path / "log"):
        assert find_log(folder).finished
        assert find_log(folder).log.n_gaps == 0


def test_a_journal_that_cannot_be_shown_says_why(tmp_path) -> None:
    with Journal.open(tmp_path, {"seed": 0}) as journal:
        journal.append([{"example_id": "e", "scale": "1"}])
    with pytest.raises(DataError, match="does not say at which scales"):
        find_log(tmp_path)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(DataError, match="damaged at byte 0"):
        find_log(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        find_log(tmp_path)


def test_mme_is_summed_as_published() -> None:
    # Two images of OCR, one of code_reasoning, each with two questions; one other dataset.
    about = [
        {"dataset": "mme/OCR", "group": "a"},
        {"dataset": "mme/OCR", "group": "a"},
        {"dataset": "mme/OCR", "group": "b"},
        {"dataset": "mme/OCR", "group": "b"},
        {"dataset": "mme/code_reasoning", "group": "c"},
        {"dataset": "mme/code_reasoning", "group": "c"},
        {"dataset": "gqa", "group": "c"},
    ]
    scores = [(1, 1), (0, 1), (1, 1), (1, 1), (0, 1), (0, 0), (1, 1)]
    cells = [[{"score": float(s), "cost": c} for c, s in enumerate(row, 1)] for row in scores]
    inspection = inspect_log(log_of_cells(cells, examples=about), draws=2)
    coarse, fine = (one.sums for one in inspection.mme)
    assert coarse.subtasks == {"OCR": 75 + 50, "code_reasoning": 0.0}
    assert fine.subtasks == {"OCR": 200.0, "code_reasoning": 50.0}
    assert (fine.perception, fine.cognition) == (200.0, 50.0)
    (table,) = [one for one in shown_tables(inspection) if one.title == "MME as published"]
    assert table.rows == [
        ["OCR", "125.0", "200.0"],
        ["code_reasoning", "0.0", "50.0"],
        ["perception, 1 of 10", "125.0", "200.0"],
        ["cognition, 1 of 4", "0.0", "50.0"],
    ]
    header, rows = csv_files(inspection)["mme"]
    assert header == ["scale", "score", "value"]
    assert [inspection.options[1], "OCR", 200.0] in rows
    assert json.loads(json.dumps(inspection.to_dict()))["mme"][1]["sums"]["perception"] == 200.0


def test_without_mme_there_is_no_such_table() -> None:
    inspection = inspect_log(log_of_cells([[{"score": 1.0, "cost": 1.0}]]), draws=2)
    assert inspection.mme == ()
    assert "mme" not in csv_files(inspection)
    assert "MME as published" not in [one.title for one in shown_tables(inspection)]
