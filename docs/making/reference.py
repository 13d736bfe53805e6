"""Hook of MkDocs: a page of the public names and one for each package, made from docstrings.

They are made when the site is built, so nothing can be stale.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "m3core", "router")
"""Folders, in the order of imports; each is imported as a part of ``m3router``."""
SECTION = "Reference"
START = "reference/index.md"
"""The page of the public names."""
PURPOSES = {
    "The way from answers to a router": (
        "Run",
        "OracleLog",
        "FeatureTable",
        "train_router",
        "ScaleRouter",
        "Policy",
        "evaluate",
    ),
    "Asking": (
        "open_pipeline",
        "AutoScalePipeline",
        "OptionPipeline",
        "Router",
        "Decision",
    ),
    "Examples and labelling": ("Example", "load_examples", "label"),
    "Models": ("open_model", "load_model", "FunctionModel", "OptionModel", "Option", "ScaleGrid"),
}
"""Headings of that page and the names below them; other names come at its end."""
LATE_IN_SEARCH = "---\nsearch:\n  boost: 0.3\n---"
"""So that a search finds the pages that explain before the functions that are named alike."""


def public_modules() -> dict[str, list[str]]:
    """Package -> its public modules, both dotted; packages in the order of imports."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in PACKAGES:
        for path in sorted((ROOT / name).rglob("*.py")):
            parts = ("m3router", *path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                found[".".join(parts[:-1])]  # noqa: B018 - a package without modules is a page too
            elif not any(part.startswith("_") for part in parts):
                found[".".join(parts[:-1])].append(".".join(parts))
    return dict(sorted(found.items(), key=lambda one: (PACKAGES.index(one[0].split(".")[1]), one)))


def page_of(package: str) -> str:
    """Path of a package's page in the site."""
    return f"reference/{package}.md"


def markdown(package: str, modules: list[str]) -> str:
    """A package's page: what the package says about itself, then its modules."""
    init = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
    about = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    parts = [LATE_IN_SEARCH, f"# {package}", about, *(f"::: {module}" for module in modules)]
    return "\n\n".join(parts) + "\n"


class PublicName(NamedTuple):
    """A name of `m3router`.

    Attributes:
        name: as it is imported from there.
        module: that defines it.
        node: its definition.
    """

    name: str
    module: str
    node: ast.ClassDef | ast.FunctionDef

    def markdown(self) -> str:
        """What it is, how it is called and what it offers, with links to the whole."""
        path = f"{self.module}.{self.name}"
        lines = [f"### {self.name}", f"[`{path}`][{path}]", _code(self.name, self.node)]
        lines.append(_first_paragraph(self.node))
        if isinstance(self.node, ast.ClassDef):
            methods = [
                f"| [`{one.name}`][{path}.{one.name}] | {_first_paragraph(one)} |"
                for one in self.node.body
                if isinstance(one, ast.FunctionDef)
                and not one.name.startswith("_")
                and ast.get_docstring(one)
            ]
            if methods:
                lines.append("\n".join(["| has | what it is or does |", "|---|---|", *methods]))
        return "\n\n".join(lines)


def public_names() -> list[PublicName]:
    """The names that `m3router` exports."""
    tree = ast.parse((ROOT / "m3router" / "__init__.py").read_text(encoding="utf-8"))
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exports"
    )
    return [
        PublicName(name, *_definition(name, module))
        for name, module in ast.literal_eval(call.args[1]).items()
    ]


def start_page() -> str:
    """The page of the public names."""
    known = {one.name: one for one in public_names()}
    rest = tuple(sorted(set(known) - {name for names in PURPOSES.values() for name in names}))
    parts = [
        "# The public names",
        "What most programs need is imported from `m3router` itself. All else is in three "
        "packages: `m3router.data` (what flows), `m3router.m3core` (models that can be asked at "
        "several options) and `m3router.router` (learns and decides); each is a section here.",
    ]
    for heading, names in {**PURPOSES, **({"More": rest} if rest else {})}.items():
        parts += [f"## {heading}", *(known[name].markdown() for name in names if name in known)]
    return "\n\n".join(parts) + "\n"


def _definition(name: str, module: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """Module and definition of a name; a module that only shows it leads to the one that has it."""
    path = ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in {one.name for one in node.names}:
            return _definition(name, str(node.module))
    raise LookupError(f"{module} has no {name}")


def _code(name: str, node: ast.ClassDef | ast.FunctionDef) -> str:
    """How it is called; of a class the constructor, or its fields where that is made of them."""
    if isinstance(node, ast.FunctionDef):
        arguments = list(_arguments(node.args))
    else:
        own = (one for one in node.body if isinstance(one, ast.FunctionDef))
        constructor = next((one for one in own if one.name == "__init__"), None)
        fields = (
            f"{one.target.id}: {ast.unparse(one.annotation)}"  # type: ignore[attr-defined]
            + (f" = {ast.unparse(one.value)}" if one.value and _plain(one.value) else "")
            for one in node.body
            if isinstance(one, ast.AnnAssign) and not ast.unparse(one.target).startswith("_")
        )
        arguments = list(_arguments(constructor.args))[1:] if constructor else list(fields)
        if any(ast.unparse(base) in ("Protocol", "ABC") for base in node.bases):
            return ""
    returned = getattr(node, "returns", None)
    end = f" -> {ast.unparse(returned)}" if returned is not None else ""
    whole = f"{name}({', '.join(arguments)}){end}"
    if len(whole) > 88:
        whole = "\n".join([f"{name}(", *(f"    {one}," for one in arguments), f"){end}"])
    return f"```python\n{whole}\n```"


def _arguments(of: ast.arguments) -> Iterator[str]:
    """Every parameter as it is written."""
    positional = [*of.posonlyargs, *of.args]
    defaults = [None] * (len(positional) - len(of.defaults)) + list(of.defaults)
    pairs = list(zip(positional, defaults, strict=True))
    if of.kwonlyargs and not of.vararg:
        pairs.append((ast.arg("*"), None))
    for one, default in [*pairs, *zip(of.kwonlyargs, of.kw_defaults, strict=True)]:
        text = ast.unparse(one)
        yield f"{text} = {ast.unparse(default)}" if default is not None else text


def _plain(value: ast.expr) -> bool:
    """Whether a default says something to a reader."""
    return isinstance(value, ast.Constant)


def _first_paragraph(node: ast.ClassDef | ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def on_config(config: Any) -> Any:
    """Put the pages into the navigation: the public names, then a section for each of the three."""
    sections: dict[str, list[dict[str, str]]] = defaultdict(list)
    for package in public_modules():
        sections[".".join(package.split(".")[:2])].append({package: page_of(package)})
    for entry in config.nav:
        if SECTION in entry:
            entry[SECTION] = [
                {"Public names": START},
                *entry[SECTION],
                *({name: pages} for name, pages in sections.items()),
            ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    files.append(File.generated(config, START, content=start_page()))
    for package, modules in public_modules().items():
        files.append(File.generated(config, page_of(package), content=markdown(package, modules)))
    return files
