"""Logs with everything that may be missing, for tests of looking at logs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from m3router.data.log.oracle_log import OracleLog

ANSWERS = ("yes", "Yes ", "no", "", "7", "a red\nsquare")
ERRORS = ("out of memory: 20 MiB", "out of memory: 8 MiB", "Image x/1.png cannot be read")


def log_of_cells(
    cells: list[list[dict[str, Any] | None]],
    *,
    options: list[str] | None = None,
    examples: list[dict[str, Any]] | None = None,
) -> OracleLog:
    """A log from cells (N, K): None for a row that is not there, else columns of the row."""
    options = options or [str(4**k) for k in range(len(cells[0]))]
    rows = []
    for i, line in enumerate(cells):
        about = {
            "example_id": f"e{i}",
            "group": f"g{i // 2}",
            "dataset": "world",
            "question": f"how many of {i}?",
            "image": f"g{i // 2}.png",
            "chance": 0.0,
            **(examples[i] if examples else {}),
        }
        rows += [
            {**about, "scale": option, **cell}
            for option, cell in zip(options, line, strict=True)
            if cell is not None
        ]
    names = ["example_id", "group", "dataset", "question", "image", "scale", "cost", "answer"]
    names += ["score", "confidence", "answer_tokens", "text_tokens", "flops", "chance", "error"]
    frame = pd.DataFrame(rows).reindex(columns=names)
    return OracleLog(frame, options=options, cost_unit="visual tokens")


def random_log(seed: int) -> OracleLog:
    """A log with gaps, errors, soft scores, missing answers, equal costs and several datasets."""
    generator = np.random.default_rng(seed)
    n, k = int(generator.integers(1, 14)), int(generator.integers(1, 5))
    gaps, costs = generator.choice([0.0, 0.1, 0.5]), generator.integers(0, 3, k).cumsum()
    cells: list[list[dict[str, Any] | None]] = []
    for _ in range(n):
        line: list[dict[str, Any] | None] = []
        for place in range(k):
            cost = float(costs[place] + generator.integers(0, 2))
            answer = str(generator.choice(ANSWERS)) if generator.random() > gaps / 4 else None
            cell = {
                "cost": cost,
                "answer": answer,
                "score": float(generator.choice([0.0, 1.0, 1.0, 0.0, 0.5, 0.3])),
                "confidence": float(generator.random()),
                "answer_tokens": 2,
                "text_tokens": int(generator.integers(1, 9)),
                "flops": 1e9 * (cost + 1),
                "error": None,
            }
            if generator.random() < gaps:
                failed = {"cost": None, "error": str(generator.choice(ERRORS))}
                line.append(failed if generator.random() < 0.7 else None)
            else:
                line.append(cell)
        if all(cell is None for cell in line):  # else the log would not know the example
            line[0] = {"cost": None, "error": ERRORS[0]}
        cells.append(line)
    examples = [
        {
            "dataset": str(generator.choice(["a", "b", "<c>"])),
            "group": f"g{generator.integers(0, 5)}",
            "question": str(generator.choice(["Is it RED?", "how many?", "wo? ß"])),
            "chance": float(generator.choice([0.0, 0.25, 0.5])),
        }
        for _ in range(n)
    ]
    return log_of_cells(cells, examples=examples)


logs = st.integers(0, 2**32 - 1).map(random_log)
