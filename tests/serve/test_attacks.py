"""Whoever means harm harms nobody else: what others wait for, while somebody attacks.

The server is the real one, in a process of its own, as are the attackers. Ordinary clients ask for
its health, on a connection that stays and on new ones, and for what is refused by its body.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3router.router.serve.guard.key_file import add_key
from tests.serve.attacks import ATTACKS, ROOT, Target, attacking
from tests.serve.small_run import SmallRun

FLOOR = 0.010
"""Seconds: below it, what is measured is the machine."""
TRIES = 3
"""The machine has others on it; a server that is held is held every time."""


@pytest.fixture(scope="module")
def target(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    attacker, key = add_key(keys, "attacker"), add_key(keys, "others")
    command = ["-m", "m3router", "serve", str(small_run.root), "--port", "0", "--keys", str(keys)]
    server = subprocess.Popen(
        [sys.executable, *command, "--device", "cpu", "--threads", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    port = 0
    for line in server.stdout:
        if "http://127.0.0.1:" in line:
            port = int(line.partition("http://127.0.0.1:")[2].split()[0].strip("/."))
            break
    drain = threading.Thread(target=server.stdout.read, daemon=True)
    drain.start()
    try:
        assert port
        found = Target(port, attacker)
        _until_ready(found)
        found.others = key  # type: ignore[attr-defined]
        yield found
    finally:
        server.kill()
        server.wait()
