"""The package as somebody gets it: built, installed into an empty environment, used elsewhere.

Slow, and the last part needs an index of packages; run by `make packaging`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from m3router.router.cli.main import COMMANDS
from tests.packaging.wheels import ROOT, build, wanted_in_source, wanted_in_wheel

pytestmark = pytest.mark.packaging

PYTHON = Path(sys.executable).absolute()
USER = '''
"""What a user writes: every public name has its own type, none is Any."""
from __future__ import annotations

from pathlib import Path
from typing import assert_type

import m3router
from m3router import AutoScalePipeline, Example, OracleLog, Policy, Run, ScaleGrid, ScaleRouter
from m3router import load_examples, load_model
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.router import train_stage
from m3router.router.hub import load_router

def ask(run: Path) -> str:
    model = load_model("embedded")
    assert_type(model, MultiScaleModel)
    pipeline = AutoScalePipeline.load(run, model=model)
    assert_type(pipeline, AutoScalePipeline)
    (answer,) = pipeline.answer([run / "image.png"], ["What is it?"])
    assert_type(answer.scale, int)
    assert_type(answer.sufficiency, dict[int, float])
    return answer.answer.text

assert_type(load_router("me/router"), ScaleRouter)
assert_type(Policy.read(Path("policy.json")), Policy)
assert_type(Run(Path("run")).log(), OracleLog)
assert_type(ScaleGrid, type[ScaleGrid])
examples: list[Example] = load_examples(Path("a.jsonl"), images=Path("b"))
assert_type(m3router.__version__, str)
train_stage("run")
print(m3router.OracleLog, m3router.label, m3router.evaluate, ask(Path("run")))
'''
WRONG = """
from m3router import Policy, Run

Run(1)
Policy.read(1)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(tmp_path_factory.mktemp("built"))


def test_the_source_distribution_is_complete(built, tmp_path):
    wheel, source = built
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not [path for path in held if "__pycache__" in path or path.endswith(".pyc")]
    assert wanted_in_source() <= held
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    docs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert tests | docs <= held
    assert {"Makefile", "constraints.txt", "CHANGELOG.md", "LICENSE", "Dockerfile"} <= held
    with zipfile.ZipFile(wheel) as archive:  # `python -m build` makes it from the source
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == wanted_in_wheel()


def test_types_are_seen_by_who_installed_it(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    # What others' packages hold is not of interest here, and takes minutes.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n"
        "[mypy-torch.*,transformers.*,accelerate.*,sklearn.*,pandas.*,scipy.*,lightgbm.*]\n"
        "follow_imports = skip\nignore_missing_imports = true\n"
    )
    command = [PYTHON, "-m", "mypy", "--python-executable", tmp_path / "env/bin/python"]
    done = subprocess.run([*command, "user.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([*command, "wrong.py"], cwd=tmp_path, capture_output=True, text=True)
    assert re.findall(r"wrong.py:(\d+): error: Argument 1", done.stdout) == ["4", "5"], done.stdout


def test_an_empty_environment_is_enough(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    pip = [tmp_path / "env/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    torch = os.environ.get("M3ROUTER_TORCH", "torch==2.13.0").split()
    first = subprocess.run([*pip, "install", "-q", *torch], capture_output=True, text=True)
    if first.returncode:
        pytest.skip(f"no index of packages at hand: {first.stderr.strip()[-200:]}")
    pins = ["-c", ROOT / "constraints.txt"]
    second = subprocess.run(
        [*pip, "install", "-q", *pins, built[0]], capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr
    assert subprocess.run([*pip, "check"]).returncode == 0
    found = subprocess.run([*pip, "freeze"], capture_output=True, text=True).stdout.lower()
    assert not re.search(r"^(fastapi|gradio|ray|av|peft|bitsandbytes|pytest)==", found, re.M)
    assert not re.search(r"^torchvision|^nvidia", found, re.M) or len(torch) > 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*arguments: str) -> str:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            arguments, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (arguments, done.stdout + done.stderr)
        return done.stdout

    program = str(tmp_path / "env/bin/m3router")
    assert run(program, "--version") == run(str(pip[0]), "-m", "m3router", "--version")
    assert set(re.findall(r"^│ (\w+) ", run(program, "--help"), re.M)) >= set(COMMANDS)
    told = run(program, "quickstart", "--out", "quickstart", "--scenes", "150")
    assert "router, at most" in told
    assert (elsewhere / "quickstart/run/report/report.html").is_file()
    assert "passed" in run(program, "check", "quickstart/run")
    (elsewhere / "clip.mp4").write_bytes(b"no video")
    for extra, arguments in (
        ("serve", ["serve", "quickstart/run"]),
        ("video", ["look", "clip.mp4", "--question", "What is it?"]),
    ):
        refused = subprocess.run(
            [program, *arguments], cwd=elsewhere, capture_output=True, text=True
        )
        told = " ".join(refused.stderr.split())
        assert refused.returncode == 2 and f"m3router[{extra}]" in told, told
    shutil.rmtree(tmp_path / "env")


PROJECT = {
    "data/__init__.py": "WHOSE = 'mine'",
    "data/rows.csv": "id,question,option,cost,correct\n"
    + "".join(
        f"{i},What?,{name},{cost},1\n" for i in range(3) for name, cost in (("a", 1), ("b", 2))
    ),
    "router.py": "def route():\n    return 'my own'",
    "m3core.py": "",
    "main.py": """
import data, router
import m3router
from m3router import OracleLog, Policy, ScaleRouter
from m3router.data.registry import unknown_name

assert data.WHOSE == "mine" and router.route() == "my own"
print(m3router.__version__, Policy.__module__, unknown_name("a", "b", "c"))
""",
}


def test_a_project_keeps_its_own_data_and_router(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    install = [PYTHON, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, built[0]], check=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    assert {path.name for path in site.iterdir()} >= {"m3router"}
    assert not {path.name for path in site.iterdir()} & {"data", "m3core", "router", "experiments"}
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    project = tmp_path / "project"
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)

    def run(*arguments: str | Path) -> str:
        # Nothing of the surrounding tests, and no editable installation of this repository.
        bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(arguments, cwd=project, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "m3router.router" in run(python, "main.py")
    run(python, "-m", "m3router", "import", "table", "data/rows.csv", "--out", "run")
    assert "right" in run(python, "-m", "m3router", "inspect", "run")
    assert run(tmp_path / "env/bin/m3router", "--version") == run(
        python, "-m", "m3router", "--version"
    )


def test_it_is_marked_as_typed():
    assert (ROOT / "m3router/py.typed").is_file()
