"""A log packed for a page: columns as base64, every text once.

Notation: N examples, K options; columns of cells are (N * K,), examples one after the other.
`templates/browse_filter.js` is the other side.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.log.checks import LENGTH
from data.log.oracle_log import OracleLog
from data.media_files import leaves_folder
from router.analysis.counting import answer_codes
from router.analysis.expected import expected_text
from router.analysis.inspection import total
from router.analysis.metrics import Floats
from router.analysis.oracles import NEVER, smallest_sufficient
from router.analysis.words import words_of

Column = dict[str, Any]

_DIGITS = re.compile(r"(\d+)")
_FEW = 65_536  # distinct numbers that are worth a table


class Texts:
    """Gives every distinct text one number; 0 stands for no text."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}

    def codes(self, texts: Sequence[str | None] | np.ndarray) -> np.ndarray:
        """Numbers of texts, in their order."""
        number = self.number
        found = [0 if text is None else number.setdefault(text, len(number) + 1) for text in texts]
        return np.array(found, dtype=np.int64)

    def list(self) -> list[str]:
        """All texts, by number."""
        return ["", *self.number]


def pack_codes(codes: npt.NDArray[np.integer]) -> Column:
    """Whole numbers of at least 0, in as few bytes as their largest needs."""
    largest = int(codes.max(initial=0))
    kind = next(kind for kind in ("u1", "u2", "u4") if largest <= np.iinfo(np.dtype(kind)).max)
    return {"type": kind, "data": _base64(codes.astype("<" + kind))}


def pack_numbers(values: Floats) -> Column:
    """Numbers or NaN: exactly by a table where few differ, else in single precision."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    distinct, codes = np.unique(flat, return_inverse=True)
    if len(distinct) <= _FEW and 2 * len(distinct) <= max(len(flat), 2):
        table = [value if np.isfinite(value) else None for value in distinct.tolist()]
        return {**pack_codes(codes.reshape(-1)), "values": table}
    return {"type": "f4", "data": _base64(flat.astype("<f4"))}


def pack_log(log: OracleLog, rules: Sequence[str]) -> dict[str, Any]:
    """Everything that the page shows of the examples, as JSON values.

    Args:
        log: Any log.
        rules: Names in `router.analysis.oracles.RULES`; one that cannot be applied is left out.

    Returns:
        "options", "option" (what one is called), "unit", "rules", "datasets", "ids", "strings",
        "images" (relative paths; "" where there is none or it leaves its folder), and packed
        columns: "examples" (dataset,
        question, image, expected, metric, cost, flops), "cells" (answer, said, error, cut, score,
        confidence, cost, flops, answer_tokens, text_tokens), "smallest" (per rule: option, K for
        never, K + 1 for an example with a gap) and "orders" (id, cost, disagreement: example
        numbers).
    """
    texts = Texts()
    said = answer_codes(log.laid_out("answer"))
    datasets = {name: code for code, name in enumerate(dict.fromkeys(log.datasets.tolist()))}
    images = {name: code for code, name in enumerate(dict.fromkeys(log.images.tolist()))}
    cost, flops = total(log.costs), total(log.flops)
    numbers = ("score", "confidence", "cost", "flops", "answer_tokens", "text_tokens")
    smallest = {rule: _smallest(log, rule, said) for rule in rules}
    usable = [rule for rule, column in smallest.items() if column is not None]
    return {
        "options": list(log.options),
        "option": words_of(log).of("scale"),
        "unit": log.cost_unit,
        "rules": usable,
        "datasets": list(datasets),
        "ids": list(log.ids),
        "images": ["" if leaves_folder(name) else name for name in images],
        "examples": {
            "dataset": pack_codes(np.array([datasets[name] for name in log.datasets])),
            "question": pack_codes(texts.codes(log.questions)),
            "image": pack_codes(np.array([images[name] for name in log.images])),
            "expected": pack_codes(texts.codes([expected_text(one) for one in log.references])),
            "metric": pack_codes(texts.codes(log.metrics)),
            "cost": pack_numbers(cost),
            "flops": pack_numbers(flops),
        },
        "cells": {
            "answer": pack_codes(texts.codes(log.laid_out("answer").ravel())),
            "error": pack_codes(texts.codes(log.laid_out("error").ravel())),
            "said": pack_codes(said.ravel() + 1),
            "cut": pack_codes((log.laid_out("finish") == LENGTH).ravel().astype(np.int64)),
            **{name: pack_numbers(log.laid_out(name)) for name in numbers},
        },
        "smallest": {rule: pack_codes(smallest[rule]) for rule in usable},
        "orders": {name: pack_codes(order) for name, order in orders(log, said).items()},
        "strings": texts.list(),
    }


def orders(log: OracleLog, said: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.intp]]:
    """Example numbers (N,): by id, by falling cost, by falling number of different answers.

    Ties stay as logged; where cost and GFLOPs are unknown, an example comes last. GFLOPs are
    the cost where any are known.
    """
    flops = total(log.flops)
    spent = flops if np.isfinite(flops).any() else total(log.costs)
    ranked = np.sort(said, axis=1)
    known = ranked >= 0
    new = np.diff(ranked, axis=1, prepend=-1) != 0
    return {
        "id": np.array(sorted(range(len(log)), key=[_natural(one) for one in log.ids].__getitem__)),
        "cost": np.argsort(-np.nan_to_num(spent, nan=-1.0), kind="stable"),
        "disagreement": np.argsort(-(new & known).sum(axis=1), kind="stable"),
    }


def script_json(document: Mapping[str, Any]) -> str:
    """JSON that can stand in a `<script>` element: nothing in it ends the element or opens one.

    Lone surrogates, which UTF-8 does not have, become JSON's own escapes.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _smallest(log: OracleLog, rule: str, said: npt.NDArray[np.integer]) -> Any:
    """Smallest sufficient option (N,), K for never, K + 1 for gaps; None where not applicable."""
    whole, options = log.complete, len(log.options)
    if not whole.any() or (rule == "matches_full" and (said[whole] < 0).any()):
        return None
    found = smallest_sufficient(rule, log.scores[whole], log.costs[whole], said[whole])
    column = np.full(len(log), options + 1)
    column[whole] = np.where(found == NEVER, options, found)
    return column


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Numbers in a text count as numbers: e2 before e10."""
    parts = enumerate(_DIGITS.split(text))
    return [(1, int(part), "") if odd % 2 else (0, 0, part) for odd, part in parts]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
