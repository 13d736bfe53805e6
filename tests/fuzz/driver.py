"""Runs a target in a child process under limits, and says what went wrong and how to see it again.

The child writes into a small shared file which case it is at, so that a case that never returns, or
takes the process with it, is known; the next child goes on behind it.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

TARGETS = {"images": 100_000, "bodies": 20_000, "gateway": 20_000, "artefacts": 2_000}
"""Name of a target -> cases of a long run."""
MOST_FINDINGS = 20
WARM_UP = 0.2  # share of the cases after which memory must not grow any more
POLL = 0.05  # seconds
_AT = struct.Struct("qd")  # number of the case, and when it began


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        seconds: Of processor time for one case, so that a busy machine finds nothing.
        asleep: Wall-clock seconds for one case, for one that waits and never works.
        start_seconds: For the imports and whatever a target makes first.
        memory: Bytes of address space beyond what the child has once it is warm.
        growth: Bytes of resident memory that may be added after a warm-up.
    """

    seconds: float = 10.0
    asleep: float = 120.0
    start_seconds: float = 180.0
    memory: int = 2 << 30
    growth: int = 64 << 20


@dataclass
class Report:
    """What a target did.

    Attributes:
        findings: (number of the case, what happened).
        slowest: (seconds, number) of the slowest case.
        growth: Bytes of resident memory added after the warm-up, by the last child.
    """

    target: str
    seed: int
    cases: int
    seconds: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    growth: int = 0

    def text(self) -> str:
        """A few lines, with the command that shows each finding again."""
        lines = [
            f"{self.target}: {self.cases:,} cases of seed {self.seed} in {self.seconds:.1f} s; "
            f"slowest {self.slowest[0] * 1000:.1f} ms (case {self.slowest[1]}); memory "
            f"{self.growth / 2**20:+.1f} MiB; {len(self.findings)} findings"
        ]
        for number, what in self.findings:
            again = f"python -m tests.fuzz {self.target} --seed {self.seed} --first {number}"
            lines += [f"- case {number}: {what}", f"  again: {again} --cases 1"]
        return "\n".join(lines)


def available(name: str) -> bool:
    """Whether there is a target of this name."""
    return importlib.util.find_spec(_module(name)) is not None if name else False


def target_of(name: str) -> ModuleType:
    """The module of a target."""
    return importlib.import_module(_module(name))


def _module(name: str) -> str:
    return name if "." in name else f"tests.fuzz.{name}"


def run(name: str, *, seed: int, cases: int, first: int = 0) -> Report:
    """Run some cases of a target in children, one after the other."""
    limits = limits_of(target_of(name))
    report, began = Report(name, seed, cases), time.monotonic()
    end = first + cases
    while first < end and len(report.findings) < MOST_FINDINGS:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "at"
            place.write_bytes(_AT.pack(-1, 0.0))
            first = _one_child(report, place, limits, first=first, end=end)
    report.seconds = time.monotonic() - began
    return report


def limits_of(target: ModuleType) -> Limits:
    """A target's own limits, or the usual ones."""
    return getattr(target, "LIMITS", Limits())


def _one_child(report: Report, place: Path, limits: Limits, *, first: int, end: int) -> int:
    """Run one child to its end; returns the case to go on with."""
    command = [sys.executable, "-m", "tests.fuzz", report.target, "--seed", str(report.seed)]
    command += ["--first", str(first), "--cases", str(end - first), "--child", str(place)]
    log = place.with_name("errors")
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        late = _watch(process, place, limits)
        told = process.communicate()[0].decode()
    number, _ = _AT.unpack(place.read_bytes())
    result: dict[str, Any] = {}
    for line in told.splitlines():
        one = json.loads(line)
        if "finding" in one:
            report.findings.append(tuple(one["finding"]))
        else:
            result = one
    report.slowest = max(report.slowest, tuple(result.get("slowest", (0.0, -1))))
    report.growth = result.get("growth", report.growth)
    if process.returncode == 0 and not late:
        return int(result["next"])
    tail = " | ".join(log.read_text(errors="replace").splitlines()[-3:])[-500:]
    if late:
        what = f"took more than {late:.0f} s"
    elif process.returncode < 0:
        what = f"ended the process: {signal.Signals(-process.returncode).name} {tail}"
    else:
        what = f"ended the process with {process.returncode}: {tail}"
    report.findings.append((number, what))
    return number + 1 if number >= 0 else end


def _watch(process: subprocess.Popen[bytes], place: Path, limits: Limits) -> float:
    """Wait, and kill a child whose case does not end; returns the limit that was passed, or 0."""
    started, spent, last = time.monotonic(), 0.0, -1
    while process.poll() is None:
        time.sleep(POLL)
        number, began = _AT.unpack(place.read_bytes())
        if number != last:
            last, spent = number, processor_seconds(process.pid)
        worked = processor_seconds(process.pid) - spent
        limit = limits.asleep if number >= 0 else limits.start_seconds
        over = time.monotonic() - (began if number >= 0 else started) > limit
        if over or (number >= 0 and worked > limits.seconds):
            process.kill()
            return limit if over else limits.seconds
    return 0.0


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process has had; 0 where it has just ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def child(name: str, *, seed: int, first: int, cases: int, file: str) -> int:
    """The child: check cases, and say in lines of JSON what is found, and at the end how it was."""
    target = target_of(name)
    limits, told = limits_of(target), Report(name, seed, cases)
    if hasattr(target, "prepare"):
        target.prepare()
    space = _address_space() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    with Path(file).open("r+b") as shared, mmap.mmap(shared.fileno(), _AT.size) as at:
        at_end = _checked(target, told, at, first=first, cases=cases)
    told.growth = at_end["growth"]
    if told.growth > limits.growth:
        _tell(told, at_end["next"] - 1, f"memory grew by {told.growth >> 20} MiB")
    print(json.dumps({"slowest": told.slowest, **at_end}), flush=True)
    return 0


def _tell(told: Report, number: int, what: str) -> None:
    """Say it at once: the next case may end the process."""
    told.findings.append((number, what))
    print(json.dumps({"finding": [number, what]}), flush=True)


def _checked(
    target: ModuleType, told: Report, at: mmap.mmap, *, first: int, cases: int
) -> dict[str, int]:
    warm, resident, number = first + int(WARM_UP * cases), 0, first
    for number, case in numbered(target, told.seed, first, cases):
        began = time.monotonic()
        at[:] = _AT.pack(number, began)
        if number == warm:
            resident = _resident()
        try:
            target.check(case)
        except Exception as error:  # whatever it is, it is what we look for
            _tell(told, number, _brief(error))
        spent = time.monotonic() - began
        told.slowest = max(told.slowest, (spent, number))
        if len(told.findings) >= MOST_FINDINGS:
            break
    growth = _resident() - resident if cases >= 100 else 0
    return {"growth": max(0, growth), "next": number + 1}


def numbered(target: ModuleType, seed: int, first: int, cases: int) -> Iterator[tuple[int, Any]]:
    """Some cases of a seed, each with its number."""
    return itertools.islice(enumerate(target.cases(seed)), first, first + cases)


def _brief(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:300]} ({where})"


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
