"""The cells of a study: small results that are kept as they finish, so that a study can go on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.manifest import atomic_write_text

logger = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A folder of results, each bound to what it was made from.

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
        try:
            cell = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s is damaged (%s) and is made again.", path, error)
            return None
        if not isinstance(cell, dict) or cell.get("schema") != SCHEMA:
            logger.warning("%s is not a cell of this version and is made again.", path)
            return None
        same = cell.get("bound") == dict(self.bound) and cell.get("key") == dict(key)
        result: dict[str, Any] | None = cell.get("result") if same else None
        return result

    def get(self, key: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A cell's result: the kept one, or made now and kept."""
        kept = self.kept(key)
        if kept is not None:
            return kept
        result = make()
        cell = {"schema": SCHEMA, "key": dict(key), "bound": dict(self.bound), "result": result}
        atomic_write_text(self.path(key), json.dumps(cell, allow_nan=False) + "\n")
        return result
