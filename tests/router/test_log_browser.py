"""The page of a log: what is packed, that hostile texts stay texts, and what filters find."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.router.metrics.oracles import RULES
from m3router.router.reports import log_browser
from m3router.router.reports.log_browser import pack_log, pack_numbers
from m3router.router.reports.log_summary import inspect_log
from m3router.router.reports.page_parts import script_json
from tests.router.logs import log_of_cells, random_log
from tests.router.test_log_summary import (
    Row,
    answered,
    by_example,
    cheapest,
    is_complete,
    said,
    suffices,
)

HERE = Path(__file__).parent
FILTER = HERE.parents[1] / "router/reports/templates/browse_filter.js"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(2)>",
    "{{ 7*7 }} {% raw %} & &lt; ]]>",
    "\"'`${alert(3)}\\ \u2028\u2029\x00\r\n\u202e",
    "__proto__",
    "javascript:alert(4)",
)


def run_node(*arguments: object, stdin: str) -> Any:
    done = subprocess.run(
        [str(NODE), *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- what is packed --------------------------------------------------------------------------


def unpacked(column: dict[str, Any]) -> list[Any]:
    kinds = {"u1": ("B", 1), "u2": ("H", 2), "u4": ("I", 4), "f4": ("f", 4)}
    letter, size = kinds[column["type"]]
    raw = base64.b64decode(column["data"])
    codes = np.frombuffer(raw, dtype=f"<{letter}").tolist()
    assert len(codes) * size == len(raw)
    values = [column["values"][code] for code in codes] if "values" in column else codes
    return [None if value is None or np.isnan(value) else value for value in values]


@pytest.mark.parametrize("seed", range(12))
def test_everything_of_a_log_is_packed(seed: int) -> None:
    log = random_log(seed)
    packed = json.loads(script_json(pack_log(log, tuple(RULES))))
    cells = {name: unpacked(column) for name, column in packed["cells"].items()}
    about = {name: unpacked(column) for name, column in packed["examples"].items()}
    texts = packed["strings"]
    assert len(set(texts[1:])) == len(texts) - 1
    assert packed["ids"] == list(log.ids)
    place = 0
    for i, (name, rows) in enumerate(by_example(log).items()):
        first = next(iter(rows.values()))
        assert packed["ids"][i] == name
        assert texts[about["question"][i]] == first["question"]
        assert packed["datasets"][about["dataset"][i]] == first["dataset"]
        assert packed["images"][about["image"][i]] == first["image"]
        for option in log.options:
            row = rows.get(option) or dict.fromkeys([*cells])
            for key in ("answer", "error"):
                code = cells[key][place]
                assert (texts[code] if code else None) == row[key]
            for key in ("score", "cost", "flops", "answer_tokens", "text_tokens"):
                wanted = None if row[key] is None else pytest.approx(row[key], rel=1e-7)
                assert cells[key][place] == wanted, key
            assert (cells["said"][place] > 0) == (row["answer"] is not None)
            place += 1
    assert place == len(cells["answer"])


@given(st.lists(st.floats(0, 1e9) | st.just(float("nan")), max_size=40))
def test_numbers_are_packed_exactly_or_in_single_precision(values: list[float]) -> None:
    column = pack_numbers(np.array(values))
    for got, given_ in zip(unpacked(column), values, strict=True):
        if np.isnan(given_):
            assert got is None
        else:
            assert got == (given_ if "values" in column else np.float32(given_))


def test_orders_are_natural_and_ties_stay_as_logged() -> None:
    costs, words = [3.0, 9.0, 3.0, 1.0], [["a", "a"], ["a", "B"], ["b", "a"], ["A", "a "]]
    cells = [
        [answered(1.0, one, cost) for one in line] for cost, line in zip(costs, words, strict=True)
    ]
    examples = [{"example_id": name} for name in ("q10", "q9", "q1b", "p")]
    packed = pack_log(log_of_cells(cells, examples=examples), ())
    assert {name: unpacked(order) for name, order in packed["orders"].items()} == {
        "id": [3, 2, 1, 0],
        "cost": [1, 0, 2, 3],
        "disagreement": [1, 2, 0, 3],
    }


@settings(max_examples=200)
@given(st.text(st.characters() | st.sampled_from("<>&/!-\u2028\ud800")))
def test_no_text_leaves_its_script_element(text: str) -> None:
    script = script_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(script)
    assert json.loads(script.encode("utf-8")) == {text: [text]}


# --- the page --------------------------------------------------------------------------------


def hostile_log(n: int = 40) -> OracleLog:
    texts = [HOSTILE[i % len(HOSTILE)] for i in range(n)]
    cells: list[list[dict[str, Any] | None]] = [
        [
            answered(float(i % 2), text, 1.0),
            answered(float(i % 3 == 0), text + "!", 4.0),
            {"cost": None, "error": text},
        ]
        for i, text in enumerate(texts)
    ]
    examples = [
        {
            "question": f"{text} {i}",
            "dataset": text,
            "example_id": f"{i} {text}",
            "image": f"{i} {text}.png",
        }
        for i, text in enumerate(texts)
    ]
    return log_of_cells(cells, options=["1", "<b>4</b>", "</script>"], examples=examples)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "script":
            self.scripts.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def write(log: OracleLog, folder: Path, **options: Any) -> tuple[log_browser.Written, str]:
    written = log_browser.write_page(log, inspect_log(log, draws=3), folder / "log.html", **options)
    return written, written.path.read_text(encoding="utf-8")


def test_hostile_texts_stay_texts(tmp_path) -> None:
    log = hostile_log()
    _, text = write(log, tmp_path, notes=["<script>note</script>"])
    page = Page()
    page.feed(text)
    data, script = page.scripts  # no third one
    assert set(json.loads(data)["strings"]) >= set(log.questions) | {HOSTILE[0]}
    assert json.loads(data)["datasets"] == list(dict.fromkeys(log.datasets))
    assert script == log_browser.page_script()
    assert not {"img", "iframe", "link", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not {"src", "href"} & set(attributes)
    policy = next(a["content"] for _, a in page.tags if "content-security-policy" in str(a).lower())
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch("):
        assert word not in script


def test_images_are_inside_once_linked_or_missing(tmp_path) -> None:
    images = tmp_path / "my images#1"
    images.mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "secret.png")
    names = ["a.png", "a.png", "bröken.png", "../secret.png", "b.png", "", "c.png"]
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (400, 200), (200, 0, 0)).save(images / name)
    (images / "bröken.png").write_bytes(b"no image")
    log = log_of_cells(
        [[answered(1.0)] for _ in names], examples=[{"image": name} for name in names]
    )
    written, text = write(log, tmp_path, images=images, thumbnails=3)
    assert (written.inside, written.linked, written.unreadable) == (2, 1, 1)
    assert "bröken.png" in written.cause and written.size == written.path.stat().st_size
    page = Page()
    page.feed(text)
    data = json.loads(page.scripts[0])
    assert data["folder"] == "./my%20images%231/"
    assert data["images"] == ["a.png", "bröken.png", "", "b.png", "", "c.png"]
    assert data["thumbnails"]["1"] == ""
    small = base64.b64decode(data["thumbnails"]["0"].removeprefix("data:image/jpeg;base64,"))
    (tmp_path / "small.jpg").write_bytes(small)
    with Image.open(tmp_path / "small.jpg") as image:
        assert image.size == (96, 48)
    elsewhere = log_browser.relative_url(images, tmp_path / "deep" / "log.html")
    assert elsewhere == "./../my%20images%231/"
    _, without = write(log, tmp_path)
    assert "folder" not in json.loads(re.findall(r'id="data">(.*?)</script>', without)[0])
    with pytest.raises(DataError, match="is not a folder"):
        write(log, tmp_path, images=tmp_path / "nowhere")


@needs_node
def test_the_page_draws_texts_as_texts_and_follows_its_address(tmp_path) -> None:
    log = hostile_log()
    written, _ = write(log, tmp_path)
    steps: list[dict[str, Any]] = [
        {"set": {"text": "ALERT(2)"}},
        {"key": "ArrowDown"},
        {"key": "ArrowDown"},
        {"set": {"text": "", "scale": "<b>4</b>", "outcome": "wrong"}},
        {"click": 0},
        {"set": {"from": "1", "to": "<b>4</b>"}},
        {"hash": "#dataset=nonsense&scale=1&outcome=error&sort=constructor&text=__proto__"},
        {"set": {"text": "nothing has this"}},
        {"key": "ArrowDown"},
    ]
    seen = run_node(
        HERE / "page_stub.js", written.path, "#sort=id&id=nobody", stdin=json.dumps(steps)
    )
    start, found, one, two, wrong, clicked, lost, linked, empty, still = seen
    assert start["count"] == "40 of 40 questions" and start["hash"] == "#sort=id"
    assert set(start["elements"]) == {"div", "span"}
    assert start["rows"][0].startswith(f"{log.questions[0]}{log.datasets[0]} · {log.ids[0]}")
    assert found["count"] == f"{sum(HOSTILE[2] == one for one in log.datasets)} of 40 questions"
    assert found["rows"][0].startswith(log.questions[2]) and len(found["rows"]) == 6
    assert (one["chosen"], two["chosen"]) == (["row0"], ["row1"])
    assert log.questions[9] in two["detail"] and HOSTILE[2] + "!" in two["detail"]
    assert two["hash"].startswith("#text=ALERT%282%29&sort=id&id=9+")
    assert wrong["count"] == f"{sum(i % 3 != 0 for i in range(40))} of 40 questions"
    assert wrong["chosen"] == []  # the ninth is right there
    assert clicked["chosen"] == ["row0"]
    assert lost["count"] == f"{sum(i % 2 == 1 and i % 3 != 0 for i in range(40))} of 40 questions"
    assert linked["hash"] == "#scale=1&outcome=error&text=__proto__"
    assert linked["count"] == empty["count"] == still["count"] == "0 of 40 questions"
    assert still["detail"].startswith("Choose a question")


@needs_node
def test_filters_that_narrow_stand_in_words_and_can_be_removed(tmp_path) -> None:
    written, _ = write(hostile_log(), tmp_path)
    steps: list[dict[str, Any]] = [
        {"set": {"scale": "<b>4</b>"}},
        {"set": {"outcome": "wrong", "from": "1", "to": "1"}},
        {"set": {"to": "</script>", "change": "same", "smallest": "never", "sort": "id"}},
        {"set": {"errors": "none", "text": HOSTILE[2]}},
        {"press": "again"},
    ]
    start, half, one, more, none, cleared = run_node(
        HERE / "page_stub.js", written.path, stdin=json.dumps(steps)
    )
    assert start["chips"] == half["chips"] == cleared["chips"] == []
    assert half["count"] == start["count"] == cleared["count"] == "40 of 40 questions"
    assert one["chips"] == ["at scale <b>4</b>: wrong ✕"]
    assert more["chips"][1] == "1 to </script>: to the same answer ✕"
    assert none["chips"][0] == f"“{HOSTILE[2]}” ✕" and none["chips"][-1] == "without errors ✕"
    assert (none["empty"], none["count"]) == (True, "0 of 40 questions")
    assert (cleared["empty"], cleared["hash"]) == (False, "#sort=id")  # the order stays
    assert [name[:2] for name in start["head"]] == ["15", "<b", "</"]  # 1 is right on every second


SHORT = [
    (["1", "9", "36"], "", ["1", "9", "36"]),
    (["10", "100", "1000"], "", ["10", "100", "1000"]),
    (["max_pixels=784", "max_pixels=7840"], "max_pixels=", ["784", "7840"]),
    (["detail: low", "detail: high"], "detail: ", ["low", "high"]),
    (["low-", "low-a"], "", ["low-", "low-a"]),
    (["default"], "", ["default"]),
    (["o/model-4-2b", "o/model-4-31b"], "o/model-4-", ["2b", "31b"]),
    (["google/gemma-4-e2b-it", "openai/gpt-4.1"], "", ["gemma-4-e2b-it", "gpt-4.1"]),
    (
        ["a/same-so-long-a-name", "b/same-so-long-a-name"],
        "",
        ["a/same-…ong-a-name", "b/same-…ong-a-name"],
    ),
    (["🦊" * 30, "x"], "", ["🦊" * 7 + "…" + "🦊" * 10, "x"]),
]


@needs_node
def test_names_of_options_fit_the_head_of_a_column() -> None:
    run = """
    const { shortNames } = require(process.argv[1]);
    const lists = JSON.parse(require("fs").readFileSync(0, "utf8"));
    console.log(JSON.stringify(lists.map(shortNames)));
    """
    found = run_node("-e", run, FILTER, stdin=json.dumps([options for options, _, _ in SHORT]))
    assert found == [{"shared": shared, "names": names} for _, shared, names in SHORT]


@needs_node
def test_only_rows_that_are_seen_exist_however_many_there_are(tmp_path) -> None:
    n = 150_000  # 9 million pixels: more than the list may be tall
    log = log_of_cells([[answered(1.0)]], examples=[{"example_id": "x"}])
    packed = pack_log(log, ())
    packed["ids"] = [str(i) for i in range(n)]
    for part in ("examples", "cells"):
        for name, column in packed[part].items():
            raw = base64.b64decode(column["data"]) * n
            packed[part][name] = {**column, "data": base64.b64encode(raw).decode("ascii")}
    page = tmp_path / "log.html"
    page.write_text(log_browser.render({**packed, "thumbnails": {}}, inspect_log(log, draws=2)))
    steps: list[dict[str, Any]] = [{"key": "End"}, {"scroll": 4_000_000}, {"key": "Home"}]
    start, end, middle, home = run_node(HERE / "page_stub.js", page, stdin=json.dumps(steps))
    assert start["height"] == "8000000px"
    assert start["rows"][0].endswith("· 0✓") and len(start["rows"]) < 40
    assert end["rows"][-1].endswith(f"· {n - 1}✓") and end["chosen"] == [f"row{n - 1}"]
    assert float(end["tops"][-1].removesuffix("px")) == pytest.approx(8_000_000 - 72, abs=1)
    assert 74_000 < int(middle["rows"][0].split("· ")[1][:-1]) < 76_000
    tops = [float(top.removesuffix("px")) for top in middle["tops"]]
    assert any(4_000_000 <= top < 4_000_072 for top in tops)
    assert home["rows"] == start["rows"] and home["chosen"] == ["row0"]


@needs_node
def test_a_image_that_cannot_be_shown_becomes_a_placeholder(tmp_path) -> None:
    images = tmp_path / "images"
    (images / "a b").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(images / "a b" / "1.png")
    names = ["a b/1.png", "a b/gone?.png", "", "http://evil.example/x.png"]
    log = log_of_cells(
        [[answered(1.0)] for _ in names], examples=[{"image": name} for name in names]
    )
    written, _ = write(log, tmp_path, images=images, thumbnails=1)
    steps: list[dict[str, Any]] = [{"broken": True}]
    start, broken = run_node(HERE / "page_stub.js", written.path, stdin=json.dumps(steps))
    inside, *linked = start["images"]
    assert inside.startswith("data:image/jpeg;base64,")
    evil = "http%3A//evil.example/x.png"
    assert linked == ["./images/a%20b/gone%3F.png", f"./images/{evil}"]
    assert broken["images"] == ["./images/a%20b/1.png"]  # the original, where the small one fails
    assert [row.startswith("no image") for row in broken["rows"]] == [False, True, True, True]


# --- filters against slow loops --------------------------------------------------------------

CHOICES = {
    "outcome": ["", "right", "wrong", "error", "missing"],
    "change": ["", "lost", "won", "right", "wrong", "differ", "same"],
    "rule": ["", *RULES],
    "errors": ["", "any", "none"],
    "text": ["", "", "red", "RED", "y", "e1", "ß", "zzz", "\n"],
    "sort": ["logged", "id", "dearest", "cheapest", "disagreement"],
}


def random_state(log: OracleLog, chance: random.Random) -> dict[str, str]:
    choices = {
        **CHOICES,
        "dataset": ["", *sorted(set(log.datasets))],
        **{name: ["", *log.options] for name in ("scale", "from", "to")},
        "smallest": ["", *log.options, "never", "gap"],
    }
    step = ("from", "to", "change") if chance.random() < 0.5 else ()
    return {
        name: chance.choice(values[name in step :])
        if name in step or chance.random() < 0.3
        else values[0]
        for name, values in choices.items()
    }


def outcome_of(row: dict[str, Any] | None) -> str:
    if row is None:
        return "missing"
    if row["score"] is None:
        return "error"
    return "right" if row["score"] >= 0.5 else "wrong"


def changes(change: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> bool:
    if change in ("differ", "same"):
        pair = said(before), said(after)
        return None not in pair and (pair[0] != pair[1]) == (change == "differ")
    wanted = {
        "": ("right", "wrong"),
        "lost": ("right", "wrong"),
        "won": ("wrong", "right"),
        "right": ("right", "right"),
        "wrong": ("wrong", "wrong"),
    }
    return (outcome_of(before), outcome_of(after)) == wanted[change]


def smallest_of(rule: str, rows: dict[str, Any], options: tuple[str, ...]) -> str:
    if not is_complete(rows, options):
        return "gap"
    enough = [o for k, o in enumerate(options) if suffices(rule, rows, options, k)]
    return cheapest(rows, enough) if enough else "never"


def kept(log: OracleLog, rules: list[str], state: dict[str, str], rows: dict[str, Any]) -> bool:
    first = next(iter(rows.values()))
    if state["dataset"] not in ("", first["dataset"]):
        return False
    if state["scale"] and state["outcome"] not in ("", outcome_of(rows.get(state["scale"]))):
        return False
    a, b = state["from"], state["to"]
    if a and b and a != b and not changes(state["change"], rows.get(a), rows.get(b)):
        return False
    if state["smallest"] and rules:  # not offered where no rule can be applied
        rule = state["rule"] if state["rule"] in rules else rules[0]
        if smallest_of(rule, rows, log.options) != state["smallest"]:
            return False
    if state["errors"] and any(r["error"] for r in rows.values()) != (state["errors"] == "any"):
        return False
    texts = [first["question"], first["example_id"], *[r["answer"] or "" for r in rows.values()]]
    return any(state["text"].lower() in text.lower() for text in texts)


def sort_key(state: dict[str, str], rows: dict[str, Any]) -> float:
    flops = [row["flops"] for row in rows.values() if row["flops"] is not None]
    if state["sort"] in ("dearest", "cheapest"):
        return -sum(flops) if flops else 1.0
    if state["sort"] == "disagreement":
        return -len({said(row) for row in rows.values()} - {None})
    return 0.0  # as logged, and ids are in their order


def expected(
    log: OracleLog,
    examples: dict[str, dict[str, Row]],
    rules: list[str],
    state: dict[str, str],
) -> list[str]:
    ranked = sorted(examples.items(), key=lambda one: sort_key(state, one[1]))
    if state["sort"] == "cheapest":
        ranked.reverse()
    return [name for name, rows in ranked if kept(log, rules, state, rows)]


RUN = """
const filter = require(process.argv[1]);
const results = JSON.parse(require("fs").readFileSync(0, "utf8")).map(([payload, states]) => {
  const data = filter.decode(payload);
  return states.map((wanted) => {
    const state = filter.sanitize(data, wanted);
    const shown = filter.select(data, state);
    const back = filter.sanitize(data, filter.fromHash("#" + filter.toHash(state, "x")));
    return {
      ids: [...shown].map((i) => data.ids[i]),
      summary: filter.summary(data, shown),
      same: JSON.stringify(back) === JSON.stringify(state),
    };
  });
});
console.log(JSON.stringify(results));
"""


@needs_node
def test_filters_find_what_slow_loops_find() -> None:
    chance = random.Random(0)
    found = [random_log(seed) for seed in range(40)]
    packed = [pack_log(log, tuple(RULES)) for log in found]
    states = [[random_state(log, chance) for _ in range(25)] for log in found]
    given_ = json.dumps(list(zip(packed, states, strict=True)))
    results = run_node("-e", RUN, FILTER, stdin=given_)
    sizes = []
    for log, one, asked, answers in zip(found, packed, states, results, strict=True):
        examples = by_example(log)
        for state, got in zip(asked, answers, strict=True):
            assert got["ids"] == expected(log, examples, one["rules"], state), state
            assert got["same"], state
            check_summary(examples, got)
            sizes.append(len(got["ids"]))
    assert sum(size > 0 for size in sizes) > 200 and sum(size == 0 for size in sizes) > 66


def check_summary(examples: dict[str, dict[str, Row]], got: dict[str, Any]) -> None:
    for one in got["summary"]:
        rows = [examples[name].get(one["scale"]) for name in got["ids"]]
        scores = [row["score"] for row in rows if row and row["score"] is not None]
        assert one["answered"] == len(scores)
        assert one["errors"] == sum(bool(row and row["error"]) for row in rows)
        assert one["accuracy"] == (pytest.approx(np.mean(scores)) if scores else None)
