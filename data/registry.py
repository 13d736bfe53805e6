"""Literal tables of names: unknown names get a suggestion, entries are imported on demand."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from m3router.data.errors import DataError

LONGEST_NAME = 200
"""Characters of an unknown name that are compared: comparing takes time with their square."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is not known, what was perhaps meant, and what there is.

    Args:
        kind: What the name stands for, such as ``"metric"``.
        name: What came.
        known: The names that exist.

    Returns:
        One sentence or more, for an error message.

    >>> unknown_name("metric", "exat", ["exact", "anls"])
    "Unknown metric 'exat'. Did you mean 'exact'? Known: anls, exact."
    >>> unknown_name("field", "ID", ["id", "image"])
    "Unknown field 'ID'. Did you mean 'id'? Known: id, image."
    """
    names = sorted(known)
    close = nearest(name, names)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was perhaps meant; None where none is close.

    >>> nearest("topp", ["top_p", "stop"])
    'top_p'
    """
    names, name = sorted(known), name[:LONGEST_NAME]
    folded = {one.casefold(): one for one in reversed(names)}
    close = difflib.get_close_matches(name, names, n=1) or [
        folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=1)
    ]
    return close[0] if close else None


def load_entry(table: Mapping[str, str], name: str, *, kind: str) -> Any:
    """Import what a table of ``name -> "module:attribute"`` says.

    Args:
        table: The literal table.
        name: One of its keys.
        kind: What the name stands for, such as ``"importer"``.

    Returns:
        The attribute.

    Raises:
        DataError: The name is not in the table.
    """
    if name not in table:
        raise DataError(unknown_name(kind, name, table))
    return load(table[name])


def load(place: str) -> Any:
    """Import what ``"module:attribute"`` names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def exports(
    package: str, table: Mapping[str, str], *, also: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What shows a package's public names, and imports each on first use (PEP 562).

    Modules and packages inside it are shown too, so that tab completion leads everywhere.

    Args:
        package: The package's ``__name__``.
        table: Public name to the module that defines it.
        also: Public names that the package has by itself.

    Returns:
        The package's ``__getattr__``, ``__dir__`` and ``__all__``.
    """
    public = sorted({*table, *also})

    def inside() -> set[str]:
        path = sys.modules[package].__path__
        return {one.name for one in pkgutil.iter_modules(path) if not one.name.startswith("_")}

    def get(name: str) -> Any:
        if name in table:
            return getattr(importlib.import_module(table[name]), name)
        if not name.startswith("_") and name in inside():
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted({*public, *inside()}), public
