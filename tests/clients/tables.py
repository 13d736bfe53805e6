"""The tables of `docs/clients.md`, which the tests expect."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
SERVER, GATEWAY = "what the model server is sent", "what the gateway is sent"
"""The first cell of the two tables."""
CASES = {
    "an image, whole": "whole",
    "an image, streamed": "streamed",
    "several requests at once": "at once",
    "LangChain's own image block": "own block",
    "`/v1/models`": "models",
    "temperature 0": "greedy",
    "temperature 0.7": "temperature",
    "a system message": "system",
    "`stop`": "stop",
    "`detail: low`": "detail",
    "history": "history",
    "tools": "tools",
    "a tool that must be called": "tool",
    "the same, streamed": "tool streamed",
    "a tool's result": "tool result",
    "a JSON schema": "schema",
    "LangChain's structured output by a tool": "structured by a tool",
    "two answers (`n`)": "n",
    "log-probabilities": "logprobs",
    "two images": "images",
    "no image": "words",
    "`/v1/responses`": "responses",
    "`/v1/responses`, streamed": "responses streamed",
}
"""Row of a table to a case of the scripts."""
WITHOUT = "–"


def table(first: str) -> dict[str, dict[str, str]]:
    """Column of a table to case to what the page says of it; without what a client cannot send.

    Args:
        first: The table's first cell.
    """
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|\n ").split("|")])
    head, _, *body = rows
    return {
        client: {CASES[row[0]]: row[place] for row in body if row[place] != WITHOUT}
        for place, client in enumerate(head)
        if place
    }
