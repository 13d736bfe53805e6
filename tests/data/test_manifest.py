from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_bytes, read_manifest, sha256_file, write_manifest

FULL = """
import resource, sys
from pathlib import Path
from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write_bytes(Path(sys.argv[1]), b"x" * 5000)
except DataError as error:
    sys.exit(f"refused: {error}")
"""


def test_sha256_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_file(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        sha256_file(tmp_path / "none")


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    atomic_write_bytes(path, b"one")
    atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
    mask = os.umask(0o022)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "Disk full while writing" in run.stderr
    assert "a.bin" in run.stderr
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written"):
        atomic_write_bytes(tmp_path / "file" / "a.bin", b"")


def test_an_input_folder_is_its_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path / "one", stage="log", inputs={}, params={"seed": 1}, note="x")
    write_manifest(tmp_path / "two", stage="next", inputs={"log": tmp_path / "one"}, params={})
    recorded = read_manifest(tmp_path / "two", stage="next")["inputs"]["log"]
    assert recorded["path"] == "../one/manifest.json"
    assert recorded["sha256"] == sha256_file(tmp_path / "one" / "manifest.json")
    first = read_manifest(tmp_path / "one", stage="log")
    assert (first["params"], first["note"]) == ({"seed": 1}, "x")
    assert first["created"].endswith("+00:00")
    assert first["versions"]["python"].count(".") == 2
