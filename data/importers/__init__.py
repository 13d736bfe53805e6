"""Oracle logs that other tools wrote: a literal table of importers, imported on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3router.data.registry import exports, load_entry

IMPORTERS = {
    "blindtest": "m3router.data.importers.blindtest:read_blindtest",
    "exported": "m3router.data.log.exporting:read_exported",
    "lmms-eval": "m3router.data.importers.lmms_eval:read_lmms_eval",
    "table": "m3router.data.importers.table:read_table",
    "vlmevalkit": "m3router.data.importers.vlmevalkit:read_vlmevalkit",
}


def importer(name: str) -> Any:
    """Give the reader of a format.

    Raises:
        DataError: There is no such importer; the message suggests one.
    """
    return load_entry(IMPORTERS, name, kind="importer")


if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {}, also=["IMPORTERS", "importer"])
