"""One run per option, joined: what the importers of whole evaluation runs share."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3router.data.errors import DataError, MismatchError, listed
from m3router.data.importers.costs import Costs, by_cost, contradiction, mean_costs
from m3router.data.importers.group_tables import read_groups
from m3router.data.importers.usage import NOTHING, CellUsage
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.warnings import lone_groups
from m3router.data.media_files import leaves_folder
from m3router.data.paths import StrPath, as_path
from m3router.data.prices import Prices


def references_in(text: str) -> tuple[str, ...]:
    """Reference answers in a cell: a list of texts as Python or JSON writes it, or one text.

    >>> references_in("['1/8/93', 'Jan 8']")
    ('1/8/93', 'Jan 8')
    >>> references_in("[3]")
    ('[3]',)
    """
    if text[:1] == "[" and text[-1:] == "]":
        try:
            listed = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return tuple(listed)
    return (text,)


ALL = "*"
UNMAPPED = "unmapped"
"""Metadata entry: sentences about what an importer could not map, and what it did about it."""
_NOT_USED = re.compile(r"\b(columns|fields) not used: ")


def import_note(sentence: str) -> str:
    """A sentence of `UNMAPPED` as it is shown; of columns or fields, that they were not mapped.

    >>> import_note("columns not used: ['more']")
    "not mapped: columns not used: ['more']"
    >>> import_note("the predictions were scored here")
    'the predictions were scored here'
    """
    return f"not mapped: {sentence}" if _NOT_USED.search(sentence) else sentence


@dataclass(frozen=True)
class Sample:
    """One answer of one option.

    Attributes:
        dataset: Its dataset or task.
        question: What was asked.
        score: In [0, 1]; None where there is none, then ``error`` says why.
        answer: What was answered.
        image: Image, relative to the images folder; empty when unknown.
        group: Examples of one image share it; None makes the example its own group.
        chance: P(a blind guess scores 1).
        error: Why there is no score.
        identity: What must agree between options (a hash, the target), by name.
        references: The reference answers; None where the tool does not tell them.
        metric: What the tool scored the answer with; None where it does not tell.
        usage: What the answer took.
        own_cost: Its cost, where the file was asked for one; None where it has none.
    """

    dataset: str
    question: str
    score: float | None
    answer: str | None = None
    image: str = ""
    group: str | None = None
    chance: float = 0.0
    error: str | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    references: tuple[str, ...] | None = None
    metric: str | None = None
    usage: CellUsage = NOTHING
    own_cost: float | None = None


Runs = Mapping[str, StrPath | Sequence[StrPath]]
"""Option -> its file or folder, or several of them."""

Samples = Mapping[str, Sample]
"""Example id -> its sample, in one option."""


def join(
    runs: Mapping[str, Samples],
    *,
    costs: Costs,
    metadata: Mapping[str, Any],
    images: str | None = None,
    groups: Mapping[str, StrPath] | None = None,
    notes: Mapping[str, Sequence[str]],
    skip_bad: bool = False,
) -> OracleLog:
    """Join runs over the same examples into one log.

    An example that an option lacks is a gap there with an error record, never a wrong answer.
    Question, image and group are those of the first option that has the example. Without costs
    an option costs the number that its name is; when no name is a number, its place, from 1.

    Args:
        runs: Option -> example id -> sample.
        costs: How the cost of an answer is found.
        metadata: How the log came about.
        images: Path of an example's image where its sample names none, with ``{dataset}`` and
            ``{id}``, which is the example's id without the dataset before it.
        groups: Dataset, or ``"*"`` for all -> table of its questions and their images; see
            :func:`m3router.data.importers.group_tables.read_groups`.
        notes: What was already found not to map -> the options it was found in. It is kept in the
            metadata with what the join finds.
        skip_bad: Leave examples out that are not the same one in two options, and make answers
            whose cost is not known gaps; both are told.

    Returns:
        The log, options by mean cost.

    Raises:
        MismatchError: An example is not the same one in two options.
        DataError: Costs are missing, of options or of answers, or no example is in more than one
            of several options.
    """
    given = list(runs)
    costs.check(given)
    fixed = option_costs(given, costs.fixed) if costs.what is None else {}
    ids = list(dict.fromkeys(name for samples in runs.values() for name in samples))
    torn, first = _torn(runs, ids)
    if torn and (not skip_bad or len(torn) == len(ids)):
        raise MismatchError(
            f"{len(torn)} of {len(ids)} examples are not the same in all options; first, {first}. "
            "The runs are over different data or versions: run them on the same. (--skip-bad "
            "leaves such examples out.)"
        )
    ids = [name for name in ids if name not in torn]
    firsts = _grouped({name: _first(runs, name, images) for name in ids}, groups or {})
    if len(runs) > 1 and not any(sum(name in run for run in runs.values()) > 1 for name in ids):
        raise DataError(
            f"The options {', '.join(runs)} have no example in common: they are runs over "
            "different data. Give runs of the same tasks."
        )
    by_option = [
        f"option{'s' if len(where) > 1 else ''} {', '.join(where)}: {note}"
        for note, where in notes.items()
    ]
    if torn:
        by_option.append(
            f"{len(torn)} examples are not the same in all options and were left out; first, "
            f"{first}"
        )
    runs = {
        option: {name: one for name, one in samples.items() if name not in torn}
        for option, samples in runs.items()
    }
    runs, unknown = _costed(runs, costs, skip_bad)
    wide = np.array(
        [[_cost(costs, fixed, option, runs[option].get(name)) for option in given] for name in ids],
        dtype=np.float64,
    )
    means, ranks = mean_costs(wide), costs.what is None and not costs.fixed
    ranks = ranks and _number(given[0]) is None
    unit = costs.unit_of(ranks=ranks)
    by_option += contradiction(given, means, unit, meant=costs.what is not None)
    options = by_cost(given, means)
    rows = [
        _row(name, option, cost, firsts[name], runs[option].get(name), costs.prices.get(option))
        for name, costs_of in zip(ids, wide.tolist(), strict=True)
        for option, cost in zip(given, costs_of, strict=True)
    ]
    return OracleLog(
        pd.DataFrame(rows),
        options=options,
        cost_unit=unit,
        metadata={
            **metadata,
            UNMAPPED: [*by_option, *unknown, *_told(runs, ids, firsts, ranks=ranks)],
        },
    )


def _cost(
    costs: Costs, fixed: Mapping[str, float], option: str, sample: Sample | None
) -> float | None:
    """What a cell costs."""
    if costs.what is None:
        return fixed[option]
    return None if sample is None else costs.of(option, sample.usage, sample.own_cost)


def _costed(
    runs: Mapping[str, Samples], costs: Costs, skip_bad: bool
) -> tuple[Mapping[str, Samples], list[str]]:
    """Refuse answers whose cost is not known, or make them gaps, and tell them."""
    if costs.what is None:
        return runs, []
    told: list[str] = []
    kept: dict[str, Samples] = {}
    for option, samples in runs.items():
        lack = [
            name
            for name, one in samples.items()
            if one.score is not None and costs.of(option, one.usage, one.own_cost) is None
        ]
        if lack:
            told.append(costs.lacking(f"option {option}", len(lack), len(samples), listed(lack)))
        why = f"no cost: the answer has no {costs.what!r}"
        gaps = {name: replace(samples[name], score=None, error=why) for name in lack}
        kept[option] = {**samples, **gaps}
        if len(lack) == len(samples) and lack:
            raise DataError(f"{told[-1]}. Take another cost (--cost).")
        if lack and not skip_bad:
            raise DataError(
                f"{told[-1]}. Take another cost (--cost), or let such answers be gaps (--skip-bad)."
            )
    return kept, told


def option_costs(options: Sequence[str], costs: Mapping[str, float]) -> dict[str, float]:
    """Say what an answer costs at every option.

    Args:
        options: Their names, in the order given.
        costs: Given costs, for all or none of the options.

    Returns:
        Option -> its given cost, else the number that its name is, else its place, from 1.

    Raises:
        DataError: Costs of some options only, of unknown ones, or negative ones; or some names
            are numbers and others are not.
    """
    if not options:
        raise DataError("No runs: give at least one OPTION=PATH.")
    unknown = sorted(set(costs) - set(options))
    if unknown:
        raise DataError(
            f"Costs were given for {', '.join(unknown)}, but the options are {', '.join(options)}."
        )
    found = dict(costs) if costs else {o: n for o in options if (n := _number(o)) is not None}
    missing = [option for option in options if option not in found]
    if not costs and len(missing) == len(options):
        return {option: float(place) for place, option in enumerate(options, 1)}
    if missing:
        raise DataError(
            f"No cost was given for {', '.join(missing)}: give one to every option "
            "(--cost NAME=NUMBER)."
        )
    bad = {name: cost for name, cost in found.items() if not (np.isfinite(cost) and cost >= 0)}
    if bad:
        raise DataError(f"A cost must be a number of at least 0, got {bad}.")
    return found


def places(given: StrPath | Sequence[StrPath]) -> list[Path]:
    """Give an option's files or folders as a list."""
    if isinstance(given, str | os.PathLike):
        return [as_path(given)]
    return [as_path(one) for one in given]


def _number(text: str) -> float | None:
    """Read an option's name as a cost, if it is a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and value >= 0 else None


def _first(runs: Mapping[str, Samples], name: str, images: str | None) -> Sample:
    """Give an example as the first option has it, with its image."""
    first = next(samples[name] for samples in runs.values() if name in samples)
    if first.image or not images:
        return first
    number = name.removeprefix(f"{first.dataset}/")
    image = images.replace("{dataset}", first.dataset).replace("{id}", number)
    if wrong := leaves_folder(image):
        raise DataError(
            f"The image {image!r} of the example {name!r} {wrong}: --images must name files "
            "inside of the images folder, such as '{dataset}/{id}.png'."
        )
    return replace(first, image=image)


def _grouped(firsts: dict[str, Sample], tables: Mapping[str, StrPath]) -> dict[str, Sample]:
    """The examples with the groups that tables tell."""
    read = {dataset: read_groups(path) for dataset, path in tables.items()}
    found = dict(firsts)
    for dataset, groups in read.items():
        asked = [name for name, one in firsts.items() if dataset in (ALL, one.dataset)]
        told = {name: groups.get(name.removeprefix(f"{firsts[name].dataset}/")) for name in asked}
        missing = [name for name, group in told.items() if group is None]
        if missing or not asked:
            raise MismatchError(
                f"{tables[dataset]} does not name the image of {len(missing)} of {len(asked)} "
                f"examples of {dataset!r} ({listed(missing)}): it is of another data set or "
                f"version. The log has {sorted({one.dataset for one in firsts.values()})}."
            )
        for name, group in told.items():
            one = found[name]
            found[name] = replace(one, group=f"{one.dataset}/{group}")
    return found


def _torn(runs: Mapping[str, Samples], ids: Sequence[str]) -> tuple[set[str], str]:
    """Find the examples of which two options tell different identities, and say it of the first."""
    torn: set[str] = set()
    first = ""
    for name in ids:
        seen: dict[str, tuple[str, str]] = {}
        for option, samples in runs.items():
            if name not in samples:
                continue
            for part, value in samples[name].identity.items():
                other, before = seen.setdefault(part, (option, value))
                if before != value:
                    torn.add(name)
                    first = first or (
                        f"{name!r} has the {part} {before[:60]!r} at option {other!r} and "
                        f"{value[:60]!r} at {option!r}"
                    )
    return torn, first


def _row(
    name: str,
    option: str,
    cost: float | None,
    first: Sample,
    sample: Sample | None,
    prices: Prices | None,
) -> dict[str, Any]:
    """Lay one cell of the log out."""
    score = None if sample is None else sample.score
    error = f"not in the run of option {option!r}" if sample is None else sample.error
    usage = NOTHING if sample is None else sample.usage
    return {
        "example_id": name,
        "group": first.group or name,
        "dataset": first.dataset,
        "question": first.question,
        "image": first.image,
        "scale": option,
        "cost": cost,
        "answer": None if sample is None else sample.answer,
        "score": score,
        "chance": first.chance,
        "error": None if score is not None else error,
        "references": first.references,
        "metric": first.metric,
        **usage.columns(prices),
    }


def _told(
    runs: Mapping[str, Samples], ids: Sequence[str], firsts: Mapping[str, Sample], *, ranks: bool
) -> list[str]:
    """Say what is missing or differs between the runs."""
    told = []
    if ranks and len(runs) > 1:
        counted = any(one.usage != NOTHING for run in runs.values() for one in run.values())
        told.append(
            f"no costs: an option costs its place as given, {', '.join(runs)}, from 1; --cost "
            + ("or --price counts what every answer took" if counted else "tells what answers cost")
        )
    bare = [name for name in ids if not firsts[name].image]
    if bare:
        told.append(
            f"{len(bare)} of {len(ids)} examples name no image file, so that features of "
            f"images cannot be computed; --images names them ({listed(bare)})"
        )
    alone = [name for name in ids if firsts[name].group is None]
    if alone:
        told.append(
            f"{len(alone)} of {len(ids)} examples do not say which image they are about; each is "
            "a group of its own, so a split may have one image on both sides"
        )
    named = [firsts[name] for name in ids if firsts[name].group is not None]
    told += lone_groups([str(one.group) for one in named], [one.dataset for one in named])
    for option, samples in runs.items():
        missing = [name for name in ids if name not in samples]
        if missing:
            told.append(
                f"option {option}: {len(missing)} of {len(ids)} examples are not in its run; "
                f"they are gaps ({listed(missing)})"
            )
        failed = [name for name, sample in samples.items() if sample.score is None]
        if failed:
            told.append(
                f"option {option}: {len(failed)} samples have no score; they are gaps "
                f"({listed(failed)}; first cause: {samples[failed[0]].error})"
            )
        empty = [
            name for name, one in samples.items() if one.score is not None and one.answer == ""
        ]
        if empty:
            told.append(
                f"option {option}: {len(empty)} answers are empty, which may be failed "
                f"generations; they are kept as they were scored ({listed(empty)})"
            )
        other = [name for name, one in samples.items() if one.question != firsts[name].question]
        if other:
            told.append(
                f"option {option}: {len(other)} questions are worded differently from those of an "
                f"earlier option; the first wording is kept ({listed(other)})"
            )
    return told
