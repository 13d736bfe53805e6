"""What flows through the project: examples, scores, oracle logs, splits. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.data.example import Example as Example
    from m3router.data.log.oracle_log import OracleLog as OracleLog
    from m3router.data.sources.examples import load_examples as load_examples
    from m3router.data.sources.jsonl import load_jsonl as load_jsonl
    from m3router.data.splits.split import split_by_group as split_by_group

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Example": "m3router.data.example",
            "OracleLog": "m3router.data.log.oracle_log",
            "load_examples": "m3router.data.sources.examples",
            "load_jsonl": "m3router.data.sources.jsonl",
            "split_by_group": "m3router.data.splits.split",
        },
    )
