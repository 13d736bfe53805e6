"""Hook of MkDocs: every notebook of `docs/` is a page too, and can be downloaded as it is.

A notebook is kept without outputs, so a page of it is its texts and its code in order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: Any) -> Files:
    """Add a page beside each notebook."""
    for file in [one for one in files if one.src_uri.endswith(".ipynb")]:
        text = Path(str(file.abs_src_path)).read_text(encoding="utf-8")
        name = file.src_uri.rpartition("/")[2]
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=as_page(text, name)))
    return files


def as_page(notebook: str, name: str) -> str:
    """A notebook as Markdown.

    Args:
        notebook: The text of its file.
        name: What the file is called, to download it.
    """
    parts = []
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        if len(parts) == 1:
            parts.append(f"[Download the notebook]({name})")
    return "\n\n".join(parts) + "\n"
