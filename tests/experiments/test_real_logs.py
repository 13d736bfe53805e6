"""The protocol of real logs, on small made-up ones."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from experiments.real_logs import page, protocol, run
from experiments.real_logs.baselines import BASELINES
from experiments.real_logs.logs import RealLog, find_logs
from m3router.router.policies.price_sweep import sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 120 questions from two datasets, of which one needs the expensive option."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    rows = []
    for number in range(120):
        hard = number % 2
        for option, cost in (("small", 1.0), ("large", 10.0)):
            right = generator.random() < (0.85 if option == "large" or not hard else 0.2)
            rows.append(
                {
                    "id": number,
                    "question": f"{'prove' if hard else 'name'} item {number % 7}",
                    "option": option,
                    "correct": int(right),
                    "cost": cost + (number % 3 if option == "large" else 0),
                    "dataset": "hard" if hard else "easy",
                    "group": number // 2,
                }
            )
    (root / "made").mkdir()
    pd.DataFrame(rows).to_csv(root / "made" / "made.csv", index=False)
    (root / "broken").mkdir()
    (root / "broken" / "broken.csv").write_text("id,what\n1,2\n")
    (root / "nothing").mkdir()
    return root


@pytest.fixture(scope="module")
def log(folder, tmp_path_factory):
    found = dict(find_logs(folder, tmp_path_factory.mktemp("work")))
    assert set(found) == {"made", "broken"}
    assert isinstance(found["broken"], str)
    return found["made"]


def test_what_an_answer_costs_is_not_known_before(log):
    assert isinstance(log, RealLog)
    assert len(np.unique(log.log.costs[:, 1])) == 3
    assert len(np.unique(log.expected.costs[:, 1])) == 1
    np.testing.assert_allclose(log.expected.costs.mean(axis=0), log.log.costs.mean(axis=0))


def test_training_parts_are_cut_by_whole_groups(log):
    whole = protocol.small_split(log, seed=1, size=None)
    small = protocol.small_split(log, seed=1, size=30)
    groups = log.log.groups
    rows = np.concatenate([small.fit, small.tune])
    assert 30 <= len(rows) <= 32
    for part in ("calibrate", "test"):
        np.testing.assert_array_equal(small.part(part), whole.part(part))
    left = np.setdiff1d(np.concatenate([whole.fit, whole.tune]), rows)
    assert not set(groups[rows]) & set(groups[left])
    small.prove_disjoint(groups)


def test_curves_are_those_of_the_rule(log):
    test = protocol.small_split(log, seed=0, size=None).test
    p = np.random.default_rng(2).random((len(test), 2))
    found = protocol.judged(p, log, test)
    steps = sweep(p, log.expected.costs[test], scores=log.log.scores[test])
    for score in found.score.mean(axis=0):
        assert np.abs(steps.accuracy - score).min() < 1e-12


def test_a_study_from_table_to_page(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SEEDS", 2)
    monkeypatch.setattr(protocol, "SIZES", (40,))
    monkeypatch.setattr(protocol, "DRAWS", 60)
    out = tmp_path / "results.json"
    monkeypatch.setattr(
        "sys.argv",
        ["run", "--data", str(folder), "--work", str(tmp_path / "work"), "--out", str(out)],
    )
    run.main()
    results = json.loads(out.read_text())
    made = results["logs"]["made"]
    assert [size["questions"] for size in made["sizes"]] == [40, 72]
    assert "left out" in results["logs"]["broken"]
    last = made["sizes"][-1]
    assert last["verdict"]
    gain = last["compared"]["router minus mixing"][0]
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert gain["value"] > 2  # which dataset it is says what is needed
    assert set(last["reached"]) == {*BASELINES, "router"}
    before = out.read_bytes()
    run.main()  # what is done is kept
    assert json.loads(out.read_bytes())["logs"] == json.loads(before)["logs"]
    monkeypatch.setattr("sys.argv", ["page", "--results", str(out)])
    page.main()
    assert "## made" in (tmp_path / "table.md").read_text()
    html = (tmp_path / "page.html").read_text()
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
