"""Pins with hashes, which the container is installed from: `make pins` writes them anew.

For each extra that the Dockerfile takes, `requirements/EXTRA.txt` holds what the package with it
needs on Linux with Python 3.11, at the versions of `constraints.txt`, with the hashes of the files
that pip would choose on x86-64 and on ARM. What is needed is read from what is installed here; the
hashes are told by pip, from its own index, without anything being installed. torch is left out: the
Dockerfile installs it first, from an index with files of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from m3router.data.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
EXTRAS = ("serve", "ray", "video")
MACHINES = ("x86_64", "aarch64")
GLIBC = range(36, 4, -1)
"""Minor versions of glibc 2 that wheels may be built for; Debian 12 has 2.36."""
BUILDS = "setuptools"
"""What builds this package itself; it is in no extra."""
HEAD = "# Written by `make pins` from pyproject.toml and constraints.txt; not edited by hand.\n"


def pinned() -> dict[str, str]:
    """Name to version, as `constraints.txt` has it."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def needed(extra: str) -> list[str]:
    """Names of all that the package with an extra needs in the container, but for torch.

    Raises:
        DataError: If something of it is not installed here or not pinned.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    waiting = [Requirement(one) for one in [*project["dependencies"], *extras[extra], BUILDS]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        name, wanted = canonicalize_name(one.name), frozenset(one.extras)
        if (name, wanted) in seen or not _applies(one, frozenset({""})):
            continue
        seen.add((name, wanted))
        if name == project["name"]:
            waiting += [Requirement(more) for inner in wanted for more in extras[inner]]
            continue
        for text in requires(name) or []:
            more = Requirement(text)
            # Of torch only what is not for a GPU; its index brings that.
            if _applies(more, wanted | {""}) and not (
                name == "torch" and more.name not in pinned()
            ):
                more.marker = None
                waiting.append(more)
    names = {name for name, _ in seen} - {project["name"], "torch"}
    missing = sorted(names - set(pinned()))
    if missing:
        raise DataError(f"constraints.txt does not pin {', '.join(missing)}; add them.")
    return sorted(names)


def _applies(requirement: Requirement, extras: frozenset[str] | set[str]) -> bool:
    if requirement.marker is None:
        return True
    here = {"python_version": "3.11", "python_full_version": "3.11.14", "sys_platform": "linux"}
    here |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
    here |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    return any(requirement.marker.evaluate({**here, "extra": extra}) for extra in extras)


def hashes(names: list[str], machine: str) -> dict[str, str]:
    """Name to SHA-256 of the wheel that pip chooses for a machine.

    Raises:
        DataError: If pip finds none.
    """
    kinds = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
        wanted.write_text("".join(f"{name}=={pinned()[name]}\n" for name in names))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", folder]
        command += ["--python-version", "3.11", "--implementation", "cp"]
        command += [part for abi in ("cp311", "abi3", "none") for part in ("--abi", abi)]
        command += [part for kind in kinds for part in ("--platform", kind)]
        command += ["--report", str(report), "--requirement", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DataError(f"pip finds no wheels for {machine}: {done.stderr.strip()[-500:]}")
        found = json.loads(report.read_text())["install"]
    return {
        canonicalize_name(one["metadata"]["name"]): one["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for one in found
    }


def text_of(names: list[str], found: list[dict[str, str]]) -> str:
    """A file of pins with their hashes, one for each machine where they differ."""
    lines = [HEAD]
    for name in names:
        each = sorted({one[name] for one in found})
        told = "".join(f" \\\n    --hash=sha256:{digest}" for digest in each)
        lines.append(f"{name}=={pinned()[name]}{told}\n")
    return "".join(lines)


def stale() -> list[str]:
    """What is wrong with the files that are there, as sentences; nothing is asked of an index."""
    problems = []
    for extra in EXTRAS:
        file = FOLDER / f"{extra}.txt"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        pins = re.findall(
            r"^([\w.-]+)==([^ \n]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.M
        )
        wanted = [(name, pinned()[name]) for name in needed(extra)]
        if [(name, version) for name, version, _ in pins] != wanted:
            problems.append(f"{file.name} is not what {extra} needs at the pins; run make pins.")
    return problems


def main() -> None:
    """Write the files, or look whether they are fresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if they are old")
    if parser.parse_args().check:
        problems = stale()
        print("\n".join(problems) or "the pins are fresh")
        sys.exit(bool(problems))
    each = {extra: needed(extra) for extra in EXTRAS}
    together = sorted(set().union(*each.values()))
    found = [hashes(together, machine) for machine in MACHINES]
    FOLDER.mkdir(exist_ok=True)
    for extra, names in each.items():
        (FOLDER / f"{extra}.txt").write_text(text_of(names, found), encoding="utf-8")


if __name__ == "__main__":
    main()
