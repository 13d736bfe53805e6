"""`m3router serve --processes 2` as it is started: what it counts was asked, and it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.gateway.endpoint_run import LARGE, SMALL, asked_image, chat, image_part, user

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def sums(page: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name.removeprefix("m3router_gateway_"): float(value) for name, _, value in lines}


def family(root: int) -> set[int]:
    """Processes of a session or below a process, by what the system says."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.slow  # 40 s on two idle cores: two processes, each with a router and image workers
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_two_processes_count_what_was_asked_log_it_and_leave_none_behind(
    endpoint_run, stand_in, tmp_path
):
    port = free_port()
    command = [sys.executable, "-m", "m3router", "serve", str(endpoint_run.root)]
    command += ["--upstream", f"{stand_in.url}/v1", "--port", str(port), "--processes", "2"]
    log = (tmp_path / "log").open("w+")
    server = subprocess.Popen(
        [*command, "--unlike", "0", "--log-format", "json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}"

    def ask(number: int) -> httpx.Response:
        large = number % 2 == 0
        data, _ = asked_image(number % 10, cells=8 if large else 16)
        body = chat(user(image_part(data), LARGE if large else SMALL), max_tokens=8)
        return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)

    try:
        until = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < until:
            try:
                if httpx.get(f"{url}/ready", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(ask, range(24)))
        pages = [httpx.get(f"{url}/metrics", trust_env=False).text for _ in range(4)]
        processes = family(server.pid)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
    assert [one.status_code for one in answers] == [200] * 24
    options = Counter(one.headers["x-m3router-option"] for one in answers)
    reasons = Counter(one.headers["x-m3router-reason"].partition(":")[0] for one in answers)
    usages = [one.json()["usage"] for one in answers]
    for page in pages:
        told = sums(page)
        for option, count in options.items():
            assert told[f'requests_total{{option="{option}",status="200"}}'] == count
        for reason, count in reasons.items():
            assert told[f'reasons_total{{reason="{reason}"}}'] == count
        routed = reasons["routed"]
        assert told["decision_seconds_count"] == told["estimated_accuracy_count"] == routed
        assert 0 < told["decision_seconds_sum"] < 24 * 60
        assert told["familiarity_count"] in (0, routed)
        assert told["request_seconds_count"] == told["first_byte_seconds_count"] == 24
        prompt = sum(v for k, v in told.items() if re.match(r'tokens_total.*kind="prompt"', k))
        assert prompt == sum(one["prompt_tokens"] for one in usages)
    log.seek(0)
    lines = [json.loads(line) for line in log if line.strip()]
    served = [one for one in lines if one.get("path") == "/v1/chat/completions"]
    assert len(served) == 24 and len({one["request_id"] for one in served}) == 24
    assert len(processes) >= 5
    until = time.monotonic() + 10
    while (left := {one for one in processes if Path(f"/proc/{one}").exists()}) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert not left
