"""The version of the installed package; `pyproject.toml` is where it is written down."""

from __future__ import annotations

import importlib.metadata

PACKAGE = "m3router"

try:
    __version__ = importlib.metadata.version(PACKAGE)
except importlib.metadata.PackageNotFoundError:  # a clone that was not installed
    __version__ = "0+unknown"
