"""The table and the page of the recorded results; nothing is measured here.

    python -m experiments.real_logs.page

Writes `results/table.md` and `results/page.html` from `results/results.json`.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from experiments.real_logs.baselines import BASELINES, MIXING
from experiments.real_logs.protocol import SHARES
from m3router.data.manifest import atomic_write_text
from m3router.router.reports.figures import (
    FIXED,
    IMAGE,
    ORACLE,
    OTHER,
    QUESTION,
    ROUTER,
    new_figure,
    svg,
)

HERE = Path(__file__).parent / "results"
AGAINST = [MIXING, *(name for name in BASELINES if name != MIXING)]
LOOKS = {
    "router": (ROUTER, "o"),
    "logistic regression": (IMAGE, "s"),
    "logistic with dataset": (QUESTION, "^"),
    "nearest 50": (FIXED, "D"),
    "dataset lookup": (ORACLE, "P"),
    "logistic, standardised": (OTHER, "X"),
}
INTRODUCTION = (
    "The default router beside what a few lines of scikit-learn give, on the same features, the "
    "same training questions and the same test questions, by the same rule at every price. Means "
    "over {seeds} splits by image; in brackets 95 % intervals of a paired bootstrap over images. "
    "AIQ is the accuracy averaged over all mean costs from the cheapest option's to the most "
    "expensive one's. Mixing tosses coins between fixed options. Bold: the interval excludes 0."
)


def cell(entry: Mapping[str, float]) -> str:
    """A difference in points with its interval; bold where that excludes 0."""
    value, low, high = (entry[name] for name in ("value", "low", "high"))
    text = f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def verdicts(logs: Mapping[str, Any]) -> Iterator[tuple[str, str, int, Mapping[str, float]]]:
    """Every comparison of AIQ: log, baseline, training questions, difference."""
    for name, log in logs.items():
        for size in log.get("sizes", ()):
            for other in AGAINST if "compared" in size else ():
                entry = size["compared"][f"router minus {other}"][0]
                yield name, other, size["questions"], entry


def summary(logs: Mapping[str, Any]) -> str:
    """How often the router is clearly above and below each baseline."""
    lines = ["| against | cells | clearly above | clearly below |", "|---|---|---|---|"]
    for other in AGAINST:
        own = [entry for _, name, _, entry in verdicts(logs) if name == other]
        above = sum(entry["low"] > 0 for entry in own)
        below = sum(entry["high"] < 0 for entry in own)
        lines.append(f"| {other} | {len(own)} | {above} | {below} |")
    return "\n".join(lines)


def table(log: Mapping[str, Any], *, column: int) -> str:
    """Differences at every size: AIQ (column 0), or accuracy at the budgets of `SHARES`."""
    heads = ["training questions", *(f"router minus {name}" for name in AGAINST)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for size in log["sizes"]:
        if "compared" not in size:
            lines.append(f"| {size['questions']} | {size['left out']} |" + " |" * len(AGAINST[1:]))
            continue
        cells = [cell(size["compared"][f"router minus {name}"][column]) for name in AGAINST]
        lines.append(f"| {size['questions']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def about(log: Mapping[str, Any]) -> str:
    """One paragraph: options, what they cost and how often they are right."""
    options = ", ".join(
        f"{name} ({accuracy:g} % right at {cost:.4g})"
        for name, accuracy, cost in zip(log["options"], log["accuracy"], log["cost"], strict=True)
    )
    images = "" if log["groups"] == log["questions"] else f" about {log['groups']} images"
    features = ", ".join(f"{name} ({width})" for name, width in log["features"].items())
    return (
        f"{log['questions']} questions{images} from {log['datasets']} datasets; options: "
        f"{options}, costs in {log['cost_unit']}; features: {features}."
    )


def sections(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Title and Markdown paragraphs of every log."""
    for name, log in results["logs"].items():
        if "left out" in log:
            yield name, [f"Left out: {log['left out']}"]
            continue
        body = [about(log), "AIQ, points:", table(log, column=0)]
        for place, share in enumerate(SHARES, start=1):
            body.append(f"Accuracy at {share:.0%} of the range of mean costs, points:")
            body.append(table(log, column=place))
        last = log["sizes"][-1]
        if "promises" in last:
            body += [
                "Promised with 95 % confidence on the calibration split, means over the seeds:"
            ]
            body += [promises(last["promises"]), f"Verdict of the first seed: {last['verdict']}"]
        yield name, body


def promises(found: Sequence[Mapping[str, Any]]) -> str:
    """What was certified with all training questions, and what came of it on the test split."""
    heads = ("promise", "certified in", "cost saved, test", "accuracy lost, test", "at most")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found:
        lines.append(
            f"| {one['promise']} | {one['certified']} of {one['seeds']} | "
            f"{one['saved']:.0f} % | {one['lost']:+.2f} points | {one['most_lost']:+.2f} points |"
        )
    return "\n".join(lines)


def markdown(results: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    told = [
        f"Recorded {results['date']} at commit {results['commit']} by `{results['command']}`.",
        INTRODUCTION.format(seeds=results["seeds"]),
        summary(results["logs"]),
    ]
    for name, body in sections(results):
        told += [f"## {name}", *body]
    return "\n\n".join(told) + "\n"


def figure(name: str, log: Mapping[str, Any]) -> Figure:
    """Gain in AIQ over mixing against the number of training questions."""
    drawn, axes = new_figure(5.6, 3.8)
    sizes = [size for size in log["sizes"] if "compared" in size]
    x = [size["questions"] for size in sizes]
    axes.axhline(0, color=OTHER, linewidth=1)
    for way, (colour, marker) in LOOKS.items():
        entries = [size["compared"][f"{way} minus {MIXING}"][0] for size in sizes]
        y = [entry["value"] for entry in entries]
        axes.plot(x, y, color=colour, marker=marker, markersize=5, label=way)
        if way == "router":
            low, high = ([entry[end] for entry in entries] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(x)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training questions")
    axes.set_ylabel("AIQ above mixing, points")
    axes.set_title(name)
    drawn.legend(loc="outside lower center", ncols=2)
    return drawn


def page(results: Mapping[str, Any]) -> str:
    """The page: a figure and the tables of every log, self-contained."""
    parts = [
        f"<h1>Real logs</h1><p>{html.escape(INTRODUCTION.format(seeds=results['seeds']))}</p>",
        _html_table(summary(results["logs"])),
    ]
    for number, (name, body) in enumerate(sections(results)):
        parts.append(f"<h2>{html.escape(name)}</h2>")
        log = results["logs"][name]
        if "sizes" in log:
            drawing = svg(figure(name, log), name=f"log{number}")
            parts.append(drawing[drawing.index("<svg") :])
        parts += [
            _html_table(text) if text.startswith("|") else f"<p>{html.escape(text)}</p>"
            for text in body
        ]
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
        "td,th{border:1px solid #ccc;padding:.25rem .5rem;text-align:left}svg{max-width:100%}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Real logs</title>'
        f"<style>{style}</style><body>{''.join(parts)}</body></html>\n"
    )


def _html_table(text: str) -> str:
    rows = [line.strip("|").split("|") for line in text.splitlines()]
    made = []
    for number, row in enumerate(rows):
        if number == 1:
            continue
        tag = "th" if number == 0 else "td"
        cells = (html.escape(one.strip()) for one in row)
        bold = (f"<b>{one.strip('*')}</b>" if one.startswith("**") else one for one in cells)
        made.append("<tr>" + "".join(f"<{tag}>{one}</{tag}>" for one in bold) + "</tr>")
    return f"<table>{''.join(made)}</table>"


def main() -> None:
    """Both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    path = parser.parse_args().results
    results = json.loads(path.read_text(encoding="utf-8"))
    atomic_write_text(path.with_name("table.md"), markdown(results))
    atomic_write_text(path.with_name("page.html"), page(results))
    print(summary(results["logs"]))


if __name__ == "__main__":
    main()
