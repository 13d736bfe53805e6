from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.journal import JOURNAL, Journal

META = {"model": "toy", "grid": [1, 9], "seed": 0}


def row(example: str, scale: str = "1", **changes: object) -> dict[str, object]:
    return {"example_id": example, "scale": scale, "score": 1.0, "error": None, **changes}


def fill(folder: Path, batches: int = 3) -> Path:
    """Write batches of two rows each; give the file."""
    with Journal.open(folder, META) as journal:
        for batch in range(batches):
            journal.append([row(f"e{batch}", "1"), row(f"e{batch}", "9")])
    return folder / JOURNAL


def reopened(folder: Path, **options: bool) -> list[dict[str, object]]:
    with Journal.open(folder, META, **options) as journal:
        return list(journal.read_rows())


def test_rows_survive_and_resume_in_order(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "new" / "run", META) as journal:
        assert list(journal.read_rows()) == []
        journal.append([row("b"), row("a", answer="\u00e9\n\u2028", logprob=-1.25)])
        journal.append([])
        journal.append([row("c", score=np.float32(0.5), tokens=np.int64(3))])
        assert all(journal.has(name, ["1"]) for name in "abc") and not journal.has("d", ["1"])
    rows = reopened(tmp_path / "new" / "run")
    assert [r["example_id"] for r in rows] == ["b", "a", "c"]
    assert rows[1]["answer"] == "\u00e9\n\u2028"
    assert (rows[2]["score"], rows[2]["tokens"]) == (0.5, 3)


def test_rows_are_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    """A process killed right after append loses nothing."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from m3router.data.log.journal import Journal\n"
        f"journal = Journal.open(Path(sys.argv[1]), {META!r})\n"
        f"journal.append([{row('a')!r}])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert [r["example_id"] for r in reopened(tmp_path)] == ["a"]


def test_rows_given_out_are_copies(tmp_path: Path) -> None:
    with Journal.open(tmp_path, META) as journal:
        mine = row("a")
        journal.append([mine])
        mine["score"] = 0.0
        assert next(journal.read_rows())["score"] == 1.0


def test_a_later_row_replaces_an_earlier_one(tmp_path: Path) -> None:
    with Journal.open(tmp_path, META) as journal:
        journal.append([row("a", score=None, error="boom"), row("b")])
    assert [r["error"] for r in reopened(tmp_path)] == ["boom", None]
    with Journal.open(tmp_path, META, retry_errors=True) as journal:
        assert journal.has("b", ["1"]) and not journal.has("a", ["1"])
        journal.append([row("a")])
    assert {r["example_id"]: r["error"] for r in reopened(tmp_path)} == {"a": None, "b": None}
    assert len(reopened(tmp_path)) == 2


def test_torn_tail_is_dropped_at_every_place(tmp_path: Path) -> None:
    path = fill(tmp_path, batches=2)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    near_ends = {end + step for end in ends for step in (-1, 0, 1)}
    for size in sorted({*range(0, len(whole), 11), *near_ends} - {len(whole) + 1}):
        path.write_bytes(whole[:size])
        rows = reopened(tmp_path)
        complete = sum(end <= size for end in ends)
        assert len(rows) == 2 * max(0, complete - 1)
        assert path.read_bytes() == whole[: max(ends[0], ends[complete - 1] if complete else 0)]


def test_after_a_torn_tail_writing_goes_on(tmp_path: Path) -> None:
    path = fill(tmp_path, batches=2)
    path.write_bytes(path.read_bytes()[:-5])
    with Journal.open(tmp_path, META) as journal:
        assert len(list(journal.read_rows())) == 2
        journal.append([row("later")])
    assert [r["example_id"] for r in reopened(tmp_path)] == ["e0", "e0", "later"]


def test_torn_middle_names_the_byte(tmp_path: Path) -> None:
    path = fill(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1], lines[2][:20] + b"\n", lines[3]]))
    offset = len(lines[0]) + len(lines[1])
    with pytest.raises(DataError, match=f"damaged at byte {offset} .*truncate -s {offset}"):
        Journal.open(tmp_path, META)
    os.truncate(path, offset)  # what the message says
    assert len(reopened(tmp_path)) == 2


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = fill(tmp_path, batches=2)
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged at byte"):
            Journal.open(tmp_path, META)
        assert path.read_bytes() == bytes(damaged)
    path.write_bytes(whole[:-1] + b"x")  # the last newline: a torn tail, labelled again
    assert len(reopened(tmp_path)) == 2


def test_other_settings_are_refused_and_both_sides_named(tmp_path: Path) -> None:
    fill(tmp_path)
    other = {**META, "model": "large", "prompt": 2}
    with pytest.raises(MismatchError) as error:
        Journal.open(tmp_path, other)
    assert "model: journal 'toy', now 'large'" in str(error.value)
    assert "prompt: journal None, now 2" in str(error.value)
    assert "seed" not in str(error.value)
    with Journal.open(tmp_path, {**META, "grid": (1, 9)}) as journal:  # tuples are JSON lists
        assert len(list(journal.read_rows())) == 6


def test_failed_open_lets_go_of_the_folder(tmp_path: Path) -> None:
    fill(tmp_path)
    for _ in range(3):
        with pytest.raises(MismatchError):
            Journal.open(tmp_path, {})
    assert len(reopened(tmp_path)) == 6


def test_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from m3router.data.log.journal import Journal\n"
        "from m3router.data.errors import DataError\n"
        "try:\n"
        f"    Journal.open(Path(sys.argv[1]), {META!r})\n"
        "except DataError as error:\n"
        "    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with Journal.open(tmp_path, META) as journal:
        journal.append([row("a")])
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert f"another process (id {os.getpid()})" in run.stderr
        with pytest.raises(DataError, match="another process"):
            Journal.open(tmp_path, META)
        journal.append([row("b")])
    assert subprocess.run(command, check=False).returncode == 0
    assert len(reopened(tmp_path)) == 2


FULL = """
import resource, sys
from pathlib import Path
from m3router.data.errors import DataError
from m3router.data.log.journal import Journal
from m3router.data.log.journal import JOURNAL
folder = Path(sys.argv[1])
journal = Journal.open(folder, META)
limit = (folder / JOURNAL).stat().st_size + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    journal.append([{"example_id": "big", "scale": "1", "answer": "x" * 5000}])
except DataError as error:
    print(error)
print((folder / JOURNAL).stat().st_size == limit - 100, journal.has("big", ["1"]))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([{"example_id": "after", "scale": "1"}])
"""


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = fill(tmp_path)
    before = path.read_bytes()
    code = FULL.replace("META", repr(META))
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    message, state = run.stdout.splitlines()
    assert "Disk full while writing" in message
    assert "resume with the same command" in message
    assert state == "True False"
    assert path.read_bytes().startswith(before)
    assert [r["example_id"] for r in reopened(tmp_path)][-1] == "after"
    assert len(reopened(tmp_path)) == 7


def test_rows_without_a_key_and_strange_values(tmp_path: Path) -> None:
    with Journal.open(tmp_path, META) as journal:
        with pytest.raises(DataError, match="needs 'scale'"):
            journal.append([{"example_id": "a"}])
        with pytest.raises(TypeError, match="is not a JSON value"):
            journal.append([row("a", score=object())])
        assert list(journal.read_rows()) == []
    assert reopened(tmp_path) == []


def test_closed_and_foreign_files(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "a", META)
    journal.close()
    journal.close()
    with pytest.raises(DataError, match="is closed"):
        journal.append([row("a")])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / JOURNAL).write_text('{"rows": []}\n')
    with pytest.raises(DataError, match="damaged at byte 0"):
        Journal.open(tmp_path / "b", META)
    (tmp_path / "c").write_text("")
    with pytest.raises(DataError, match="cannot be opened"):
        Journal.open(tmp_path / "c", META)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.dictionaries(st.text(), json_values, max_size=2), max_size=2)))
def test_any_json_row_comes_back(tmp_path_factory, batches: list[list[dict]]) -> None:
    folder = tmp_path_factory.mktemp("journal")
    expected = []
    with Journal.open(folder, META) as journal:
        for number, batch in enumerate(batches):
            rows = [{**r, "example_id": f"{number}/{i}", "scale": "1"} for i, r in enumerate(batch)]
            journal.append(rows)
            expected += rows
    assert reopened(folder) == json.loads(json.dumps(expected))
