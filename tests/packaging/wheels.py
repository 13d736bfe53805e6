"""Building the package from a copy of this folder, so that nothing is left in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("data", "m3core", "router")
"""Folders of the repository; each is installed inside the package `m3router`."""
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
_WRITTEN_HERE = {"build", "dist", "site", "quickstart", "run", "runs"}


def _left_out(folder: str, names: list[str]) -> set[str]:
    written = _WRITTEN_HERE & set(names) if Path(folder) == ROOT else set()
    return _LEFT_OUT(folder, names) | written


def build(folder: Path, *kinds: str) -> list[Path]:
    """Build into `folder`; `kinds` are the options of `python -m build`."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_left_out, symlinks=True)
    shutil.copy(ROOT / ".dockerignore", source)
    done = subprocess.run(
        [
            Path(sys.executable).absolute(),
            "-m",
            "build",
            "--no-isolation",
            *kinds,
            "--outdir",
            folder / "dist",
        ],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted((folder / "dist").iterdir())


def wanted_in_wheel() -> set[str]:
    """Code, marker files and what the code reads, all in one package."""
    files = [path for path in (ROOT / "m3router").iterdir() if path.is_file()]
    found = {path.relative_to(ROOT).as_posix() for path in files}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(f"m3router/{path.relative_to(ROOT).as_posix()}")
    return found


def wanted_in_source() -> set[str]:
    """The same files where they lie in the repository."""
    inside = {f"m3router/{folder}/": f"{folder}/" for folder in FOLDERS}
    return {
        next(
            (
                place + name.removeprefix(start)
                for start, place in inside.items()
                if name.startswith(start)
            ),
            name,
        )
        for name in wanted_in_wheel()
    }
