"""Judged result tables of VLMEvalKit: one table per option and data set.

``<model>_<dataset>.xlsx`` (or ``.tsv``) holds predictions only. Evaluating it writes tables with a
verdict per row, which are read here: ``*_<judge>_result`` of multiple choice with ``hit``
(``vlmeval/dataset/image_mcq.py``), ``*_auxmatch`` of yes/no with ``score``
(``image_yorn.py``), ``*_results`` of short answers with ``eval_match`` and ``eval_score``
(``image_vqa.py``), and ``*_score`` tables with ``score``. ``*_acc.csv`` and ``*_score.csv`` are
averages. Predictions without verdicts are scored by :mod:`data.importers.vlmeval_rules`. With
``PRED_FORMAT`` they are ``.tsv`` or ``.json`` (``vlmeval/smp/file.py``, ``dump``: a list of rows,
NaN where a cell is empty).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from data.cells import Nested
from data.errors import DataError
from data.importers.image_cells import image_path
from data.importers.joined import Runs, Sample, join, listed, places
from data.importers.references import references_in
from data.importers.vlmeval_names import dataset_names, tables_in
from data.importers.vlmeval_rules import BY_NAME, LETTERS, Row, rule_of, verdict_reader
from data.oracle_log import OracleLog
from data.sources.paths import leaves_folder
from data.tables import read_cells

FAILED = "Failed to obtain answer"
"""Prediction that VLMEvalKit writes when the model gave none (``vlmeval/smp/file.py``)."""

VERDICTS = ("hit", "eval_match", "score", "eval_score")
"""Columns that hold a row's verdict; the first that the table has counts. ``eval_match`` comes
before ``eval_score`` because the latter is a mean of the former, which for DocVQA and InfoVQA is
a mean of *distances*: 0 when right."""

USED = ("index", "question", "prediction", "answer", "image_path", "g_index")


def read_vlmevalkit(
    runs: Runs,
    *,
    costs: Mapping[str, float] | None = None,
    cost_unit: str = "cost",
    metric: Mapping[str, str] | None = None,
    dataset: str | None = None,
    pictures: str | None = None,
    skip_bad: bool = False,
) -> OracleLog:
    """Read judged tables, of one or several data sets, and join them by ``index``.

    A prediction that starts with "Failed to obtain answer" is an error record, whatever its
    verdict. The group is ``image_path``, else ``g_index``, else the example stands alone. In a
    circular evaluation (MMBench, CCBench) a question is right if it is under every rotation of its
    choices; the table then has one row for it. Chance is one over the number of choices, raised
    to that number of rotations; 1/2 for yes and no; else 0.

    Args:
        runs: Option -> its table or tables, in any format of :mod:`data.tables` (``.xlsx`` needs
            openpyxl), or the folder that holds them.
        costs: Option -> cost of an answer; see :func:`data.importers.joined.join`.
        cost_unit: What the costs count.
        metric: Data set, or ``"*"`` for all -> column that holds the verdicts, each in [0, 1].
        dataset: What the log calls the only data set; None reads it from the files' names, see
            :mod:`data.importers.vlmeval_names`.
        pictures: Path of a picture that no row names, such as ``"{id}.jpg"``: the ``index``.
        skip_bad: Leave rows out that cannot be read, and tell them, instead of refusing the table.

    Returns:
        The log; ``metadata["unmapped"]`` says in sentences what could not be mapped.

    Raises:
        DataError: A table cannot be read, lacks columns, doubles an index, or holds a verdict
            that is not in [0, 1]; or an option has two tables of one data set.
        MismatchError: Question or answer of an index differ between options.
    """
    files = {
        option: [table for place in places(given) for table in tables_in(place)]
        for option, given in runs.items()
    }
    named = dataset_names(files, dataset)
    notes: dict[str, list[str]] = {}
    read: dict[str, dict[str, Sample]] = {}
    for option, tables in named.items():
        read[option] = {}
        for name, path in tables.items():
            asked = (metric or {}).get(name) or (metric or {}).get("*")
            samples, told = _samples(path, name, asked, skip_bad)
            read[option].update(samples)
            for note in told:
                whole = note if len(tables) == 1 else f"{name}: {note}"
                notes.setdefault(whole, []).append(option)
    return join(
        read,
        costs=costs or {},
        cost_unit=cost_unit,
        metadata={
            "source": "VLMEvalKit result tables",
            "runs": {
                option: {"path": ", ".join(path.name for path in tables.values())}
                for option, tables in named.items()
            },
        },
        pictures=pictures,
        notes=notes,
        skip_bad=skip_bad,
    )


def _samples(
    path: Path, dataset: str, asked: str | None, skip_bad: bool
) -> tuple[dict[str, Sample], list[str]]:
    """Read a table's rows by example id, and tell what is not used, lacking or left out."""
    bad: list[str] = []
    rows, names = _read(path, bad if skip_bad else None)
    _check_names(path, rows, names)
    rows = _indexed(path, rows, bad, skip_bad)
    metric, column, score, told = _scoring(path, dataset, rows, names, asked)
    samples: dict[str, Sample] = {}
    lost: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            verdict = score(row)
        except (ValueError, SyntaxError, TypeError) as error:
            if skip_bad:
                bad.append(f"index {row['index']}: {row.get(column)!r} is no verdict in [0, 1]")
                continue
            raise DataError(
                f"{path} row {number} (index {row['index']}): the column {column!r} must hold "
                f"verdicts in [0, 1], got {row.get(column)!r}. Name another with --metric COLUMN, "
                "or leave such rows out with --skip-bad."
            ) from error
        name, answer = f"{dataset}/{row['index']}", row.get("answer")
        samples[name] = replace(
            _sample(dataset, row, verdict, circular="g_index" in names and column != "prediction"),
            references=None if answer is None else references_in(answer),
            metric=metric,
        )
        lost += [name] if _lost_choice(row) else []
    if not samples:
        raise DataError(f"{path}: no row is left, all are bad ({listed(bad, 3)}).")
    used = {*USED, *LETTERS, column}
    unused = sorted(name for name in names if name not in used)
    told += [f"columns not used: {unused}"] if unused else []
    if bad:
        told.append(f"{len(bad)} rows are bad and were left out ({listed(bad, 3)})")
    if lost:
        told.append(
            f"{len(lost)} questions have no text for the choice that is right ({listed(lost)}), so "
            "the model was not shown it: until September 2026 VLMEvalKit took the word 'None' for "
            "a missing cell (its issue 1559)"
        )
    named = [row["image_path"] for row in rows if row.get("image_path") is not None]
    if len(set(named)) == len(named) > 1:
        told.append(
            "image_path is another one in every row: it does not tell which questions share an "
            "image, so a split may have one image on both sides"
        )
    return samples, told


def _indexed(path: Path, rows: list[Row], bad: list[str], skip_bad: bool) -> list[Row]:
    """Give the rows that have an index of their own; refuse or leave out the others."""
    counts = Counter(str(row["index"]) for row in rows if row["index"] is not None)
    empty = len(rows) - counts.total()
    twice = [index for index, count in counts.items() if count > 1]
    if skip_bad:
        bad += [f"{empty} rows have no index"] if empty else []
        bad += [f"index {index} stands in {counts[index]} rows" for index in twice]
        return [row for row in rows if counts[str(row["index"])] == 1 and row["index"] is not None]
    way = "--skip-bad leaves such rows out."
    if empty:
        raise DataError(f"{path}: {empty} rows have no index. {way}")
    if twice:
        raise DataError(
            f"{path} has {len(twice)} rows with an index twice ({listed(twice)}). {way}"
        )
    return rows


def _lost_choice(row: Row) -> bool:
    """Whether the right answer is a letter without a text, although other letters have one."""
    answer = row.get("answer")
    shown = any(row.get(letter) is not None for letter in LETTERS)
    return shown and answer in LETTERS and row.get(answer) is None


def _read(path: Path, left_out: list[str] | None) -> tuple[list[Row], list[str]]:
    """Read a table's rows and names; the names in lower case but for A to Z."""
    table = read_cells(path, left_out=left_out)
    columns: dict[str, list[str | None]] = {}
    for name in table.names:
        own = name if name in LETTERS else name.lower()
        if own in columns:
            raise DataError(f"{path} has two columns that read as {own!r}: rename one of them.")
        cells = table.keys(name) if own == "index" else table.cells(name, strip=own != "prediction")
        # What VLMEvalKit writes as a list of values is one in JSON and its text elsewhere.
        texts = [str(cell.value) if isinstance(cell, Nested) else cell for cell in cells]
        columns[own] = texts if own == "prediction" else [text or None for text in texts]
    names = list(columns)
    return [
        dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ], names


def _check_names(path: Path, rows: list[Row], names: list[str]) -> None:
    """Check that the table has rows of examples."""
    missing = [name for name in ("index", "question", "prediction") if name not in names]
    if missing:
        raise DataError(
            f"{path} lacks the columns {missing}; it has {names}. Give the table with a verdict "
            "per row (such as *_result), not one of averages (*_acc, *_score.csv)."
        )
    if not rows:
        raise DataError(f"{path} holds no rows.")


def _scoring(
    path: Path, dataset: str, rows: list[Row], names: list[str], asked: str | None
) -> tuple[str, str, Callable[[Row], float | None], list[str]]:
    """Find what scores a row: the column with its verdict, else the benchmark's rule.

    Returns:
        What the log calls the metric, the column that is read, the score of a row, and what is
        told about it.
    """
    wanted = (asked if asked in LETTERS else asked.lower(),) if asked else VERDICTS
    column = next((name for name in wanted if name in names), None)
    if column is not None:
        score = verdict_reader(column, dataset)
        return column, column, lambda row: score(row[column]), []
    known = None if asked else rule_of(dataset, rows)
    if known is None:
        raise DataError(
            f"{path} has no column with verdicts ({' or '.join(wanted)}); it has {names}. A table "
            "of predictions must be evaluated first: give what VLMEvalKit then writes (*_result, "
            "*_auxmatch, *_results), or --metric COLUMN. Without verdicts only multiple choice and "
            f"{', '.join(BY_NAME)} are scored here, and those only where the table has answers."
        )
    name, rule = known
    return (
        name,
        "prediction",
        rule,
        [f"no column with verdicts: the predictions were scored here, by the rule {name!r}"],
    )


def _sample(dataset: str, row: Row, score: float | None, *, circular: bool) -> Sample:
    """Map one row."""
    prediction = row["prediction"]
    error = None if score is not None else "the table has no verdict, or no rule scores the row"
    if (prediction or "").startswith(FAILED):
        score, error = None, f"VLMEvalKit: {prediction}"
    choices = [letter for letter in LETTERS if row.get(letter) is not None]
    answer = row.get("answer")
    chance = 0.0
    if len(choices) > 1:
        chance = len(choices) ** -float(len(choices) if circular else 1)
    elif (answer or "").lower() in ("yes", "no"):
        chance = 0.5
    picture = row.get("image_path")
    inside = picture is not None and not image_path(picture)[1] and not leaves_folder(picture)
    group = picture or row.get("g_index")
    question = row["question"] or ""
    return Sample(
        dataset=dataset,
        question="\n".join([question, *(f"{letter}. {row[letter]}" for letter in choices)]),
        score=score,
        answer=None if error else prediction or "",
        image=picture if picture is not None and inside else "",
        group=f"{dataset}/{group}" if group else None,
        chance=chance,
        error=error,
        identity={"question": question, **({"answer": answer} if answer is not None else {})},
    )
