"""Model families. A new one is one object in one file here, and one line in the table.

The object is a :class:`~m3router.m3core.checkpoints.families.base.Family`; the line stands in
:data:`m3router.m3core.checkpoints.families.table.FAMILIES`. Nothing else in the project knows
families: loading, costs, conversion, training and drawing go through the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
