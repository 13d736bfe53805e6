"""Groups that are obviously none: a benchmark with several questions an image, each one alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONE = 0.99
"""A benchmark whose groups are fewer than this share of its questions has groups."""
SEVERAL_QUESTIONS = (
    "amber", "chartqa", "docvqa", "gqa", "hallusionbench", "infovqa", "infographicvqa", "mme",
    "ocrvqa", "pope", "seedbench_img", "textvqa", "visualgenome", "vqav2",
)  # fmt: skip
"""Benchmarks, by the beginning of their names, that ask several questions about most images."""
FEWEST = 20
"""Questions below which a benchmark is a sample that need not hold an image twice."""


def lone_groups(
    groups: Sequence[str] | np.ndarray, datasets: Sequence[str] | np.ndarray
) -> list[str]:
    """Warn of benchmarks whose groups are obviously none: one image, yet every question alone.

    Tools save an image once per question, as VLMEvalKit does (``POPE/0.jpg``, ``POPE/1.jpg``), so
    that its name does not tell that six questions of POPE share it.

    Args:
        groups: The group of each example, shape (N,).
        datasets: Its dataset, shape (N,).

    Returns:
        A sentence for each dataset, empty where there is nothing to say.
    """
    seen: dict[str, list[str]] = {}
    for group, dataset in zip(groups, datasets, strict=True):
        seen.setdefault(str(dataset), []).append(str(group))
    told = []
    for dataset, names in seen.items():
        known = _bare(dataset).startswith(tuple(map(_bare, SEVERAL_QUESTIONS)))
        if known and len(names) >= FEWEST and len(set(names)) >= LONE * len(names):
            told.append(
                f"{dataset} asks several questions about an image, but its {len(names)} questions "
                f"are in {len(set(names))} groups: they do not tell which questions share an "
                "image, so a split may have one image on both sides, and results look better than "
                "they are. Give the benchmark's own image ids as groups (`m3router import table` "
                "with a column 'group'), or an official split (`train --split`)"
            )
    return told


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
