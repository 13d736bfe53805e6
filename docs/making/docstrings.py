"""Extension of griffe: docstrings as Markdown, where they are written otherwise.

Doctests become blocks of code, and roles such as ``:func:`open_image` `` become links. A name is
looked up as a full path, then where it is written: in the class, the module, the modules beside
it. What has no docstring is on no page, so it stays a word. A name of ours that is found nowhere
stays a reference, which a strict build refuses.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(~?)([\w.]+)`")
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*\n|\s*$).*)*", re.MULTILINE)
"""From a prompt to the next empty line."""
OURS = ("m3router",)


class Docstrings(griffe.Extension):
    """Rewrites docstrings once a package is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Rewrite the docstrings of everything in a package."""
        _rewrite(pkg, loader.modules_collection)


def _rewrite(thing: griffe.Object, modules: griffe.ModulesCollection) -> None:
    if thing.docstring:
        text = DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", thing.docstring.value)
        thing.docstring.value = ROLE.sub(
            lambda match: _link(thing, match[2], short=bool(match[1]), modules=modules), text
        )
    for member in thing.members.values():
        if not member.is_alias:
            _rewrite(member, modules)  # type: ignore[arg-type]


def _link(
    thing: griffe.Object, name: str, *, short: bool, modules: griffe.ModulesCollection
) -> str:
    shown = f"`{name.rpartition('.')[2] if short else name}`"
    path = _full(thing, name, modules)
    try:
        found = modules[path]
    except (KeyError, griffe.AliasResolutionError):
        elsewhere = "." in path and path.split(".")[0] not in OURS
        return shown if elsewhere else f"[{shown}][{path}]"
    return f"[{shown}][{path}]" if found.has_docstring else shown


def _full(thing: griffe.Object, name: str, modules: griffe.ModulesCollection) -> str:
    """Full path of a name as it is written in a thing's docstring."""
    first, _, rest = name.partition(".")
    if rest and first in OURS:
        return name
    scope: Any = thing
    while scope is not None:
        if first in scope.members:
            found = scope.members[first]
            path = found.target_path if found.is_alias else found.path
            return f"{path}.{rest}" if rest else path
        scope = None if scope.is_module else scope.parent
    beside = thing.module.parent.modules.values() if thing.module.parent else ()
    return next((f"{one.path}.{name}" for one in beside if _defines(one, first)), name)


def _defines(module: griffe.Object, name: str) -> bool:
    return name in module.members and not module.members[name].is_alias
