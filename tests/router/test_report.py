from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.oracle_log import OracleLog
from router.analysis import figures, plots, tables
from router.run import Run
from router.stages.learning import calibrate_stage, train_stage
from router.stages.reporting import evaluate_stage, report_stage

HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(2)> & '{{ 7*7 }}' https://evil.example/x"
)
LOADING = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


@pytest.fixture(scope="module")
def reported(tmp_path_factory, build_log_world) -> tuple[Run, dict, str]:
    run = Run(tmp_path_factory.mktemp("report") / "run")
    log, features = build_log_world
    log.write(run.log)
    features.write(run.features)
    train_stage(run)
    calibrate_stage(run, name="careful", max_loss_points=1.0)
    document = evaluate_stage(run, draws=100)
    pictures = tmp_path_factory.mktemp("pictures")
    for name in set(log.images.tolist()):
        Image.new("RGB", (300, 200), (10, 200, 30)).save(pictures / name)
    page = report_stage(run, images=pictures).read_text(encoding="utf-8")
    return run, document, page


@pytest.fixture(scope="module")
def build_log_world(request):
    world = request.getfixturevalue("world")
    frame = world.log.frame
    number = np.arange(len(frame)) // 5
    frame["dataset"] = np.where(number % 3 == 0, "shapes <i>", "tiny digits")
    frame["question"] = [f"{HOSTILE} {n}?" for n in number]
    frame["answer"] = np.where(frame["score"] == 1, HOSTILE, "{% raw %}no</li>")
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

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        (self.styles if self.tags and self.tags[-1] == "style" else self.text).append(data)


@pytest.fixture(scope="module")
def page(reported) -> Page:
    parser = Page()
    parser.feed(reported[2])
    return parser


def test_the_page_loads_nothing(page, reported):
    for tag, name, value in page.attributes:
        if name in LOADING:
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:80])
        if name == "style":
            assert not re.search(r"url\((?!\s*[\"']?#)", value), value
    assert not {"link", "iframe", "object", "embed", "base", "script", "form"} & set(page.tags)
    sheet = "".join(page.styles)
    assert "@import" not in sheet
    assert "url(" not in sheet
    assert "default-src 'none'" in reported[2]


def test_hostile_texts_stay_text(page):
    assert not [one for one in page.attributes if one[1].startswith("on")]
    assert ("img", "src", "x") not in page.attributes
    shown = " ".join(page.text)
    assert HOSTILE in shown  # literally, template syntax included
    assert "{% raw %}no</li>" in shown
    assert "shapes <i>" in shown
    assert "script" not in page.tags


def test_every_row_of_the_evaluation_is_in_the_page(page, reported):
    shown = re.sub(r"\s+", " ", " ".join(page.text))
    for row in tables.headline(reported[1]):
        value = tables.percent(row.accuracy["value"])
        assert re.search(rf"{re.escape(row.name)} {re.escape(value)} ", shown), row.name
    for word in ("first_correct", "chance-corrected", "vision tower", "SHA-256", "fingerprint"):
        assert word in shown
    assert tables.number(reported[1]["vision_gflops"]) == "5"


def test_pictures_of_lost_questions_are_inside(reported, page):
    _, document, _ = reported
    row = tables.router_rows(document)[len(tables.router_rows(document)) // 2]
    examples = document["lost"][row["name"]]["examples"]
    assert examples
    inside = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(inside) == len(examples)


def test_csv_tables_hold_the_evaluation_exactly(reported):
    run, document, _ = reported
    with (run.report / "tables/headline.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [row["kind"] for row in document["rows"]]
    for row, truth in zip(rows, document["rows"], strict=True):
        assert float(row["accuracy"]) == truth["accuracy"]["value"]
        assert float(row["accuracy_low"]) == truth["accuracy"]["low"]
        assert float(row["cost"]) == truth["cost"]["value"]
        assert float(row["language_gflops"]) == truth["gflops"]["value"]
        assert float(row["vision_gflops"]) == 5.0
        assert float(row["minus_finest"]) == truth["minus_finest"]["value"]
    with (run.report / "tables/lost.csv").open(encoding="utf-8", newline="") as file:
        assert all(row["question"].startswith(HOSTILE) for row in csv.DictReader(file))
    with (run.report / "tables/shares.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            total = sum(float(row[option]) for option in document["options"])
            assert total == pytest.approx(1.0)


def test_figures_are_files_of_their_kind_and_deterministic(reported):
    run, document, _ = reported
    for name in ("pareto", "shares", "calibration"):
        content = (run.report / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        with Image.open(run.report / f"{name}.png") as picture:
            assert picture.width >= 900
        text = (run.report / f"{name}.svg").read_text(encoding="utf-8")
        assert text.lstrip().startswith("<?xml")
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>', "", text)
    first = figures.svg(plots.pareto_figure(document), name="x")
    assert first == figures.svg(plots.pareto_figure(document), name="x")


def test_ids_of_figures_on_one_page_do_not_collide(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))


def test_the_pareto_plot_names_scales_budgets_and_oracles(reported):
    document = reported[1]
    figure = plots.pareto_figure(document)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    written = {text.get_text() for text in axes.texts}
    assert {"1", "9", "36", "144", "576"} <= written
    assert {"≤ 36", "≤ 144", "≤ 288"} <= written
    labels = set(axes.get_legend_handles_labels()[1])
    assert {"oracle (raw)", "oracle (chance-corrected)", "router, image only"} <= labels
    assert {"router, question only", "router, any budget", "fixed option (95 %)"} <= labels
    curve = next(line for line in axes.lines if line.get_label() == "router, any budget")
    assert list(curve.get_xdata()) == document["curve"]["cost"]


def test_bars_fill_the_whole_width(reported):
    (axes,) = plots.shares_figure(reported[1]).axes
    widths: dict[float, float] = {}
    for bar in axes.patches:
        widths[round(bar.get_y(), 3)] = widths.get(round(bar.get_y(), 3), 0.0) + bar.get_width()
    assert len(widths) == 3  # all, and two datasets
    assert all(width == pytest.approx(1.0) for width in widths.values())


def test_a_report_without_pictures_says_nothing_about_them(reported, tmp_path):
    run, _, _ = reported
    page = report_stage(Run(run.root)).read_text(encoding="utf-8")
    assert "<img" not in page
    assert Path(run.report / "report.html").is_file()
