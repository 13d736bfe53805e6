"""Files of a finished run, damaged: a reader refuses them with a message, or they were still right.

Half of the damages are *sealed*: all hashes that were made of the file are made anew, as somebody
would who can write a run, or a program that wrote NaN. A reader may then take what it cannot tell
from a right file, but must not raise anything other than an error of this project.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.errors import M3RouterError
from m3router.data.log.partial_log import find_log, read_journal
from m3router.router.features.store import VectorStore
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run
from m3router.router.stages.checks import check_run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.reporting import report_stage
from tests.fuzz.driver import Limits
from tests.serve.small_run import make_small_run

LIMITS = Limits(seconds=20.0)
FILES = (
    "log/manifest.json",
    "log/oracle.parquet",
    "features/manifest.json",
    "features/features.parquet",
    "split.json",
    "router/manifest.json",
    "router/router.json",
    "router/logistic.safetensors",
    "policies/default.json",
    "policies/manifest.json",
    "evaluation/manifest.json",
    "evaluation/evaluation.json",
    "importance/manifest.json",
    "importance/importance.json",
)
"""What every reader of a run depends on."""
ASIDE = ("log/journal.jsonl", "features/vectors/journal.jsonl")
"""What was needed to make the run; a damage may be told or passed over."""
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "1e308", "-1", "0.5")
VALUES: tuple[Any, ...] = (None, True, "x", "", -1, 0, 10**15, 10**25, 1e300, -0.5, [], {}, [[]])
DEEP = "[" * 3000 + "]" * 3000


@dataclass(frozen=True)
class Damage:
    """One file, damaged in one way.

    Attributes:
        file: Of the run.
        kind: A key of `KINDS`.
        seed: Of what is drawn at random.
        sealed: Whether hashes are made anew.
    """

    file: str
    kind: str
    seed: int = 0
    sealed: bool = False


def cases(seed: int) -> Iterator[Damage]:
    """Damages without end."""
    rng = random.Random(f"artefacts {seed}")
    while True:
        kind = rng.choice([*KINDS, *["value", "number", "flip"] * 4])
        file = rng.choice(FILES + ASIDE)
        yield Damage(file, kind, seed=rng.randrange(1 << 30), sealed=rng.random() < 0.5)


def check(case: Damage) -> None:
    """Damage a copy of a run, and read it by everything that reads one.

    Raises:
        AssertionError: A damage that hashes tell of was told by nobody.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        shutil.copytree(finished_run(), root, ignore=shutil.ignore_patterns("report"))
        before = root.joinpath(case.file).read_bytes()
        apply(root, case)
        told = messages(root, case.file)
        path = root / case.file
        same = path.is_file() and os.access(path, os.R_OK) and path.read_bytes() == before
        if case.file in FILES and not case.sealed and not same:
            assert told, f"{case} was told by nobody"
        for message in told:
            assert len(message) < 2_000 and message.isprintable(), f"{case}: {message[:300]!r}"


def messages(root: Path, file: str = "") -> list[str]:
    """What the readers of a run, or of one of its files, say is wrong; [] where it is fine."""
    run, told = Run(root), []
    for folders, reader in READERS:
        if file and not file.startswith(folders):
            continue
        try:
            reader(run)
        except M3RouterError as error:
            told.append(" ".join(str(error).split()))
    told += [f"{one.what}: {one.detail}" for one in check_run(run) if not one.ok]
    return [" ".join(one.split()) for one in told]


def _serve(run: Run) -> None:
    """What `m3router serve` reads before it takes questions."""
    router = run.router()
    run.policies(router)
    CalibrationData.read(run)


def _rules(run: Run) -> None:
    for name in run.policy_names():
        run.cascade(name, run.router())


def _journals(run: Run) -> None:
    read_journal(run.log_folder)


def _vectors(run: Run) -> None:
    with VectorStore(run.features_folder) as store:
        for one in store.read():
            assert one.values.ndim == 1


def _inspect(run: Run) -> None:
    find_log(run.root)


def _report(run: Run) -> None:
    report_stage(run, reuse=True)  # made anew for a copy without it, as those of `check` are


READERS: tuple[tuple[tuple[str, ...], Callable[[Run], object]], ...] = (
    (("log", "features", "split", "router", "policies"), _serve),
    (("router", "policies"), _rules),
    (("log",), _inspect),
    (("log",), _journals),
    (("features",), _vectors),
    (("evaluation", "importance"), _report),
)
"""What reads a run, and of which of its folders; the checks of `m3router check` read all."""


@cache
def finished_run() -> Path:
    """A run of seconds, labelled, trained, calibrated, evaluated and reported; made once."""
    folder = Path(os.environ.get("M3ROUTER_FUZZ_RUN") or tempfile.mkdtemp(prefix="m3router-fuzz-"))
    made = make_small_run(folder).root
    if not (made / "report" / "report.html").is_file():
        evaluate_stage(Run(made), draws=20)
        report_stage(Run(made))
    return made


def prepare() -> None:
    """Make the run before memory is limited."""
    finished_run()


# --- damages --------------------------------------------------------------------------------------


def apply(root: Path, case: Damage) -> None:
    """Damage a file of a run, and make hashes anew where that is asked for."""
    path, rng = root / case.file, random.Random(case.seed)
    KINDS[case.kind](path, rng)
    if case.sealed:
        reseal(root, case.file)


def _truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 4, 50])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _longer(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"\0{}")


def _number(path: Path, rng: random.Random) -> None:
    """A number of the file is none, or beyond reach; in tensors NaN or infinity."""
    if path.suffix == ".json":
        _replaced(path, rng, rng.choice(NUMBERS))
    elif path.suffix == ".safetensors":
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        at = start + 8 * rng.randrange((len(content) - start) // 8)
        content[at : at + 8] = np.float64(rng.choice(["nan", "inf", "-inf", "1e308"])).tobytes()
        path.write_bytes(content)
    else:
        _flip(path, rng)


def _value(path: Path, rng: random.Random) -> None:
    """A value of the file becomes another one, a field is lost, or one comes."""
    if path.suffix != ".json":
        return _flip(path, rng)
    values = json.loads(path.read_bytes())
    holder, key = rng.choice(list(_places(values)))
    how = rng.randrange(4)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice(["", "x", "é", "kind"])] = rng.choice(VALUES)
    else:
        holder[key] = rng.choice(VALUES)
    path.write_text(json.dumps(values))
    return None


def _deep(path: Path, rng: random.Random) -> None:
    _replaced(path, rng, rng.choice([DEEP, "[" * 200 + "]" * 200]))


def _surrogate(path: Path, rng: random.Random) -> None:
    _replaced(path, rng, '"\\ud800"')


def _twice(path: Path, rng: random.Random) -> None:
    content = path.read_text(errors="surrogateescape")
    path.write_text(content.replace("{", '{"stage": 1, "stage": 2, ', 1), errors="surrogateescape")


def _kind(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.choice([b"[]", b"null", b"5", b'"x"', b"{}", b"\xff\xfe{}", b"PAR1PAR1"]))


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _dangling(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _gone(path: Path, rng: random.Random) -> None:
    path.unlink()


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "truncate": _truncate,
    "flip": _flip,
    "empty": _empty,
    "longer": _longer,
    "number": _number,
    "value": _value,
    "deep": _deep,
    "surrogate": _surrogate,
    "twice": _twice,
    "kind": _kind,
    "folder": _folder,
    "loop": _loop,
    "dangling": _dangling,
    "pipe": _pipe,
    "gone": _gone,
}


def _replaced(path: Path, rng: random.Random, written: str) -> None:
    """Put a text in the place of one value of a JSON file; elsewhere at a random byte."""
    if path.suffix != ".json":
        content = path.read_bytes()
        at = rng.randrange(len(content))
        path.write_bytes(content[:at] + written.encode() + content[at:])
        return
    values = json.loads(path.read_bytes())
    holder, key = rng.choice([one for one in _places(values) if one[1] != "sha256"])
    holder[key] = "@@HERE@@"
    path.write_text(json.dumps(values, indent=1).replace('"@@HERE@@"', written))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield value, key
        yield from _places(value[key])


# --- hashes made anew -----------------------------------------------------------------------------


def reseal(root: Path, file: str) -> None:
    """Make every hash of a run anew that depends on a file, as far as files can still be read."""
    router = root / "router" / "router.json"
    if file.startswith("router/"):
        found = _sealed(router, lambda values: _hash_files(values.get("files"), router.parent))
        for policy in root.glob("policies/*.json"):
            if found and policy.name != "manifest.json":
                _sealed(policy, lambda values: values["policy"]["binding"].update(router=found))
    elif file.startswith("policies/") and not file.endswith("manifest.json"):
        _sealed(root / file, lambda values: None)
    for folder in ("log", "features", "router", "policies", "evaluation", "importance", "report"):
        _resealed_manifest(root / folder / "manifest.json")


def _sealed(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    if not path.is_file():
        return ""
    try:
        values = json.loads(path.read_bytes())
        change(values)
        values.pop("sha256", None)
        seal = hashlib.sha256(_rendered(values)).hexdigest()
        path.write_bytes(_rendered({**values, "sha256": seal}))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    return seal


def _rendered(values: Any) -> bytes:
    return (json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _hash_files(files: Any, folder: Path) -> None:
    for name in files if isinstance(files, dict) else ():
        if (folder / name).is_file():
            files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()


def _resealed_manifest(path: Path) -> None:
    if not path.is_file():
        return
    try:
        values = json.loads(path.read_bytes())
        _hash_files(values.get("files"), path.parent)
        for one in values.get("inputs", {}).values():
            target = path.parent / one["path"]
            if target.is_file():
                one["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
        values.pop("sha256", None)
        text = json.dumps(values, sort_keys=True, ensure_ascii=True)
        values["sha256"] = hashlib.sha256(text.encode("ascii")).hexdigest()
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
