"""Judged result tables of VLMEvalKit: one table per option and data set.

``<model>_<dataset>.xlsx`` (or ``.tsv``) holds predictions only. Evaluating it writes tables with a
verdict per row, which are read here: ``*_<judge>_result`` of multiple choice with ``hit``
(``vlmeval/dataset/image_mcq.py``), ``*_auxmatch`` of yes/no with ``score``
(``image_yorn.py``), ``*_results`` of short answers with ``eval_match`` and ``eval_score``
(``image_vqa.py``), and ``*_score`` tables with ``score``. ``*_acc.csv`` and ``*_score.csv`` are
averages. With ``PRED_FORMAT`` they are ``.tsv`` or ``.json`` (``vlmeval/smp/file.py``, ``dump``: a
list of rows, NaN where a cell is empty).

The data set is read from the name: VLMEvalKit writes ``<model>/<model>_<dataset>.xlsx``
(predictions) and, beside it, tables of verdicts with ``_<judge>_result``, ``_auxmatch``,
``_results`` or ``_score`` behind, and of averages with ``_acc`` (``vlmeval/run.py``;
``vlmeval/dataset/*.py``, ``evaluate``).

A row's score is its verdict, or follows from a rule where nobody judged it. VLMEvalKit scores
predictions by rules of its own or with a judging model (``vlmeval/dataset/*.py``). Here the rule is
that of :mod:`m3router.data.scoring.metrics`, which is the benchmark's or
lmms-eval's, and OCRBench's is ``OCRBench.evaluate`` of ``image_vqa.py``. Multiple choice is read by
the rule ``choice``: on four judged tables of two models that were tried it says the same as the
judge of 99.1 to 100 % of the rows, VLMEvalKit's own ``exact_matching`` of 62 to 100 %.
"""

from __future__ import annotations

import ast
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from m3router.data.errors import DataError, listed
from m3router.data.importers.costs import Costs
from m3router.data.importers.joined import Runs, Sample, join, places, references_in
from m3router.data.importers.shared_images import shared_images
from m3router.data.importers.usage import QUANTITIES, amount, usage_in, used_names
from m3router.data.log.oracle_log import OracleLog
from m3router.data.media_files import leaves_folder
from m3router.data.paths import StrPath
from m3router.data.prices import Prices
from m3router.data.scoring.metrics import in_place, load_metric
from m3router.data.tables.cells import Nested, verdict_of
from m3router.data.tables.image_cells import image_path
from m3router.data.tables.table import SUFFIXES, read_cells

_ENDS = ("_result", "_results", "_auxmatch", "_score")
_JUDGES = re.compile(
    r"_(?:openai|exact_matching|(?:chat)?gpt-?\d[\w.]*(?:-[\w.]+)*|deepseek[\w.-]*|qwen[\w.-]*)$"
)
_AVERAGES = ("_acc", "_score.csv", "_rating")
KNOWN = (
    "a-bench", "ai2d", "amber", "blink", "ccbench", "chartqa", "coco", "cv-bench", "docvqa",
    "dynamath", "gqa", "hallusionbench", "hrbench", "infovqa", "llavabench", "logicvista",
    "mathverse", "mathvision", "mathvista", "mmbench", "mme", "mmmu", "mmstar", "mmt-bench",
    "mmvet", "mmvp", "ocrbench", "ocrvqa", "pope", "q-bench", "realworldqa", "scienceqa",
    "seedbench", "tablevqabench", "tdbench", "textvqa", "vizwiz", "vstar",
)  # fmt: skip
"""Beginnings of the names of its data sets, in lower case: where one begins, the model's name ends.
Data sets of other names are recognised by what files of several options end in alike."""


def tables_in(place: Path) -> list[Path]:
    """List a folder's tables but those of averages; a file is itself.

    Raises:
        DataError: The folder holds none.
    """
    if not place.is_dir():
        return [place]
    found = [
        file
        for file in sorted(place.iterdir())
        if file.suffix.lower() in SUFFIXES
        and not file.stem.endswith(_AVERAGES)
        and not file.name.endswith(_AVERAGES)
    ]
    if not found:
        raise DataError(
            f"{place} holds no table of VLMEvalKit ({', '.join(SUFFIXES)}): give a model's folder, "
            "which holds <model>_<dataset>_<judge>_result.xlsx and the like."
        )
    return found


def judged(path: Path) -> bool:
    """Whether a file's name says that it holds verdicts."""
    return path.stem.endswith(_ENDS)


def dataset_names(
    files: Mapping[str, Sequence[Path]], asked: str | None
) -> dict[str, dict[str, Path]]:
    """Say which data set each file is of.

    A file of predictions gives way to one of verdicts about the same data set.

    Args:
        files: Option -> its files.
        asked: What the only data set is to be called; None reads the files' names.

    Returns:
        Option -> data set -> its file.

    Raises:
        DataError: An option has two files of one data set.
    """
    stems = {option: [_bare(path) for path in paths] for option, paths in files.items()}
    found: dict[str, dict[str, Path]] = {}
    for option, paths in files.items():
        named: dict[str, list[Path]] = {}
        for path in paths:
            named.setdefault(asked or _dataset(_bare(path), option, stems), []).append(path)
        found[option] = {name: _only(option, name, same) for name, same in named.items()}
    return found


def by_model(tables: Sequence[Path]) -> dict[str, list[Path]]:
    """Sort files by the model that their names begin with: ``<model>_<dataset>...``.

    Raises:
        DataError: A name does not tell where the model's name ends.
    """
    found: dict[str, list[Path]] = {}
    for path in tables:
        parts = _bare(path).split("_")
        begin = _begin(parts)
        if not begin:
            raise DataError(
                f"The name of {path} does not tell its model and data set apart: no part of it, "
                "between underscores, begins as a known data set after a model's name. Give "
                "OPTION=PATH."
            )
        found.setdefault("_".join(parts[:begin]), []).append(path)
    return found


def _begin(parts: Sequence[str]) -> int | None:
    """Where the data set's name begins, if it is a known one."""
    begins = [place for place, part in enumerate(parts) if part.lower().startswith(KNOWN)]
    return begins[-1] if begins else None


def _only(option: str, name: str, paths: Sequence[Path]) -> Path:
    """Give the one file with verdicts, else the one file."""
    verdicts = [path for path in paths if judged(path)] or list(paths)
    if len(verdicts) > 1:
        raise DataError(
            f"Option {option!r} has {len(verdicts)} tables of the data set {name!r} "
            f"({listed([path.name for path in verdicts])}): give one of them, or give each model "
            "an option of its own."
        )
    return verdicts[0]


def _bare(path: Path) -> str:
    """A file's name without what evaluating puts behind it."""
    stem = path.stem
    for end in _ENDS:
        stem = stem.removesuffix(end)
    return _JUDGES.sub("", stem) if stem != path.stem else stem


def _dataset(stem: str, option: str, stems: Mapping[str, Sequence[str]]) -> str:
    """Give the part of a name that is the data set's."""
    parts = stem.split("_")
    begin = _begin(parts)
    if begin is not None:
        return "_".join(parts[begin:])
    ends = [
        max((_same_end(parts, name) for name in names), key=len)
        for other, names in stems.items()
        if other != option
    ]
    alike = sorted((end for end in ends if end), key=len)
    if alike:
        return "_".join(alike[0])
    if len(stems[option]) == 1:
        return stem if len(stems) == 1 else "default"
    return "_".join(parts[_same_beginning(stems[option]) :]) or stem


def _same_end(parts: Sequence[str], name: str) -> list[str]:
    """Give the parts, between underscores, that two names end in alike."""
    same: list[str] = []
    for one, other in zip(reversed(parts), reversed(name.split("_")), strict=False):
        if one != other:
            break
        same.insert(0, one)
    return same


def _same_beginning(names: Sequence[str]) -> int:
    """Count the parts that names begin with alike: their model's."""
    count = 0
    for words in zip(*(name.split("_") for name in names), strict=False):
        if len(set(words)) > 1:
            break
        count += 1
    return count


LETTERS = tuple(string.ascii_uppercase)
Row = Mapping[str, str | None]
Rule = Callable[[Row], float | None]

CHOICE = "choice"
OCR = "ocrbench"
_FORMULA = "Handwritten Mathematical Expression Recognition"
BY_NAME = {
    "chartqa": "relaxed",
    "docvqa": "anls",
    "gqa": "gqa",
    "infovqa": "anls",
    "mme": "mme",
    "ocrbench": OCR,
    "pope": "pope",
    "textvqa": "textvqa",
    "vizwiz": "textvqa",
}
"""Beginning of a data set's name in lower case -> its rule."""
NOT_ALIKE = ("mme-", "mmerealworld", "ocrbench_v2")
"""Data sets that begin so but are others."""


def rule_of(dataset: str, rows: list[Row]) -> tuple[str, Rule] | None:
    """Find the rule by which a table's predictions can be scored.

    Args:
        dataset: Its name.
        rows: The table.

    Returns:
        The rule's name and the rule, which gives None for a row that it cannot score; None where
        no rule is known.
    """
    if sum(map(_choices, rows)) > len(rows) / 2:
        return CHOICE, _choice
    lower = dataset.lower()
    if lower.startswith(NOT_ALIKE) or any(row.get("answer") is None for row in rows):
        return None
    name = next((rule for start, rule in BY_NAME.items() if lower.startswith(start)), None)
    if name is None:
        return None
    return name, (_ocr if name == OCR else _by_metric(name))


def _choices(row: Row) -> bool:
    """Whether a row is a question with choices, and tells the right one."""
    return row.get("answer") is not None and sum(row.get(one) is not None for one in LETTERS) > 1


def _choice(row: Row) -> float | None:
    if not _choices(row):
        return None
    texts = [row.get(letter) for letter in LETTERS]
    while texts[-1] is None:
        texts.pop()
    return load_metric(CHOICE)(
        row["prediction"] or "", [str(row["answer"])], in_place(tuple(texts))
    )


def _ocr(row: Row) -> float:
    """Whether the prediction holds an answer; formulas are compared without blanks."""
    if row.get("category") == _FORMULA:

        def read(text: str) -> str:
            return text.strip().replace("\n", " ").replace(" ", "")

    else:

        def read(text: str) -> str:
            return text.lower().strip().replace("\n", " ")

    said = read(row["prediction"] or "")
    return float(any(read(text) in said for text in references_in(str(row["answer"]))))


def _by_metric(name: str) -> Rule:
    score = load_metric(name)

    def rule(row: Row) -> float:
        return score(row["prediction"] or "", list(references_in(str(row["answer"]))), ())

    return rule


def verdict_reader(column: str, dataset: str) -> Callable[[str | None], float | None]:
    """Choose how a judged table's verdict is read; a cell without one gives None.

    What is chosen raises ValueError, SyntaxError or TypeError for what is not a verdict in [0, 1].
    """
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
    costs: Mapping[str, float] | str | None = None,
    prices: Mapping[str, Prices] | None = None,
    cost_unit: str | None = None,
    metric: Mapping[str, str] | None = None,
    dataset: str | None = None,
    images: str | None = None,
    groups: Mapping[str, StrPath] | None = None,
    skip_bad: bool = False,
) -> OracleLog:
    """Read judged tables, of one or several data sets, and join them by ``index``.

    A prediction that starts with "Failed to obtain answer" is an error record, whatever its
    verdict. The group is ``image_path``, else ``g_index``, else the example stands alone. In a
    circular evaluation (MMBench, CCBench) a question is right if it is under every rotation of its
    choices; the table then has one row for it. Chance is one over the number of choices, raised
    to that number of rotations; 1/2 for yes and no; else 0.

    Args:
        runs: Option -> its table or tables, in any format that :mod:`m3router.data.tables.table`
            names (``.xlsx`` needs openpyxl), or the folder that holds them.
        costs: Option -> cost of an answer; or what of every answer is its cost: a member of
            :data:`m3router.data.importers.usage.QUANTITIES`, where the tables have columns for
            it, or any other column. See :func:`m3router.data.importers.joined.join`.
        prices: Option -> prices of its tokens; the cost where there is no other.
        cost_unit: What the costs count.
        metric: Data set, or ``"*"`` for all -> column that holds the verdicts, each in [0, 1].
        dataset: What the log calls the only data set; None reads it from the files' names.
        images: Path of an image that no row names, such as ``"{id}.jpg"``: the ``index``.
        groups: Data set, or ``"*"`` for all -> table that tells which of its questions share an
            image; see :func:`m3router.data.importers.group_tables.read_groups`.
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
    counted = Costs.given(costs, prices, cost_unit)
    notes: dict[str, list[str]] = {}
    read: dict[str, dict[str, Sample]] = {}
    for option, tables in named.items():
        read[option] = {}
        for name, path in tables.items():
            asked = (metric or {}).get(name) or (metric or {}).get("*")
            samples, told = _samples(path, name, asked, counted.column, skip_bad)
            read[option].update(samples)
            for note in told:
                whole = note if len(tables) == 1 else f"{name}: {note}"
                notes.setdefault(whole, []).append(option)
    return join(
        read,
        costs=counted,
        metadata={
            "source": "VLMEvalKit result tables",
            "runs": {
                option: {"path": ", ".join(path.name for path in tables.values())}
                for option, tables in named.items()
            },
        },
        images=images,
        groups=groups,
        notes=notes,
        skip_bad=skip_bad,
    )


def _samples(
    path: Path, dataset: str, asked: str | None, cost: str | None, skip_bad: bool
) -> tuple[dict[str, Sample], list[str]]:
    """Read a table's rows by example id, and tell what is not used, lacking or left out."""
    bad: list[str] = []
    rows, names = _read(path, bad if skip_bad else None)
    _check_names(path, rows, names)
    rows = _indexed(path, rows, bad, skip_bad)
    metric, column, score, told = _scoring(path, dataset, rows, names, asked)
    paid = None if cost is None else _cost_column(path, names, cost)
    groups = shared_images(dataset, rows)
    circular = column != "prediction" and _is_circular(rows, names)
    samples: dict[str, Sample] = {}
    lost: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            verdict = score(row)
        except (ValueError, SyntaxError, TypeError) as error:
            if skip_bad:
                bad.append(f"index {row['index']}: {row.get(column)!r} is not a verdict in [0, 1]")
                continue
            raise DataError(
                f"{path} row {number} (index {row['index']}): the column {column!r} must hold "
                f"verdicts in [0, 1], got {row.get(column)!r}. Name another with --metric COLUMN, "
                "or leave such rows out with --skip-bad."
            ) from error
        name, answer = f"{dataset}/{row['index']}", row.get("answer")
        samples[name] = replace(
            _sample(dataset, row, verdict, circular=circular),
            references=None if answer is None else references_in(answer),
            metric=metric,
            usage=usage_in(row),
            own_cost=None if paid is None else amount(row[paid]),
        )
        if groups is not None:
            samples[name] = replace(samples[name], group=groups[str(row["index"])])
        lost += [name] if _lost_choice(row) else []
    if not samples:
        raise DataError(f"{path}: no row is left, all are bad ({listed(bad, 3)}).")
    used = {*USED, *LETTERS, column, paid, *used_names(names)}
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
    if groups is not None:
        told.append(
            f"its {len(set(groups.values()))} images are told apart by the make-up of the data "
            "set, not by a column"
        )
    elif len(set(named)) == len(named) > 1:
        told.append(
            "image_path is another one in every row: it does not tell which questions share an "
            "image, so a split may have one image on both sides"
        )
    return samples, told


_ROTATIONS = re.compile(r"Rolling \d|During Pre-?fetching", re.IGNORECASE)


def _is_circular(rows: list[Row], names: list[str]) -> bool:
    """Whether a row stands for all rotations of its choices.

    Tables have ``g_index`` then, or, from earlier versions, a ``log`` that names the rotation at
    which a question failed (``vlmeval/dataset/utils/multiple_choice.py``).
    """
    return "g_index" in names or any(_ROTATIONS.search(row.get("log") or "") for row in rows)


def _cost_column(path: Path, names: list[str], asked: str) -> str:
    """Find the column that holds the costs."""
    own = asked if asked in LETTERS else asked.lower()
    if own not in names:
        raise DataError(
            f"{path} has no column {asked!r} for costs; it has {listed(names, 12)}. --cost takes "
            f"a column of the tables, {', '.join(QUANTITIES)}, or OPTION=NUMBER for every option."
        )
    return own


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
            f"{path} lacks the columns {', '.join(missing)}; it has {listed(names, 12)}. Give the "
            "table with a verdict per row (such as *_result), not one of averages (*_acc, "
            "*_score.csv)."
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
            f"{path} has no column with verdicts ({' or '.join(wanted)}); it has "
            f"{listed(names, 12)}. A table of predictions must be evaluated first: give what "
            "VLMEvalKit then writes (*_result, *_auxmatch, *_results), or --metric COLUMN. Without "
            "verdicts only multiple choice and "
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
    image = row.get("image_path")
    inside = image is not None and not image_path(image)[1] and not leaves_folder(image)
    group = image or row.get("g_index")
    question = row["question"] or ""
    return Sample(
        dataset=dataset,
        question="\n".join([question, *(f"{letter}. {row[letter]}" for letter in choices)]),
        score=score,
        answer=None if error else prediction or "",
        image=image if image is not None and inside else "",
        group=f"{dataset}/{group}" if group else None,
        chance=chance,
        error=error,
        identity={"question": question, **({"answer": answer} if answer is not None else {})},
    )
