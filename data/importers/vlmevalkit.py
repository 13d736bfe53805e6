"""Judged result tables of VLMEvalKit: one table per option.

``<model>_<dataset>.xlsx`` (or ``.tsv``) holds predictions only. Evaluating it writes tables with a
verdict per row, which are read here: ``*_<judge>_result`` of multiple choice with ``hit``
(``vlmeval/dataset/image_mcq.py``), ``*_auxmatch`` of yes/no with ``score``
(``image_yorn.py``), ``*_results`` of short answers with ``eval_match`` and ``eval_score``
(``image_vqa.py``), and ``*_score`` tables with ``score``. ``*_acc.csv`` and ``*_score.csv`` are
averages. With ``PRED_FORMAT`` they are ``.tsv`` or ``.json`` (``vlmeval/smp/file.py``, ``dump``:
a list of rows, NaN where a cell is empty).
"""

from __future__ import annotations

import ast
import string
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.cells import Nested, verdict_of
from data.errors import DataError
from data.importers.image_cells import image_path
from data.importers.joined import Sample, join, listed
from data.importers.references import references_in
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

_LETTERS = tuple(string.ascii_uppercase)
Row = Mapping[str, str | None]


def read_vlmevalkit(
    runs: Mapping[str, Path],
    *,
    costs: Mapping[str, float] | None = None,
    cost_unit: str = "cost",
    metric: Mapping[str, str] | None = None,
    dataset: str | None = None,
    pictures: str | None = None,
) -> OracleLog:
    """Read one judged table per option and join them by ``index``.

    A prediction that starts with "Failed to obtain answer" is an error record, whatever its
    verdict. The group is ``image_path``, else ``g_index``, else the example stands alone. In a
    circular evaluation (MMBench, CCBench) a question is right if it is under every rotation of its
    choices; the table then has one row for it. Chance is one over the number of choices, raised
    to that number of rotations; 1/2 for yes and no; else 0.

    Args:
        runs: Option -> table, in any format of :mod:`data.tables` (``.xlsx`` needs openpyxl).
        costs: Option -> cost of an answer; see :func:`data.importers.joined.join`.
        cost_unit: What the costs count.
        metric: ``{"*": column}`` names the column that holds the verdicts, each in [0, 1].
        dataset: What the log calls the dataset; None takes what the files' names end in alike.
        pictures: Path of a picture that no row names, such as ``"{id}.jpg"``: the ``index``.

    Returns:
        The log; ``metadata["unmapped"]`` says in sentences what could not be mapped.

    Raises:
        DataError: A table cannot be read, lacks columns, doubles an index, or holds a verdict
            that is not in [0, 1].
        MismatchError: Question or answer of an index differ between options.
    """
    name = dataset or _shared_name(list(runs.values()))
    notes: dict[str, list[str]] = {}
    read: dict[str, dict[str, Sample]] = {}
    for option, path in runs.items():
        read[option], told = _samples(path, name, (metric or {}).get("*"))
        for note in told:
            notes.setdefault(note, []).append(option)
    return join(
        read,
        costs=costs or {},
        cost_unit=cost_unit,
        metadata={
            "source": "VLMEvalKit result tables",
            "runs": {option: {"path": path.name} for option, path in runs.items()},
        },
        pictures=pictures,
        notes=notes,
    )


def _shared_name(paths: list[Path]) -> str:
    """Give the parts, between underscores, that all files' names end in, without the verdicts'."""
    parts = []
    for path in paths:
        stem = path.stem
        for end in ("_result", "_results", "_auxmatch", "_score"):
            stem = stem.removesuffix(end)
        for judge in ("_openai", "_exact_matching", "_gpt4", "_chatgpt-0125", "_gpt-4-0125"):
            stem = stem.removesuffix(judge)
        parts.append(stem.split("_")[::-1])
    same: list[str] = []
    for words in zip(*parts, strict=False):
        if len(set(words)) > 1:
            break
        same.append(words[0])
    return "_".join(same[::-1]) or "default"


def _samples(path: Path, dataset: str, asked: str | None) -> tuple[dict[str, Sample], list[str]]:
    """Read a table's rows by example id, and tell what is not used or lacking."""
    rows, names = _read(path)
    column = _verdicts(path, rows, names, asked)
    indices = [row["index"] for row in rows]
    empty = sum(index is None for index in indices)
    if empty:
        raise DataError(f"{path}: {empty} rows have no index.")
    counts = Counter(map(str, indices))
    twice = [index for index, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{path} has {len(twice)} rows with an index twice ({listed(twice)}).")
    score = _score_of(column, dataset)
    samples: dict[str, Sample] = {}
    lost: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            verdict = score(row[column])
        except (ValueError, SyntaxError, TypeError) as error:
            raise DataError(
                f"{path} row {number} (index {row['index']}): the column {column!r} must hold "
                f"verdicts in [0, 1], got {row[column]!r}. Name another with --metric COLUMN."
            ) from error
        name, answer = f"{dataset}/{row['index']}", row.get("answer")
        samples[name] = replace(
            _sample(dataset, row, verdict, circular="g_index" in names),
            references=None if answer is None else references_in(answer),
            metric=column,
        )
        lost += [name] if _lost_choice(row) else []
    used = {*USED, *_LETTERS, column}
    unused = sorted(name for name in names if name not in used)
    told = [f"columns not used: {unused}"] if unused else []
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


def _lost_choice(row: Row) -> bool:
    """Whether the right answer is a letter without a text, although other letters have one."""
    answer = row.get("answer")
    shown = any(row.get(letter) is not None for letter in _LETTERS)
    return shown and answer in _LETTERS and row.get(answer) is None


def _read(path: Path) -> tuple[list[Row], list[str]]:
    """Read a table's rows and names; the names in lower case but for A to Z."""
    table = read_cells(path)
    columns: dict[str, list[str | None]] = {}
    for name in table.names:
        own = name if name in _LETTERS else name.lower()
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


def _verdicts(path: Path, rows: list[Row], names: list[str], asked: str | None) -> str:
    """Find the column with the verdicts, and check that the table has rows of examples."""
    missing = [name for name in ("index", "question", "prediction") if name not in names]
    if missing:
        raise DataError(
            f"{path} lacks the columns {missing}; it has {names}. Give the table with a verdict "
            "per row (such as *_result), not one of averages (*_acc, *_score.csv)."
        )
    if not rows:
        raise DataError(f"{path} holds no rows.")
    wanted = (asked if asked in _LETTERS else asked.lower(),) if asked else VERDICTS
    found = [name for name in wanted if name in names]
    if not found:
        raise DataError(
            f"{path} has no column with verdicts ({' or '.join(wanted)}); it has {names}. A table "
            "of predictions must be evaluated first: give what VLMEvalKit then writes (*_result, "
            "*_auxmatch, *_results), or --metric COLUMN."
        )
    return found[0]


def _score_of(column: str, dataset: str) -> Callable[[str | None], float | None]:
    """Choose how a verdict is read; a cell without one gives None."""
    rules = {
        "docvqa": _anls,
        "infovqa": _anls,
        "chartqa": _best,
        "ocrvqa": _best,
        "textvqa": _mean,
    }
    lower = dataset.lower()
    named = max(rules, key=lower.rfind)  # the last: a model's name may stand before
    by_name = rules[named] if named in lower else _mean
    read = by_name if column == "eval_match" else _number

    def score(cell: str | None) -> float | None:
        value = None if cell is None else read(cell)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(value)
        return value

    return score


def _number(cell: str) -> float:
    value = verdict_of(cell)
    if value is None:
        raise ValueError(cell)
    return value


def _matches(cell: str) -> np.ndarray:
    """Read how well an answer matches each right one, shape (answers,)."""
    matches = np.array(ast.literal_eval(cell), dtype=np.float64).reshape(-1)
    if not matches.size:
        raise ValueError(cell)
    return matches


def _mean(cell: str) -> float:
    """``hit_calculate`` of ``vlmeval/dataset/utils/vqa_eval.py``, its default."""
    return float(_matches(cell).mean())


def _best(cell: str) -> float:
    """The same for ChartQA and OCRVQA."""
    return float(_matches(cell).max())


def _anls(cell: str) -> float:
    """The same for DocVQA and InfoVQA, whose matches are distances: 0 below a similarity of 1/2."""
    similar = 1 - float(_matches(cell).min())
    return similar if similar >= 0.5 else 0.0


def _sample(dataset: str, row: Row, score: float | None, *, circular: bool) -> Sample:
    """Map one row."""
    prediction = row["prediction"]
    error = None if score is not None else "the table has no verdict"
    if (prediction or "").startswith(FAILED):
        score, error = None, f"VLMEvalKit: {prediction}"
    choices = [letter for letter in _LETTERS if row.get(letter) is not None]
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
