"""The stages of a run: functions that read and write a run folder; the commands only call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
