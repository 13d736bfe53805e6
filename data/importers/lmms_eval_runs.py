"""What runs of lmms-eval tell of themselves: model, seconds, and the tokens of answers.

``<date>_results.json`` has ``config``, ``git_hash`` and, since its tracker measures them,
``total_evaluation_time_seconds`` and ``model_name`` (``lmms_eval/loggers/evaluation_tracker.py``,
``GeneralConfigTracker``). Versions since pull request 1108 count tokens: ``token_counts`` of a
sample is a list with ``input_tokens``, ``output_tokens`` and ``reasoning_tokens`` of each response.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.importers.joined import Sample

MARK = "_samples_"
_SECONDS = "total_evaluation_time_seconds"


def about_runs(paths: Sequence[Path]) -> dict[str, Any]:
    """Read what the runs of an option say: of one its entries, of several a list under "runs"."""
    about = [_about(path) for path in paths]
    if len(about) == 1:
        return about[0]
    return {"path": ", ".join(path.name for path in paths), "runs": about}


def output_tokens(counts: Any) -> int | None:
    """Give the tokens of a sample's first response; None where they are not told.

    >>> output_tokens([{"input_tokens": 600, "output_tokens": 3}]), output_tokens([None])
    (3, None)
    """
    first = counts[0] if isinstance(counts, list) and counts else counts
    told = first.get("output_tokens") if isinstance(first, Mapping) else None
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return int(told) if math.isfinite(told) and told >= 0 and told == int(told) else None


def tokens_of(samples: Mapping[str, Sample]) -> dict[str, Any]:
    """Sum the tokens of an option's answers; empty where none is told."""
    told = [one.answer_tokens for one in samples.values() if one.answer_tokens is not None]
    if not told:
        return {}
    return {"answer_tokens": sum(told), "mean_answer_tokens": sum(told) / len(told)}


def _about(path: Path) -> dict[str, Any]:
    """Read what ``*results.json`` beside the samples says of a run; empty without one."""
    folder = path if path.is_dir() else path.parent
    start = path.stem.partition(MARK)[0] if path.is_file() and MARK in path.stem else ""
    found = sorted(folder.rglob(f"{start}*results.json"))
    if len(found) != 1:
        return {"path": path.name}
    try:
        results = json.loads(found[0].read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{found[0]} cannot be read: {error}.") from error
    if not isinstance(results, dict) or not isinstance(results.get("config", {}), dict):
        raise DataError(f"{found[0]} is no results file of lmms-eval: expected a JSON object.")
    config = results.get("config", {})
    seconds = _number(results.get(_SECONDS))
    known = {
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        "model_name": results.get("model_name"),
        "date": results.get("date"),
        "git_hash": results.get("git_hash"),
        "seconds": seconds,
        "samples": _effective(results.get("n-samples")),
        "throughput": results.get("throughput"),
    }
    return {"path": path.name, **{name: value for name, value in known.items() if value}}


def _number(value: Any) -> float | None:
    """Read seconds, which are written as a text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _effective(counts: Any) -> dict[str, Any]:
    """Read how many samples of each task were asked, to which the seconds belong."""
    if not isinstance(counts, Mapping):
        return {}
    return {
        str(task): one["effective"]
        for task, one in counts.items()
        if isinstance(one, Mapping) and "effective" in one
    }
