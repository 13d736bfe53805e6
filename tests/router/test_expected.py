"""What was expected stands where answers are looked at: inspect, its page, lost questions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from m3router.data.log.oracle_log import OracleLog
from m3router.router.evaluation.breakdown import lost_questions
from m3router.router.reports import log_browser
from m3router.router.reports.log_browser import pack_log
from m3router.router.reports.log_summary import inspect_log
from m3router.router.reports.log_summary_tables import csv_files, shown_tables
from m3router.router.text.expected import expected_text
from tests.router.test_log_browser import HERE, needs_node, run_node, unpacked

ABOUT: list[dict[str, Any]] = [
    {"references": ["net", "a net", "net"], "metric": "vqa"},
    {"references": ["<b>B</b>"], "metric": "choice"},
    {"references": [], "metric": "agreement"},
    {"references": None, "metric": None},
]


def log_about() -> OracleLog:
    rows = [
        {
            "example_id": f"e{number}",
            "group": f"g{number}",
            "dataset": "world",
            "question": f"which is {number}?",
            "image": "",
            "scale": scale,
            "cost": float(scale),
            "answer": f"answer {scale}",
            "score": float(scale == "9"),
            "chance": 0.0,
            "finish": "length" if scale == "9" and number == 0 else "stop",
            **about,
        }
        for number, about in enumerate(ABOUT)
        for scale in ("1", "9")
    ]
    return OracleLog(pd.DataFrame(rows), options=("1", "9"), cost_unit="visual tokens")


def test_references_in_words() -> None:
    assert expected_text(None) is None and expected_text(()) is None
    assert expected_text(["net", " a net ", "net", ""]) == "net (2), a net, (empty)"
    assert expected_text([str(n) for n in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_inspect_shows_what_was_expected() -> None:
    inspection = inspect_log(log_about(), draws=5)
    (table,) = [one for one in shown_tables(inspection) if "most expensive" in one.title]
    assert table.header[-1] == "expected"
    expected = ["net (2), a net", "<b>B</b>", "–", "–"]
    assert [row[-1] for row in table.rows] == expected
    told = json.loads(json.dumps(inspection.to_dict()))["expensive"]
    assert [one["references"] for one in told] == [["net", "a net", "net"], ["<b>B</b>"], [], None]
    assert [one["metric"] for one in told] == ["vqa", "choice", "agreement", None]
    header, rows = csv_files(inspection)["expensive"]
    assert rows[0][header.index("references")] == "net, a net, net"


def test_the_page_holds_what_was_expected() -> None:
    packed = pack_log(log_about(), ())
    texts = packed["strings"]
    about = {name: unpacked(packed["examples"][name]) for name in ("expected", "metric")}
    assert [texts[code] for code in about["expected"]] == ["net (2), a net", "<b>B</b>", "", ""]
    assert [texts[code] for code in about["metric"]] == ["vqa", "choice", "agreement", ""]
    assert unpacked(packed["cells"]["cut"]) == [0, 1, 0, 0, 0, 0, 0, 0]


@needs_node
def test_the_page_shows_what_was_expected(tmp_path) -> None:
    log = log_about()
    written = log_browser.write_page(log, inspect_log(log, draws=2), tmp_path / "log.html")
    steps = [{"key": "ArrowDown"}] * 4
    _, net, letter, agreement, unknown = run_node(
        HERE / "page_stub.js", written.path, stdin=json.dumps(steps)
    )
    assert "expected: net (2), a net (vqa)" in net["detail"]
    assert "answer 9 (cut at its longest length)" in net["detail"]
    assert net["detail"].count("cut at") == 1
    assert "expected: <b>B</b> (choice)" in letter["detail"]
    assert "expected: no reference answer (agreement)" in agreement["detail"]
    assert "expected" not in unknown["detail"]


def test_lost_questions_say_what_was_expected() -> None:
    log = log_about()
    choice = np.zeros(4, dtype=np.intp)
    lost = lost_questions(log, choice, np.full((4, 2), 0.5), reference=np.ones(4, dtype=np.intp))
    told = {one["id"]: one for one in json.loads(json.dumps(lost))["examples"]}
    assert told["e0"]["references"] == ["net", "a net", "net"]
    assert [told[f"e{n}"]["metric"] for n in range(4)] == ["vqa", "choice", "agreement", None]
    expected = ["net (2), a net", "<b>B</b>", None, None]
    assert [told[f"e{n}"]["expected"] for n in range(4)] == expected
