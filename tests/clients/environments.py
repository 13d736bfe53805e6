"""Where the clients are installed: made once from pinned versions, or given by the environment."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GIVEN = "M3ROUTER_CLIENTS"
GIVEN_NPM = "M3ROUTER_NPM_CLIENTS"
NEEDED = "M3ROUTER_NEEDS_CLIENTS"
"""Where it is set, what cannot be installed is a failure."""


def python_clients(cache: Path) -> Path:
    """The `bin` folder of an environment with `requirements.txt`.

    Where it cannot be made, the test is skipped, or fails where `M3ROUTER_NEEDS_CLIENTS` is set.

    Args:
        cache: Where it is made, and found again.
    """
    if os.environ.get(GIVEN):
        return Path(os.environ[GIVEN]) / "bin"
    wanted = HERE / "requirements.txt"
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache / f"python-{digest}"
    done = folder / ".installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
        install = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "-r", wanted]
        _install([*pip, *install], "pip could not install the clients")
        done.touch()
    return folder / "bin"


def npm_clients(cache: Path) -> Path:
    """A folder of scripts beside `node_modules` with the npm clients; skips where node is missing.

    Args:
        cache: As above.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed, so that the npm client is not tried")
    digest = hashlib.sha256((HERE / "npm" / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = cache / f"npm-{digest}"
    shutil.copytree(HERE / "npm", folder, dirs_exist_ok=True)
    modules = folder / "node_modules"
    if os.environ.get(GIVEN_NPM):
        if not modules.exists():
            modules.symlink_to(Path(os.environ[GIVEN_NPM]) / "node_modules")
    elif not (modules / "openai").exists():
        install = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder]
        _install(install, "npm could not install the client")
    return folder


def _install(command: list[str | Path], problem: str) -> None:
    """Run an installer; once where it fails, since the next test would wait as long again."""
    if problem not in _FAILED:
        for _ in range(2):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
            except subprocess.TimeoutExpired:
                _FAILED[problem] = f"{problem} within {LONGEST} s"
                break
            if done.returncode == 0:
                return
            _FAILED[problem] = f"{problem}: {' '.join(done.stderr.split())[-400:]}"
    if os.environ.get(NEEDED):
        pytest.fail(f"{_FAILED[problem]}; {NEEDED} is set")
    pytest.skip(_FAILED[problem])


LONGEST = 1_200
"""Seconds; it takes about 75 on two idle cores."""
_FAILED: dict[str, str] = {}
