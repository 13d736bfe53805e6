"""Which model's table of which data set a file of VLMEvalKit is, by its name.

VLMEvalKit writes ``<model>/<model>_<dataset>.xlsx`` (predictions) and, beside it, tables of
verdicts with ``_<judge>_result``, ``_auxmatch``, ``_results`` or ``_score`` behind, and of averages
with ``_acc`` (``vlmeval/run.py``; ``vlmeval/dataset/*.py``, ``evaluate``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.errors import DataError
from data.importers.joined import listed
from data.tables import SUFFIXES

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
Data sets of other names are told by what files of several options end in alike."""


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
    begins = [place for place, part in enumerate(parts) if part.lower().startswith(KNOWN)]
    if begins:
        return "_".join(parts[begins[-1] :])
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
