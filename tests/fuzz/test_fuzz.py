"""The fuzzers, for seconds; `make fuzz` runs them for long."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice

import pytest

from tests.fuzz.driver import TARGETS, available, numbered, run, target_of

SHORT = {"images": 150, "bodies": 150, "gateway": 100, "artefacts": 10}


@pytest.fixture(autouse=True)
def made_once(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "fuzz_run"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("M3ROUTER_FUZZ_RUN", str(folder))


@pytest.mark.parametrize("name", [name for name in TARGETS if available(name)])
def test_nothing_is_found_in_a_short_run(name):
    target = target_of(name)
    for number, case in numbered(target, 17, 0, SHORT[name]):
        try:
            target.check(case)
        except Exception as error:
            raise AssertionError(f"{name}, seed 17, case {number}: {str(case)[:500]}") from error


@pytest.mark.parametrize("name", ["bodies", "gateway", "artefacts"])
def test_a_seed_gives_the_same_cases_again(name):
    target = target_of(name)
    once, again = (list(islice(map(repr, target.cases(3)), 50)) for _ in range(2))
    assert once == again != list(islice(map(repr, target.cases(4)), 50))


def test_the_driver_notices_whatever_goes_wrong_and_goes_on():
    found = run("tests.fuzz.broken", seed=0, cases=13)
    told = dict(found.findings)
    assert sorted(told) == [3, 5, 7, 9, 11]
    assert "KeyError" in told[3] and "SIGABRT" in told[5]
    assert "more than" in told[7] and "more than" in told[9] and "MemoryError" in told[11]
    assert "--seed 0 --first 5 --cases 1" in found.text()


def test_memory_that_grows_is_told():
    found = run("tests.fuzz.broken", seed=0, cases=200, first=20)
    assert [what for _, what in found.findings] == [f"memory grew by {found.growth >> 20} MiB"]
    assert found.growth > 16 << 20


def test_findings_make_the_command_fail():
    command = [sys.executable, "-m", "tests.fuzz", "tests.fuzz.broken", "--first", "3"]
    done = subprocess.run([*command, "--cases", "1"], capture_output=True, text=True)
    assert done.returncode == 1 and "case 3: KeyError" in done.stdout
