"""The cells of a study: small results that are kept as they finish, so that a study can go on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.router.sealed_files import read_sealed, write_sealed

logger = logging.getLogger(__name__)

KIND = "cell"
SCHEMA = 3  # 1 was not sealed, 2 measured curves on their hulls


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A folder of results, each sealed and bound to what it was made from.

    Attributes:
        folder: made when it does not exist.
        bound: hashes and options that all cells depend on; JSON values.
    """

    folder: Path
    bound: Mapping[str, Any]

    def path(self, key: Mapping[str, Any]) -> Path:
        """File of a cell; its name says nothing but is the same for the same key."""
        text = json.dumps(dict(key), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def kept(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a cell that was made from the same things, else None."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            cell = read_sealed(path, kind=KIND, schema=SCHEMA)
        except DataError as error:
            logger.warning("%s That is done now.", error)
            return None
        same = cell.get("bound") == dict(self.bound) and cell.get("key") == dict(key)
        result: dict[str, Any] | None = cell.get("result") if same else None
        return result

    def get(self, key: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A cell's result: the kept one, or made now and kept."""
        kept = self.kept(key)
        if kept is not None:
            return kept
        cell = {"kind": KIND, "schema": SCHEMA, "key": dict(key), "bound": dict(self.bound)}
        path = self.path(key)
        write_sealed(path, {**cell, "result": make()})
        # As it is read: a study is the same whichever of its cells were kept.
        found: dict[str, Any] = read_sealed(path, kind=KIND, schema=SCHEMA)["result"]
        return found
