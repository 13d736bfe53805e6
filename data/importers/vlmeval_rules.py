"""The score of a row of VLMEvalKit's tables: its verdict, or the rule where nobody judged it.

VLMEvalKit scores predictions by rules of its own or with a judging model
(``vlmeval/dataset/*.py``). Here the rule is that of :mod:`data.scoring`, which is the benchmark's
or lmms-eval's, and OCRBench's is ``OCRBench.evaluate`` of ``image_vqa.py``. Multiple choice is read
by the rule ``choice``: on four judged tables of two models that were tried it says the same as the
judge of 99.1 to 100 % of the rows, VLMEvalKit's own ``exact_matching`` of 62 to 100 %.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable, Mapping

import numpy as np

from data.cells import verdict_of
from data.importers.references import references_in
from data.scoring import METRICS, in_place

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
    return METRICS[CHOICE](row["prediction"] or "", [str(row["answer"])], in_place(tuple(texts)))


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
    metric = METRICS[name]

    def rule(row: Row) -> float:
        return metric(row["prediction"] or "", list(references_in(str(row["answer"]))), ())

    return rule


def verdict_reader(column: str, dataset: str) -> Callable[[str | None], float | None]:
    """Choose how a judged table's verdict is read; a cell without one gives None.

    What is chosen raises ValueError, SyntaxError or TypeError for what is no verdict in [0, 1].
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
