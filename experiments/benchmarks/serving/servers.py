"""Servers as processes: started, waited for, watched and ended. Linux only."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from m3router.data.errors import M3RouterError

PATIENCE = 120.0
"""Seconds to wait for a server to start or to end."""
HOST = "127.0.0.1"
_TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """A server in processes of its own.

    Args:
        name: What it is called in messages and results.
        command: Its command line.
        port: Where it will listen.
        ready: Path that answers 200 as soon as questions are taken.
        log: File for what it prints.
        names: Model of the workload to the name by which the server knows it, where they differ.
        environment: Further environment variables.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        port: int,
        ready: str,
        log: Path,
        names: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.url = f"http://{HOST}:{port}"
        self.ready = ready
        self.log = log
        self.names = dict(names or {})
        self.environment = dict(environment or {})

    def __enter__(self) -> Server:
        """Start and wait until it answers.

        Raises:
            M3RouterError: If it ends, or does not answer in time; with the end of what it printed.
        """
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
            )
        until = time.monotonic() + PATIENCE
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise M3RouterError(
                    f"{self.name} did not start ({' '.join(self.command[:6])} ...); it printed: "
                    f"{self.log.read_text(errors='replace')[-1500:]}"
                )
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        """End it, by force where it does not listen."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            answer = httpx.get(self.url + self.ready, timeout=5.0, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    def memory(self) -> float:
        """MiB that its processes hold now."""
        page = resource.getpagesize()
        return sum(int(one.split()[1]) for one in self._family("statm")) * page / 2**20

    def cpu(self, *, children: bool = True) -> float:
        """Seconds of processor time that its processes took so far, or the first of them alone."""
        spent = 0
        for one in self._family("stat")[: None if children else 1]:
            # After the name in brackets, which may hold anything: state is field 3 of proc(5).
            fields = one.rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
        return spent / _TICK

    def _family(self, name: str) -> list[str]:
        """A file of /proc of its process and of all below it that are still there.

        Raises:
            FileNotFoundError: If the server itself is gone.
        """
        root = self.process.pid
        found = [Path(f"/proc/{root}/{name}").read_text()]
        for process in below(root):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{process}/{name}").read_text())
        return found


def below(process: int) -> list[int]:
    """Processes that a process started, and those that they started; threads may end meanwhile."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, (thread / "children").read_text().split())
    return children + [one for child in children for one in below(child)]


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def m3router(run: Path, work: Path) -> Server:
    """``m3router serve`` as it comes."""
    port = free_port()
    command = [sys.executable, "-m", "m3router", "serve", str(run)]
    return Server(
        name="m3router serve",
        command=[*command, "--model", "embedded", "--host", HOST, "--port", str(port)],
        port=port,
        ready="/ready",
        log=work / "m3router.log",
    )


def one_at_a_time(run: Path, work: Path) -> Server:
    """The naive server of :mod:`experiments.benchmarks.serving.naive`."""
    port = free_port()
    command = [sys.executable, "-m", "experiments.benchmarks.serving.naive", str(run), str(port)]
    return Server(
        name="one at a time", command=command, port=port, ready="/health", log=work / "naive.log"
    )


def transformers(checkpoint: Path, work: Path, *, model: str) -> Server:
    """``transformers serve`` with one checkpoint, without the network.

    Args:
        checkpoint: As :mod:`experiments.benchmarks.serving.checkpoint` writes it.
        work: Folder for what it prints.
        model: Whose answers it gives, such as "m3-576".
    """
    port = free_port()
    program = str(Path(sys.executable).parent / "transformers")
    return Server(
        name="transformers serve",
        command=[
            *(program, "serve", str(checkpoint), "--device", "cpu"),
            *("--host", HOST, "--port", str(port), "--log-level", "error"),
        ],
        port=port,
        ready="/health",
        log=work / "transformers.log",
        names={model: str(checkpoint)},
        environment={"HF_HUB_OFFLINE": "1"},
    )
