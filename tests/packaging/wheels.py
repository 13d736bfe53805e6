"""Building the package from a copy of this folder, so that nothing is left in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "experiments", "m3core", "router")
_LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "site", "quickstart", "run", "runs"
)


def build(folder: Path, *kinds: str) -> list[Path]:
    """Build into `folder`; `kinds` are the options of `python -m build`."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_LEFT_OUT)
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
    """Code, marker files and what the code reads; no recorded results, no notes about them."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            relative = path.relative_to(ROOT)
            if not path.is_file() or {"__pycache__", "results"} & set(relative.parts):
                continue
            if package != "experiments" or path.suffix in (".py", ".toml", ".typed"):
                found.add(relative.as_posix())
    return found
