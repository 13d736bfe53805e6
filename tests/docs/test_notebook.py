"""The notebook of the tutorials is valid, has no outputs, and runs from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
SECONDS = 600
"""Most for one cell on a busy machine."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_has_no_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            compile(cell.source, path.name, "exec")


def test_the_notebook_is_listed():
    page = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        assert f"]({path.name})" in page


def shown(notebook: Any, kind: str) -> str:
    """All outputs of a kind."""
    found = [
        output.get("data", {}).get(kind, "") if kind != "stream" else output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    ]
    return "\n".join(found)


@pytest.mark.tutorial
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    work = tmp_path / "work"
    work.mkdir()
    notebook, began = read(path), os.times()
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": work}}
    )
    client.execute()
    spent = os.times()
    used = spent.children_user + spent.children_system
    assert used - began.children_user - began.children_system < 120, "processor time of the kernel"
    pages, texts = shown(notebook, "text/html"), shown(notebook, "stream")
    for told in ("Oracle log", "Evaluation", "<svg", "Run run", "data:image/jpeg", "◀"):
        assert told in pages
    assert "<script" not in pages
    assert "labelling" in texts and "training" in texts and "evaluating" in texts
    assert "Traceback" not in texts
