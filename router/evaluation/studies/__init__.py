"""Studies: the router again on fewer labels, or without a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
