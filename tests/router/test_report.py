from __future__ import annotations

import base64
import copy
import csv
import functools
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.router.evaluation.documents import column_words
from m3router.router.reports import figures, legend, plots, tables
from m3router.router.reports.html import Extras, render
from m3router.router.reports.page_parts import allowed_scripts, script_json
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage
from m3router.router.text import numbers
from tests.demo.browsing import CONTRASTS, PHONE, chromium

HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(2)> & '{{ 7*7 }}' https://evil.example/x"
)
HERE = Path(__file__).parent
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
LOADING = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


@pytest.fixture(scope="module")
def reported(tmp_path_factory, build_log_world) -> tuple[Run, dict, str]:
    run = Run(tmp_path_factory.mktemp("report") / "run")
    log, features = build_log_world
    log.write(run.log_folder)
    features.write(run.features_folder)
    train_stage(run, estimator="logistic")
    calibrate_stage(run, name="careful", max_loss_observed=0.01)
    document = evaluate_stage(run, draws=40)
    images = tmp_path_factory.mktemp("pictures")
    for name in set(log.images.tolist()):
        Image.new("RGB", (300, 200), (10, 200, 30)).save(images / name)
    page = report_stage(run, images=images).read_text(encoding="utf-8")
    return run, document, page


@pytest.fixture(scope="module")
def build_log_world(request):
    world = request.getfixturevalue("world")
    frame = world.log.frame
    number = np.arange(len(frame)) // 5
    frame["dataset"] = np.where(number % 3 == 0, "shapes <i>", "tiny digits")
    frame["question"] = [f"{HOSTILE} {n}?" for n in number]
    frame["answer"] = np.where(frame["score"] == 1, HOSTILE, "{% raw %}no</li>")
    frame["references"] = [(f"{HOSTILE} right", f"{HOSTILE} right", "red")] * len(frame)
    frame["metric"] = "<i>exact</i>"
    frame["flops"] = frame["cost"] * 1e8
    frame["vision_flops"] = np.where(number % 2 == 0, 4e9, 6e9)
    log = OracleLog(
        frame,
        options=world.log.options,
        cost_unit="visual tokens",
        metadata={"model": HOSTILE},
    )
    return log, world.features


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        places = {"style": self.styles, "script": self.scripts}
        places.get(self.inside, self.text).append(data)

    @property
    def inside(self):
        """The style or script that is open: HTMLParser says so by what it reads raw."""
        return self.cdata_elem or ""


@pytest.fixture(scope="module")
def page(reported) -> Page:
    parser = Page()
    parser.feed(reported[2])
    return parser


def test_the_page_loads_nothing(page, reported):
    for tag, name, value in page.attributes:
        if name in LOADING:
            assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:80])
            assert tag != "script"
        if name == "style":
            assert not re.search(r"url\((?!\s*[\"']?#)", value), value
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    sheet = "".join(page.styles)
    assert "@import" not in sheet
    assert "url(" not in sheet
    assert "default-src 'none'" in reported[2]


def test_only_the_pages_own_scripts_may_run_and_the_drawing_code_is_there_once(page, reported):
    kinds = [value for tag, name, value in page.attributes if (tag, name) == ("script", "type")]
    assert kinds == ["application/json", "application/json"]
    assert page.tags.count("script") == 4
    drawing, own = page.scripts[2:]
    policy = next(v for t, n, v in page.attributes if (t, n) == ("meta", "content") and "src" in v)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    hashes = [hashlib.sha256(one.encode()).digest() for one in (drawing, own)]
    assert allowed == [base64.b64encode(one).decode() for one in hashes]
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert "connect-src" not in policy  # so default-src 'none' holds: no request at all
    assert reported[2].count("plotly.js v") == 1
    for text in (*page.scripts[:2], own):
        assert not re.search(
            r"https?:|//[a-z]|\bimport\b|fetch|XMLHttp|eval|innerHTML", _bare(text)
        )
    assert 4e6 < len(reported[2].encode()) < 7e6


def _bare(script: str) -> str:
    """Without comments, and without what a log may say."""
    return re.sub(r"(?m)//.*$", "", script.replace("https://evil.example/x", ""))


@pytest.fixture(scope="module")
def run_scripts(reported, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(reported[2], encoding="utf-8")

    @functools.cache
    def run(*arguments: str) -> dict:
        command = [NODE, "--disallow-code-generation-from-strings", HERE / "report_stub.js", path]
        done = subprocess.run(
            [*map(str, command), *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return run


@needs_node
def test_plotly_takes_every_plot_and_asks_for_nothing(run_scripts, reported):
    seen = run_scripts()
    assert seen["wrong"] == []
    assert seen["asked"] == []
    assert seen["plots"] == ["pareto", "methods", "shares", "calibration", "importance"]
    assert all(seen["replaced"])
    assert all(seen["shown"])
    traces = seen["drawn"][0]["data"]
    curve = next(
        one for one in traces if one["meta"]["label"] == "router, any budget" and "hovertext" in one
    )
    assert curve["x"] == reported[1]["curve"]["cost"]
    assert curve["y"] == reported[1]["curve"]["accuracy"]
    assert all(
        trace["type"] in ("scatter", "bar") for one in seen["drawn"] for trace in one["data"]
    )


@needs_node
def test_the_legend_switches_a_curve_with_its_band_and_dark_pages_have_other_colours(run_scripts):
    seen = run_scripts()
    assert seen["legend"][0] == "router, any budget"
    assert {"mixing fixed options", "fixed option (95 %)", "oracle (raw)"} <= set(seen["legend"])
    assert seen["hidden"] == ["router, any budget"] * 3  # its band, its line, its name
    assert seen["pressed"][0] == "false"
    assert set(seen["pressed"][1:]) == {"true"}
    dark = run_scripts("dark")
    for one, other in zip(seen["drawn"], dark["drawn"], strict=True):
        assert one["layout"]["paper_bgcolor"] == figures.PAPER
        assert other["layout"]["paper_bgcolor"] == figures.DARK[figures.PAPER]
        assert [t.get("y") for t in one["data"]] == [t.get("y") for t in other["data"]]


def test_texts_in_plots_and_in_json_have_no_meaning(reported):
    spec = plots.shares(reported[1])
    assert "shapes &lt;i&gt;" in spec["layout"]["yaxis"]["ticktext"]
    text = str(script_json({"x": HOSTILE + "</script><!--\u2028"}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["x"] == HOSTILE + "</script><!--\u2028"
    with pytest.raises(DataError, match="</script"):
        allowed_scripts("a", "b</script>")


def test_hostile_texts_stay_text(page):
    assert not [one for one in page.attributes if one[1].startswith("on")]
    assert ("img", "src", "x") not in page.attributes
    shown = " ".join(page.text)
    assert HOSTILE in shown  # literally, template syntax included
    assert "{% raw %}no</li>" in shown
    assert "shapes <i>" in shown


def test_sections_are_linked_and_headed(page):
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = [v[1:] for tag, name, v in page.attributes if (tag, name) == ("a", "href")]
    assert len(links) >= 9
    assert set(links) <= ids
    heads = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert len(heads) == page.tags.count("th")
    labelled = [v for tag, name, v in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labelled) == 5


def test_table_2_has_a_line_per_option_router_and_oracle(reported, page):
    run, document, _ = reported
    with (run.report_folder / "tables/table-2.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["answered by", "quantity", "tiny digits", "shapes <i>", "all"]
    assert [row[0] for row in rows[1:6]] == [f"fixed {s}" for s in (576, 144, 36, 9, 1)]
    assert [row[:2] for row in rows[-2:]] == [
        ["oracle", "mean visual tokens"],
        ["oracle", "accuracy"],
    ]
    n = {one["dataset"]: one["n"] for one in document["datasets"]}
    for row in rows[1:]:
        weighted = (float(row[2]) * n["tiny digits"] + float(row[3]) * n["shapes <i>"]) / sum(
            n.values()
        )
        assert weighted == pytest.approx(float(row[4])), row


def test_every_baseline_is_in_the_table_with_its_interval(reported, page):
    run, document, _ = reported
    with (run.report_folder / "tables/baselines.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    measured = {n: arm for n, arm in document["baselines"].items() if arm.get("metrics")}
    assert {"dataset lookup", "question-type lookup"} <= set(measured)
    for name, arm in measured.items():
        for key, end in (("aiq", ""), ("aiq_minus_router", "_low"), ("saved_at_99", "_high")):
            truth = arm["metrics"][key]
            truth = truth["calibrated"] if key == "saved_at_99" else truth
            truth = truth[end[1:] or "value"]
            shown = rows[name][key + end]
            assert shown == "" if truth is None else float(shown) == truth
    assert rows["router"]["aiq_minus_router"] == ""
    gain = document["metrics"]["aiq_minus_fixed"]
    assert float(rows["mixing fixed options"]["aiq_minus_router_low"]) == -gain["high"]
    with (run.report_folder / "tables/rules.csv").open(encoding="utf-8", newline="") as file:
        points = {row["name"]: row for row in csv.DictReader(file)}
    single = {n: a for n, a in document["baselines"].items() if a.get("rows") and n not in measured}
    assert set(points) == set(single) >= {"best fixed per dataset"}
    for name, arm in single.items():
        assert float(points[name]["accuracy"]) == arm["rows"][0]["accuracy"]["value"]
        assert float(points[name]["minus_mixing"]) == arm["rows"][0]["minus_mixing"]["value"]
    shown = re.sub(r"\s+", " ", " ".join(page.text))
    for name, arm in document["baselines"].items():
        assert name in shown
        assert arm.get("undefined", arm["about"]) in shown


def test_a_document_of_before_there_were_baselines_is_still_shown(reported):
    document = copy.deepcopy(reported[1])
    document = {k: v for k, v in document.items() if k not in ("baselines", "escalation")}
    for row in document["datasets"]:
        row.pop("oracle_cost", None)
    figure = figures.still(plots.pareto(document))
    assert "baselines" not in figure.axes[0].get_legend_handles_labels()[1]
    lines = tables.method_lines(document)
    assert [one["name"] for one in lines][0::3] == ["router", "mixing fixed options"]
    assert tables.rules(document) == []
    assert tables.table_2(document)[1][-2][2:4] == [None, None]


def test_lost_questions_are_told_by_dataset_and_option(reported, page):
    _, document, _ = reported
    for result in document["lost"].values():
        assert sum(one["lost"] for one in result["where"]) == result["lost"]
        assert sum(one["won"] for one in result["where"]) == result["won"]
        assert sum(one["chosen"] for one in result["where"]) == result["n"]
    shown = re.sub(r"\s+", " ", " ".join(page.text))
    middle = tables.router_rows(document)[len(tables.router_rows(document)) // 2]["name"]
    lost = document["lost"][middle]
    assert f"{lost['lost']} / {lost['n']}" in shown
    for option in {one["chosen"] for one in lost["examples"]}:
        assert f"Lost at {option}" in shown


def test_lost_questions_say_what_was_expected(reported, page):
    run, document, _ = reported
    row = tables.router_rows(document)[len(tables.router_rows(document)) // 2]
    count = len(document["lost"][row["name"]]["examples"])
    shown = re.sub(r"\s+", " ", " ".join(page.text))
    wanted = re.sub(r"\s+", " ", f"expected: {HOSTILE} right (2), red (<i>exact</i>)")
    assert shown.count(wanted) == count > 0
    with (run.report_folder / "tables/lost.csv").open(encoding="utf-8", newline="") as file:
        assert {line["expected"] for line in csv.DictReader(file)} == {f"{HOSTILE} right (2), red"}


def test_every_row_of_the_evaluation_is_in_the_page(page, reported):
    shown = re.sub(r"\s+", " ", " ".join(page.text))
    for row in tables.headline(reported[1]):
        value = numbers.percent(row.estimates["accuracy"]["value"])
        assert re.search(rf"{re.escape(row.name)} {re.escape(value)} ", shown), row.name
    for word in ("first_correct", "chance-corrected", "vision tower", "SHA-256", "Fingerprint"):
        assert word in shown
    assert numbers.number(reported[1]["vision_gflops"]) == "5"


def test_images_of_lost_questions_are_inside(reported, page):
    _, document, _ = reported
    row = tables.router_rows(document)[len(tables.router_rows(document)) // 2]
    examples = document["lost"][row["name"]]["examples"]
    assert examples
    inside = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(inside) == len(examples)


def test_csv_tables_hold_the_evaluation_exactly(reported):
    run, document, _ = reported
    with (run.report_folder / "tables/headline.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [row["kind"] for row in document["rows"]]
    for row, truth in zip(rows, document["rows"], strict=True):
        assert float(row["accuracy"]) == truth["accuracy"]["value"]
        assert float(row["accuracy_low"]) == truth["accuracy"]["low"]
        assert float(row["cost"]) == truth["cost"]["value"]
        assert float(row["language_gflops"]) == truth["gflops"]["value"]
        assert float(row["vision_gflops"]) == 5.0
        assert float(row["minus_reference"]) == truth["minus_reference"]["value"]
    with (run.report_folder / "tables/lost.csv").open(encoding="utf-8", newline="") as file:
        assert all(row["question"].startswith(HOSTILE) for row in csv.DictReader(file))
    with (run.report_folder / "tables/shares.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            total = sum(float(row[option]) for option in document["options"])
            assert total == pytest.approx(1.0)


def test_figures_are_files_of_their_kind_and_deterministic(reported):
    run, document, _ = reported
    for name in ("pareto", "methods", "shares", "calibration", "importance"):
        content = (run.report_folder / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        with Image.open(run.report_folder / f"{name}.png") as image:
            assert image.width >= 900
        text = (run.report_folder / f"{name}.svg").read_text(encoding="utf-8")
        assert text.lstrip().startswith("<?xml")
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>', "", text)
    first = figures.svg(figures.still(plots.pareto(document)), name="x")
    assert first == figures.svg(figures.still(plots.pareto(document)), name="x")


def test_ids_of_figures_on_one_page_do_not_collide(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))


def test_the_pareto_plot_names_scales_budgets_and_oracles(reported):
    document = reported[1]
    figure = figures.still(plots.pareto(document))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    written = {text.get_text() for text in axes.texts}
    assert {"1", "9", "36", "144", "576"} <= written
    assert {"≤ 36", "≤ 144", "≤ 288"} <= written
    labels = set(axes.get_legend_handles_labels()[1])
    assert {"oracle (raw)", "oracle (chance-corrected)", "mixing fixed options"} <= labels
    assert {"router, any budget", "fixed option (95 %)"} <= labels
    curve = next(line for line in axes.lines if line.get_label() == "router, any budget")
    assert list(curve.get_xdata()) == document["curve"]["cost"]


def test_bars_fill_the_whole_width(reported):
    (axes,) = figures.still(plots.shares(reported[1])).axes
    widths: dict[float, float] = {}
    for bar in axes.patches:
        widths[round(bar.get_y(), 3)] = widths.get(round(bar.get_y(), 3), 0.0) + bar.get_width()
    assert len(widths) == 3  # all, and two datasets
    assert all(width == pytest.approx(1.0) for width in widths.values())


def test_colours_are_readable_in_both_themes_and_so_is_text_on_the_ramp():
    lines = (figures.ROUTER, figures.FIXED, figures.ORACLE, *plots.BASELINES, figures.INK)
    for colour in lines:
        assert figures.contrast(colour, figures.PAPER) >= 4.5, colour  # names are written in them
        assert figures.contrast(figures.DARK[colour], figures.DARK[figures.PAPER]) >= 4.5, colour
    assert figures.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # WCAG's example
    shades = [figures.luminance(colour) for colour in figures.RAMP]
    assert shades == sorted(shades, reverse=True)  # the order shows in grey
    for colour in figures.RAMP:
        text = figures.text_on(colour)
        assert figures.contrast(colour, figures.PAPER) >= 3
        assert figures.contrast(figures.DARK[colour], figures.DARK[figures.PAPER]) >= 3
        assert figures.contrast(text, colour) >= 4.5
        assert figures.contrast(figures.DARK[text], figures.DARK[colour]) >= 4.5
    assert len(figures.DARK) == 11 + 2 * figures.SHADES  # nothing stands for two colours


def test_axes_of_shares_stay_within_100_per_cent_and_have_ticks_that_people_read(reported):
    for name, spec in plots.plots(reported[1]).items():
        for axis in ("xaxis", "yaxis"):
            about = spec["layout"][axis]
            texts = about.get("ticktext", [])
            if any(text.endswith(" %") for text in texts):
                assert 0 <= about["range"][0] < about["range"][1] <= 1, name
                assert [f"{100 * tick:g} %" for tick in about["tickvals"]] == texts
                assert 3 <= len(texts) <= 8
    for values in ([0.0], [1.0, 1.0], [0.5, 0.501], [0.0, 1.0]):
        axis = plots.percent_axis(values)
        assert 0 <= axis["range"][0] <= min(values) <= max(values) <= axis["range"][1] <= 1
        assert len(axis["tickvals"]) >= 2
    for costs in ([1.0, 576.0], [3.0], [0.0, 0.0], [1e-5, 1.1e-5], [0.0, 9e6]):
        axis = plots.cost_axis(costs, costs)
        low, high = axis["range"]
        ends = np.log10(costs) if axis.get("type") == "log" else np.asarray(costs)
        assert low <= ends.min() <= ends.max() <= high and low < high
        assert axis["tickvals"]


def test_lines_and_marks_are_told_apart_without_colour(reported):
    for name, spec in plots.plots(reported[1]).items():
        seen: dict[tuple, str] = {}
        for label, image in legend.entries(spec):
            if name == "shares":
                continue  # bars in order, light to dark
            look = re.sub(r'="[^"]*#(?!ffffff)[^"]*"', "", str(image))  # hollow or not stays
            assert look not in seen, (name, label, seen.get(look))
            seen[look] = label
        assert seen or name == "shares"


def test_names_stand_beside_their_lines_and_on_nothing(reported):
    spec = plots.pareto(reported[1])
    texts = [one for one in spec["data"] if "text" in one.get("mode", "")]
    written = {text for one in texts for text in one["text"]}
    assert {"router, any budget", "oracle"} <= written
    boxes = []
    for one in texts:
        places = zip(one["x"], one["y"], one["text"], one["textposition"], strict=True)
        for x, y, text, side in places:
            share = [
                float(plots._shares(spec["layout"][axis], value))
                for axis, value in (("xaxis", x), ("yaxis", y))
            ]
            boxes.append(plots.label_places.box(text, *share, side))
    for k, (left, right, bottom, top) in enumerate(boxes):
        assert right <= 1.02 and left >= -0.02
        for other in boxes[:k]:
            assert right <= other[0] or other[1] <= left or top <= other[2] or other[3] <= bottom


def test_tables_have_a_caption_outside_and_a_box_that_a_keyboard_scrolls(page, reported):
    ids = {value for _, name, value in page.attributes if name == "id"}
    captions = [
        v for tag, name, v in page.attributes if (tag, name) == ("table", "aria-labelledby")
    ]
    assert len(captions) == page.tags.count("table") > 8
    assert set(captions) <= ids
    regions = re.findall(
        r'<div class="scroll" role="region" tabindex="0" aria-labelledby="([^"]+)">', reported[2]
    )
    assert regions == captions
    rows = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert {"row", "col"} == set(rows)


def test_paper_is_light_whole_and_breaks_between_sections(page):
    sheet = "".join(page.styles)
    printed = sheet[sheet.index("@media print") :]
    for rule in ("break-before: page", "table-header-group", "overflow: visible", "break-inside"):
        assert rule in printed
    dark = [one.start() for one in re.finditer(figures.DARK[figures.PAPER], sheet)]
    assert len(dark) >= 2
    assert all("@media screen" in sheet[:at].rpartition("\n")[2] for at in dark)
    assert "details-content" in printed


def test_how_it_was_made_is_told_in_sentences(page, reported):
    shown = " ".join(page.text)
    assert not re.search(r"\{'|': |\['|None|=mlp", shown.replace(HOSTILE, ""))
    start = reported[2].index('id="origin"')
    told = re.sub(r"<[^>]*>", "", reported[2][start:])[:3000]
    for words in ("to train", "to validate", "to calibrate", "seed 0", "The estimator is"):
        assert words in told


def test_without_references_the_page_says_agreement_and_not_accuracy(reported):
    document = copy.deepcopy(reported[1])
    document["provenance"]["log"]["asked"] = "agreement"
    assert column_words(document)["measure"] == "agreement"
    nothing = dict.fromkeys(plots.plots(document), Markup(""))
    text = render(document, nothing, extras=Extras())
    assert "There are no reference answers" in text
    verdict = text[text.index('class="verdict"') : text.index("<nav")]
    assert "accuracy" not in verdict and "of agreement" in verdict
    heads = re.findall(r'<th scope="col">([^<]*)</th>', text)
    assert "agreement" in heads and "accuracy" not in heads
    assert plots.pareto(document)["layout"]["yaxis"]["title"]["text"].startswith("agreement")


def test_in_a_browser_nothing_is_wider_than_a_telephone_and_the_plot_begins_in_sight(
    reported, tmp_path
):
    path = tmp_path / "report.html"
    path.write_text(reported[2].replace(HOSTILE, "hostile"), encoding="utf-8")
    driver, browser = chromium()
    noticed = []
    try:
        tab = browser.new_page(viewport={"width": PHONE[0], "height": PHONE[1]})
        tab.on("console", lambda one: noticed.append(one.text) if one.type == "error" else None)
        tab.on("pageerror", lambda one: noticed.append(str(one)))
        tab.on("request", lambda one: one.url.startswith("http") and noticed.append(one.url))
        tab.goto(path.as_uri())
        tab.locator("figure[data-plot=pareto] .live:not([hidden]) .main-svg").first.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert tab.locator(".verdict").first.bounding_box()["y"] < 200
        assert tab.locator("figure[data-plot=pareto]").bounding_box()["y"] < PHONE[1] - 100
        box = tab.locator("#result .scroll")
        assert box.evaluate("one => one.scrollWidth > one.clientWidth")
        assert box.evaluate("one => one.parentNode.classList.contains('more-right')")
        box.evaluate("one => { one.scrollLeft = 200; }")
        head = tab.locator("#result tbody th").first
        assert abs(head.bounding_box()["x"] - box.bounding_box()["x"]) < 3  # it stays
        assert tab.evaluate(CONTRASTS) == []
        tab.locator("#theme").click()
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 27, 32)"
        assert tab.evaluate(CONTRASTS) == []
        tab.emulate_media(media="print")
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert tab.locator("figure[data-plot=pareto] .still svg").is_visible()
    finally:
        browser.close()
        driver.stop()
    assert noticed == []
