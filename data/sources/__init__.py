"""Where examples come from: a literal table of sources, imported on demand."""

from __future__ import annotations

from typing import Any

from data.registry import load_entry

SOURCES = {
    "jsonl": "data.sources.jsonl:load_jsonl",
    "benchmark": "data.sources.hub:load_benchmark",
}


def source(name: str) -> Any:
    """Give the loader of a source.

    Raises:
        DataError: There is no such source; the message suggests one.
    """
    return load_entry(SOURCES, name, kind="source")
