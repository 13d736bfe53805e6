"""Hook of MkDocs: words of the glossary say what they mean where they are used, as abbreviations.

A page that uses one shows its first sentence when the pointer rests on it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = "glossary.md"
WORDS = {
    "AIQ": "AIQ",
    "APGR": "APGR, CPT",
    "CPT": "APGR, CPT",
    "ECE": "Probability calibration",
    "feature group": "Feature group",
    "feature groups": "Feature group",
    "gap closed": "Gap closed",
    "headroom": "Headroom",
    "oracle log": "Oracle log",
    "regret": "Regret",
    "sufficiency rule": "Sufficiency rule",
    "visual tokens": "Visual tokens",
}
"""Word as pages have it -> its entry. Few: a page full of marked words is hard to read."""
ENTRY = re.compile(r"^\*\*(.+?)\*\*\n:   ((?:.+\n?)+)", re.MULTILINE)


def entries(text: str) -> dict[str, str]:
    """Entry of a glossary -> what it says, without marks."""
    return {
        name: re.sub(r"\[([^]]*)\]\([^)]*\)|[*`]", r"\1", " ".join(said.split()))
        for name, said in ENTRY.findall(text)
    }


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Add the words that a page uses as abbreviations."""
    if page.file.src_uri == PAGE or page.file.src_uri.startswith("reference/"):
        return markdown
    known = entries((Path(config.docs_dir) / PAGE).read_text(encoding="utf-8"))
    used = (word for word in WORDS if word in markdown)
    lines = (
        f"*[{word}]: {re.split(r'(?<=[a-z]{3})[.;] ', known[WORDS[word]])[0]}" for word in used
    )
    return markdown + "\n\n" + "\n".join(lines) + "\n"
