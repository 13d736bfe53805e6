"""The summary of a log as tables: to be read in the terminal and on the page, and as CSV files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m3router.data.scoring.mme import COGNITION, PERCEPTION
from m3router.router.metrics.oracles import ASSUMES
from m3router.router.metrics.paired_bootstrap import Estimate
from m3router.router.reports.log_summary_types import (
    Inspection,
    MmeScore,
    OptionUsage,
    Oracle,
    Part,
    ScaleCounts,
)
from m3router.router.text.expected import expected_text
from m3router.router.text.numbers import MISSING, interval, number, percent
from m3router.router.text.words import Words
from m3router.router.training.targets import MEANING

ACROSS = 5
"""Datasets beside each other in one table: what a terminal holds."""
NEVER = "never"
LONGEST = 60  # letters of a question
MAY_BE_UNKNOWN = (
    *("GFLOPs", "text\ntokens", "answer\ntokens", "expected", "image\ntokens", "these are"),
    *("cached %", "seconds", "price", "requests", "GFLOPs,\nlanguage", "GFLOPs,\ntower"),
)
"""Columns that are left out where the log says nothing of them; imported logs seldom do."""

# Control characters but the line break, and what overrides the direction of writing.
_COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A table to be read.

    Attributes:
        title: What it shows.
        note: How to read it; may be empty.
        header: One name per column.
        rows: Texts; a line break stands before the interval of a value.
    """

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]


def shown_tables(inspection: Inspection) -> list[Shown]:
    """All tables that say something, in order of reading."""
    tables = [
        _counts(inspection),
        _usage(inspection),
        _ties(inspection),
        *_table2(inspection),
        _mme(inspection),
        *_smallest(inspection),
        _disagreements(inspection),
        _steps(inspection),
        _causes(inspection),
        _expensive(inspection),
    ]
    return [_printable(_worded(_told(table), inspection.words)) for table in tables if table.rows]


def _told(table: Shown) -> Shown:
    """A table without columns that the log tells nothing about."""
    kept = [
        place
        for place, name in enumerate(table.header)
        if name not in MAY_BE_UNKNOWN or any(row[place] != MISSING for row in table.rows)
    ]
    return replace(
        table,
        header=[table.header[place] for place in kept],
        rows=[[row[place] for place in kept] for row in table.rows],
    )


def _worded(table: Shown, words: Words) -> Shown:
    """A table in the words that fit its log; names of options and datasets stay as they are."""

    def cell(text: str) -> str:
        return words.of(text) if text in ("images", "scale", "scales") else text

    return replace(
        table,
        title=words.of(table.title),
        note=words.of(table.note),
        header=[cell(name) for name in table.header],
        rows=[[cell(row[0]), *row[1:]] if row else row for row in table.rows],
    )


def _counts(inspection: Inspection) -> Shown:
    rows = []
    for part in inspection.parts:
        for place, one in enumerate(part.scales):
            first = part.dataset if place == 0 else ""
            figures = [number(one.cost), number(one.gflops), *_sizes(one)]
            rows.append([first, one.scale, _line(one.accuracy), *figures])
    gaps = any(one.errors or one.missing for one in inspection.parts[0].scales)
    uneven = "; scales with errors or gaps stand for fewer questions" if gaps else ""
    return Shown(
        title="Every scale",
        note="accuracy %: of the answers there are" + uneven + _level(inspection),
        header=["dataset", "scale", "accuracy %", f"mean\n{inspection.cost_unit}", "GFLOPs"]
        + ["answered", "errors", "not asked"],
        rows=rows,
    )


def _usage(inspection: Inspection) -> Shown:
    """What answers used beside their cost; no table where a log says nothing of it."""
    rows = [
        [one.scale, number(one.cost), number(one.image_tokens), _sources(one)]
        + [percent(one.cached), number(one.seconds), number(one.price), number(one.attempts)]
        + [number(one.gflops), number(one.tower_gflops)]
        for one in inspection.usage
    ]
    known = any(cell != MISSING for row in rows for cell in (*row[2:8], row[9]))
    return Shown(
        title="What answers used",
        note="means of the answers there are; no number where it is not known of every one",
        header=["scale", f"mean\n{inspection.cost_unit}", "image\ntokens", "these are"]
        + ["cached %", "seconds", "price", "requests", "GFLOPs,\nlanguage", "GFLOPs,\ntower"],
        rows=rows if known else [],
    )


def _sources(one: OptionUsage) -> str:
    """Where image tokens come from, with shares where from several."""
    named = (("counted", one.counted), ("reported", one.reported), ("derived", one.derived))
    found = [(name, share) for name, share in named if share]
    if len(found) == 1 and found[0][1] == 1:
        return found[0][0]
    return ", ".join(f"{percent(share)} % {name}" for name, share in found) or MISSING


def _ties(inspection: Inspection) -> Shown:
    """Which options cost the same on how many questions; no table where none does."""
    rows = [
        [f"{one.coarse} → {one.fine}", _count(one.both), _count(one.tied)]
        + [percent(one.tied / one.both), percent(one.same / one.answers if one.answers else None)]
        for one in inspection.ties
        if one.tied
    ]
    return Shown(
        title="Scales of equal cost",
        note="of questions with a cost at both; a small image may reach no finer scale than it has",
        header=["scales", "questions", "equal", "%", "of these the\nsame answer %"],
        rows=rows,
    )


def _table2(inspection: Inspection) -> Iterator[Shown]:
    """As in M3's Table 2: datasets across, a line per fixed scale, and last the oracle's."""
    parts = [part for part in inspection.parts if part.complete]
    for begin in range(0, len(parts), ACROSS):
        across = parts[begin : begin + ACROSS]
        rows = [
            ["questions", *[_count(part.complete) for part in across]],
            ["images", *[_count(part.images) for part in across]],
        ]
        for k, option in enumerate(inspection.options):
            rows.append([f"fixed {option}", *[_cell(part.scales[k].fixed) for part in across]])
        for rule in inspection.rules:
            rows += _oracle_lines(rule, across, inspection.cost_unit)
        first = begin == 0
        yield Shown(
            title="Fixed scales and the oracle" + ("" if first else ", continued"),
            note=_oracle_note(inspection) if first else "",
            header=["accuracy %", *[part.dataset for part in across]],
            rows=rows,
        )


def _oracle_lines(rule: str, parts: Sequence[Part], unit: str) -> list[list[str]]:
    """The oracle's accuracy and cost under one rule, raw and corrected for chance."""
    found = [_oracle_of(part, rule) for part in parts]
    if not any(found):
        return []
    lines = [
        [f"oracle, {rule}", *[_cell(one.accuracy if one else None) for one in found]],
        [f"  {unit}", *[number(one.cost.value) if one else MISSING for one in found]],
    ]
    if any(one and one.corrected_accuracy for one in found):
        accuracies = [one.corrected_accuracy if one else None for one in found]
        costs = [one.corrected_cost if one else None for one in found]
        lines += [
            ["  corrected for chance", *map(_cell, accuracies)],
            [f"  {unit}", *[number(cost.value if cost else None) for cost in costs]],
        ]
    return lines


def _mme(inspection: Inspection) -> Shown:
    return Shown(
        title="MME as published",
        note="accuracy by question + accuracy+ by image, both in %: at most 200 for a subtask, "
        "2000 for perception, 800 for cognition",
        header=["subtask", *(one.scale for one in inspection.mme)],
        rows=mme_rows(inspection.mme),
    )


def _smallest(inspection: Inspection) -> Iterator[Shown]:
    for rule in inspection.rules:
        rows = []
        for part in inspection.parts:
            oracle = _oracle_of(part, rule)
            if oracle:
                shares = [percent(count / part.complete) for count in oracle.smallest]
                rows.append([part.dataset, _count(part.complete), *shares])
        yield Shown(
            title=f"Smallest sufficient scale, {rule}",
            note=f"% of the questions; {MEANING[rule]}",
            header=["dataset", "questions", *inspection.options, NEVER],
            rows=rows,
        )


def _disagreements(inspection: Inspection) -> Shown:
    shares = {
        (pair.coarse, pair.fine): pair.differ / pair.answers
        for pair in inspection.pairs
        if pair.answers
    }
    rows = []
    for row in inspection.options:
        both = [shares.get((row, one), shares.get((one, row))) for one in inspection.options]
        rows.append([row, *[percent(one) if one is not None else "" for one in both]])
    return Shown(
        title="How often answers differ",
        note="% of the questions with an answer at both scales; case and outer blanks ignored",
        header=["scale", *inspection.options],
        rows=rows if shares else [],
    )


def _steps(inspection: Inspection) -> Shown:
    rows = [
        [f"{one.coarse} → {one.fine}", _count(one.scored)]
        + [_count(one.right_to_wrong), _line(one.lost), _count(one.wrong_to_right), _line(one.won)]
        for one in inspection.steps
        if one.scored
    ]
    return Shown(
        title="What more tokens change" if inspection.words.scales else "What more cost changes",
        note="questions with a score at both scales" + _level(inspection),
        header=["scales", "questions", "right → wrong", "%", "wrong → right", "%"],
        rows=rows,
    )


def _causes(inspection: Inspection) -> Shown:
    rows = [
        [_count(one.rows), _count(one.examples), ", ".join(one.scales), one.example, one.text]
        for one in inspection.causes
    ]
    return Shown(
        title="Errors by cause",
        note="texts that differ only in names of files and numbers are one cause",
        header=["answers", "questions", "scales", "first id", "its error"],
        rows=rows,
    )


def _expensive(inspection: Inspection) -> Shown:
    rows = [
        [one.id, one.dataset, number(one.gflops), number(one.cost), number(one.text_tokens)]
        + [number(one.answer_tokens), _short(one.question)]
        + [_short(expected_text(one.references) or MISSING)]
        for one in inspection.expensive
    ]
    return Shown(
        title="The most expensive questions",
        note="summed over all scales that were asked",
        header=["id", "dataset", "GFLOPs", inspection.cost_unit, "text\ntokens", "answer\ntokens"]
        + ["question", "expected"],
        rows=rows,
    )


def csv_files(inspection: Inspection) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """The same in full precision: file stem -> (header, rows)."""
    document = inspection.to_dict()
    scales, oracles, smallest = [], [], []
    for part in document["parts"]:
        start = {key: part[key] for key in ("dataset", "examples", "complete", "images")}
        scales += [{**start, **_flat(one)} for one in part["scales"]]
        for one in part["oracles"]:
            named = zip((*inspection.options, NEVER), one.pop("smallest"), strict=True)
            oracles.append({**start, **_flat(one)})
            smallest += [
                {"dataset": part["dataset"], "rule": one["rule"], "smallest": name, "examples": n}
                for name, n in named
            ]
    tables = {
        "scales": scales,
        "usage": document["usage"],
        "ties": document["ties"],
        "oracles": oracles,
        "smallest": smallest,
        "disagreements": document["pairs"],
        "steps": [_flat(one) for one in document["steps"]],
        "causes": [_flat(one) for one in document["causes"]],
        "expensive": [_flat(one) for one in document["expensive"]],
        "mme": mme_records(inspection.mme),
    }
    return {
        stem: (list(rows[0]), [list(row.values()) for row in rows])
        for stem, rows in tables.items()
        if rows
    }


MAY_LACK = ("corrected_accuracy", "corrected_cost")
"""Estimates that not every rule has."""


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Spread estimates over three columns; lists become texts."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) or (value is None and name in MAY_LACK):
            ends = value or {"value": None, "low": None, "high": None}
            flat |= {name: ends["value"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}
        else:
            flat[name] = ", ".join(value) if isinstance(value, tuple | list) else value
    return flat


def _oracle_of(part: Part, rule: str) -> Oracle | None:
    return next((one for one in part.oracles if one.rule == rule), None)


def _sizes(one: ScaleCounts) -> list[str]:
    return [_count(size) for size in (one.answered, one.errors, one.missing)]


def _cell(value: Estimate | None) -> str:
    """A share in per cent, its interval on a line of its own."""
    if value is None:
        return MISSING
    ends = interval(value.to_dict())
    return percent(value.value) + ("" if ends == MISSING else "\n" + ends.replace(" to ", "–"))


def _line(value: Estimate) -> str:
    ends = interval(value.to_dict()).replace(" to ", "–")
    return percent(value.value) + ("" if ends == MISSING else f" ({ends})")


def _count(value: int) -> str:
    return f"{value:,}"


def _level(inspection: Inspection) -> str:
    return f"; 95 % interval by image, {inspection.draws} draws"


def _oracle_note(inspection: Inspection) -> str:
    return (
        "questions answered at every scale. The oracle takes the smallest sufficient scale, the "
        f"cheapest where none suffices. {ASSUMES}"
    )


def _printable(table: Shown) -> Shown:
    """Texts of the log without what would command a terminal or turn a line around."""
    header, *rows = [
        [_COMMANDS.sub("�", cell) for cell in row] for row in (table.header, *table.rows)
    ]
    return Shown(title=table.title, note=table.note, header=header, rows=rows)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def mme_rows(scores: Sequence[MmeScore]) -> list[list[str]]:
    """Subtasks down and last their sums, options across; none where there is no score."""
    sums = [one.sums for one in scores]
    rows = [
        [name, *(_shown(one.subtasks.get(name)) for one in sums)]
        for name in (*PERCEPTION, *COGNITION)
        if any(name in one.subtasks for one in sums)
    ]
    for name, names in (("perception", PERCEPTION), ("cognition", COGNITION)):
        there = max((len(set(names) & set(one.subtasks)) for one in sums), default=0)
        if there:
            label = f"{name}, {there} of {len(names)}"
            rows.append([label, *(_shown(getattr(one, name)) for one in sums)])
    if any(one.left_out for one in sums):
        rows.append(["images left out", *(f"{one.left_out:,}" for one in sums)])
    return rows


def mme_records(scores: Sequence[MmeScore]) -> list[dict[str, Any]]:
    """One record per option and score."""
    return [
        {"scale": one.scale, "score": name, "value": value}
        for one in scores
        for name, value in (
            *one.sums.subtasks.items(),
            ("perception", one.sums.perception),
            ("cognition", one.sums.cognition),
        )
        if value is not None
    ]


def _shown(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"
