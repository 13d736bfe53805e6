"""What flows through the project: examples, scores, oracle logs, splits. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from data.example import Example as Example
    from data.log.oracle_log import OracleLog as OracleLog
    from data.sources.jsonl import load_jsonl as load_jsonl
    from data.splits.split import split_by_group as split_by_group

__getattr__ = exports(
    __name__,
    {
        "Example": "data.example",
        "OracleLog": "data.log.oracle_log",
        "load_jsonl": "data.sources.jsonl",
        "split_by_group": "data.splits.split",
    },
)
