"""What the package says about itself agrees, and the wheel holds what it must and no more."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.testing import CliRunner

from experiments import pins
from m3router import router
from m3router.router.cli.main import COMMANDS, app
from m3router.router.tracking.trackers import TRACKERS
from tests.packaging.wheels import FOLDERS, ROOT, build, wanted_in_wheel

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"experiments", "m3router", "tests"}
UNLIKE = {"mlflow": "mlflow-skinny"}
"""Module -> package of another name, where it may not be installed."""
FREE = ("router/serve/", "router/demo/", "router/ray/", "router/scale_out/")
"""Packages that are imported by the commands that need their extra, after asking for it."""


@functools.cache
def providers_of_modules() -> Mapping[str, list[str]]:
    """Of each module that can be imported, the packages that hold it; reading all takes long."""
    return importlib.metadata.packages_distributions()


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements} - {"m3router"}


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Top-level names that a module imports when it is imported, and those inside functions."""
    at_once, later = set[str](), set[str]()

    def visit(node: ast.AST, late: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            given = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            found = given or [str(getattr(node, "module", ""))]
            (later if late else at_once).update(name.split(".")[0] for name in found)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        late = late or typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no expression
                visit(child, late)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    known = OURS | set(sys.stdlib_module_names)
    return at_once - known, later - known


def test_every_package_is_listed():
    """The list in pyproject.toml is written by hand, since folders and import names differ."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    told = settings["tool"]["setuptools"]
    found = [path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")]
    dotted = {".".join(("m3router", *path.relative_to(ROOT).parts)) for path in found}
    assert told["packages"] == sorted({"m3router", *dotted})
    assert told["package-dir"] == {
        "m3router": "m3router",
        **{f"m3router.{folder}": folder for folder in FOLDERS},
    }


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert importlib.metadata.version("m3router") == version == router.__version__
    for module in ("router", "m3router.router.cli.main"):
        assert CliRunner().invoke(app, ["--version"]).output == f"m3router {version}\n", module


def test_the_changelog_leads_up_to_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    assert entries
    released = [(name, date) for name, date in entries if name != "Unreleased"]
    for name, date in released:
        assert re.fullmatch(r" - \d{4}-\d\d-\d\d", date), f"{name} has no date"
    versions = [Version(name) for name, _ in released]
    assert versions == sorted(versions, reverse=True)
    if entries[0][0] == "Unreleased":
        assert not versions or versions[0] <= Version(PROJECT["version"])
        assert [name for name, _ in entries].count("Unreleased") == 1
    else:
        assert versions[0] == Version(PROJECT["version"])


def test_every_import_is_declared_and_extras_only_where_needed():
    needed = names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    optional = set().union(*(names(one) for extra, one in extras.items() if extra != "dev"))
    providers = providers_of_modules()
    for package in (*FOLDERS, "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            relative = path.relative_to(ROOT).as_posix()
            at_once, later = imports(path)
            for name in at_once | later:
                given = providers.get(name, [UNLIKE.get(name, name)])
                owners = {canonicalize_name(one) for one in given}
                allowed = needed | optional if name not in at_once else needed
                if relative.startswith(FREE) or package == "experiments":
                    allowed = (
                        needed
                        | optional
                        | {"starlette", "pydantic", "pydantic-core", "jsonschema"}
                        | {"yarl"}  # whose URLs aiohttp takes
                        | {"rapidocr-onnxruntime"}  # a model under test, in its README
                        | {"playwright"}  # of the extra dev: pictures of pages
                        | {"litellm"}  # whose process the plug-in is loaded in
                    )
                assert owners & allowed, f"{relative} imports {name}, which is not declared"


def test_extras():
    extras = PROJECT["optional-dependencies"]
    assert {"serve", "demo", "ray", "quant", "video"} <= set(extras)
    for extra, wanted in extras.items():
        for one in wanted:
            requirement = Requirement(one)
            if requirement.name == "m3router":
                assert requirement.extras <= set(extras), extra


def test_every_extra_is_asked_for_by_its_name_and_no_other():
    """By messages of the form `pip install 'm3router[NAME]'`; trackers share one message."""
    text = "".join(
        path.read_text(encoding="utf-8")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    )
    asked = set(re.findall(r"m3router\[([\w{}]+)\]", text))
    assert asked - {"{name}"} | set(TRACKERS) == set(PROJECT["optional-dependencies"]) - {
        "dev",
        "docs",
    }


def test_constraints_pin_everything_once_and_nothing_for_a_gpu():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+-]+", pin) for pin in pins)
    pinned = [canonicalize_name(pin.partition("==")[0]) for pin in pins]
    assert len(pinned) == len(set(pinned))
    assert not [one for one in pinned if re.match(r"nvidia|cuda|torch$|torchvision|triton", one)]
    extras = PROJECT["optional-dependencies"]
    used = [*PROJECT["dependencies"], *extras["dev"]]
    for extra in set().union(*(Requirement(one).extras for one in extras["dev"])):
        used += extras[extra]
    assert names(used) - {"torch"} <= set(pinned)
    found = dict(zip(pinned, (Version(pin.partition("==")[2]) for pin in pins), strict=True))
    for one in used:
        requirement = Requirement(one)
        if canonicalize_name(requirement.name) in found:
            assert found[canonicalize_name(requirement.name)] in requirement.specifier, one


def test_the_wheel_holds_what_it_must_and_no_more(tmp_path):
    (wheel,) = build(tmp_path, "--wheel")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert held == wanted_in_wheel()
        assert {name.partition("/")[0] for name in held} == {"m3router"}
        told = {name.rpartition("/")[2] for name in archive.namelist() if ".dist-info/" in name}
        entry = next(one for one in archive.namelist() if one.endswith("entry_points.txt"))
        assert "m3router = m3router.__main__:run" in archive.read(entry).decode()
    assert "LICENSE" in told
    for must in (
        "m3router/py.typed",
        "m3router/m3core/embedded/checkpoint/model.safetensors",
        "m3router/m3core/embedded/checkpoint/config.json",
        "m3router/router/reports/templates/report.html",
    ):
        assert must in held
    assert wheel.stat().st_size < 12 << 20


BLOCKED = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from typer.testing import CliRunner
from m3router.router.cli.main import COMMANDS, app
import json
told = {{}}
for arguments in {calls!r}:
    result = CliRunner().invoke(app, arguments, env={{"COLUMNS": "400"}})
    told[" ".join(arguments)] = [result.exit_code, result.output, repr(result.exception)]
from pathlib import Path
from m3router.data.errors import DataError
from m3router.data.videos import open_media
try:
    open_media(Path({video!r}))
except DataError as error:
    told["video"] = [1, str(error), ""]
print(json.dumps(told))
"""


def test_help_needs_no_extra_and_a_video_says_which(tmp_path):
    providers = providers_of_modules()
    extras = PROJECT["optional-dependencies"]
    needed = names(PROJECT["dependencies"])
    optional = set().union(*map(names, extras.values())) - needed
    # transformers looks for peft and sentence-transformers itself, and stumbles over a blocked one.
    there = {"h11", "httpx", "packaging", "peft", "sentence-transformers"}
    blocked = {
        name
        for name, owners in providers.items()
        if {canonicalize_name(one) for one in owners} & (optional - there) and name not in OURS
    }
    assert {"fastapi", "gradio", "ray", "av", "uvicorn"} <= blocked
    (tmp_path / "clip.mp4").write_bytes(b"x")
    helps = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
    code = BLOCKED.format(blocked=blocked, calls=helps, video=str(tmp_path / "clip.mp4"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for arguments in helps:
        assert told[" ".join(arguments)][0] == 0, told[" ".join(arguments)]
    assert "pip install 'm3router[video]'" in told["video"][1]


def test_the_dockerfile_as_far_as_it_can_be_read():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    steps = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    verbs = [verb for verb, *_ in steps]
    known = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert set(verbs) <= known and verbs.count("FROM") == 2
    last = verbs[len(verbs) - verbs[::-1].index("FROM") :]
    assert last.index("USER") < last.index("CMD") and last.count("RUN") == 1
    said = {verb: rest for verb, rest in steps}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"]) and said["EXPOSE"] == "8000"
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    bases = [rest.split()[0] for verb, rest in steps if verb == "FROM"]
    assert set(bases) == {"python:${PYTHON}@${PYTHON_DIGEST}"}
    assert re.search(r"^ARG PYTHON_DIGEST=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    installs = [rest for verb, rest in steps if verb == "RUN" and "pip install" in rest]
    assert "${TORCH}" in installs[0], "an index of its own, with files of its own"
    assert "--require-hashes" in installs[1] and "--no-build-isolation" in installs[2]
    assert all("--no-deps" in one for one in installs[1:])
    extras = next(rest for verb, rest in steps if verb == "ARG" and rest.startswith("EXTRAS="))
    assert extras.partition("=")[2] in pins.EXTRAS
    command = json.loads(said["CMD"])
    assert command[:2] == ["m3router", "serve"] and "serve" in COMMANDS
    options = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "400"}).output
    assert {one for one in command if one.startswith("--")} <= set(re.findall(r"--[\w-]+", options))
    check = json.loads(said["HEALTHCHECK"].partition("CMD")[2])
    assert "/health" in check[-1]
    compile(check[-1], "health", "exec")
    for verb, rest in steps:
        if verb == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    for verb, rest in steps:
        if verb == "COPY" and "--from" not in rest:
            assert all(f"!{source}" in ignored for source in rest.split()[:-1])
    torch = next(rest for verb, rest in steps if verb == "ARG" and rest.startswith("TORCH="))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert torch.partition("=")[2] == re.search(r"^TORCH \?= (.*)$", makefile, re.MULTILINE)[1]


def test_the_compose_example():
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["m3router"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert all(one.endswith(":ro") for one in service["volumes"])
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert "M3ROUTER_API_KEYS" in service["environment"]
    assert service["mem_limit"] == service["memswap_limit"] and service["mem_limit"].endswith("g")
    assert 0 < service["pids_limit"] <= 1024 and 0 < service["cpus"] <= 16


def test_the_containers_pins_are_those_of_the_constraints():
    """Every package that an extra needs, once, at its pin, with a hash for each machine."""
    assert pins.stale() == []
    for extra in pins.EXTRAS:
        text = (ROOT / "requirements" / f"{extra}.txt").read_text(encoding="utf-8")
        each = re.findall(r"^[\w.-]+==|--hash=sha256:[0-9a-f]{64}(?= |$)", text, re.MULTILINE)
        assert len(each) >= 2 * len(pins.needed(extra)) and "numpy==" in each


@pytest.mark.parametrize("name", ["m3router", *FOLDERS])
def test_lazy_names_are_what_type_checkers_see(name):
    tree = ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8"))
    seen, lazy = set(), set()
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            for one in node.body:
                assert isinstance(one, ast.ImportFrom)
                seen |= {(alias.asname, one.module) for alias in one.names}
        if isinstance(node, ast.If) and isinstance(node.test, ast.UnaryOp):
            found = next(one for one in ast.walk(node) if isinstance(one, ast.Dict))
            pairs = zip(found.keys, found.values, strict=True)
            lazy |= {(key.value, value.value) for key, value in pairs}
    assert seen == lazy and seen
