"""A Ray of a test's own, of which nothing is left."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from m3router.router.serve.backends.ray.application import ENVIRONMENT
from m3router.router.serve.backends.ray.fence import fence

# Before Ray is imported, which reads some of it then.
os.environ.update(ENVIRONMENT)
fence()


@contextlib.contextmanager
def ray_here(*, cpus: int | None = 4) -> Iterator[None]:
    """Run Ray in a temporary folder, and end it and its processes.

    Args:
        cpus: Cores by name, of a Ray that is started here; None leaves it to who needs it.
    """
    with warnings.catch_warnings():  # Ray's own, about its ways with pydantic
        warnings.simplefilter("ignore", DeprecationWarning)
        import ray
        from ray import serve

    # Short: Ray puts sockets there, and their paths have at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    try:
        if cpus is not None:
            ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)
        yield
    finally:
        if ray.is_initialized():  # else Ray would be started to be shut down
            serve.shutdown()
            ray.shutdown()
        del os.environ["RAY_TMPDIR"]
        left = _processes_of(folder)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, f"processes were left: {left}"


def listening() -> set[str]:
    """Addresses, without ports, at which this process and those below it listen."""
    inodes: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                raw = bytes.fromhex(fields[1].partition(":")[0])
                words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                address = ipaddress.ip_address(words)
                mapped = getattr(address, "ipv4_mapped", None)
                inodes[f"socket:[{fields[9]}]"] = str(mapped or address)
    found = set()
    for process in _below(os.getpid()):
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(inodes.get(os.readlink(handle), ""))
    return found - {""}


def _below(root: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = entry.read_text()
            parents[int(entry.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = {root}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _processes_of(folder: str, *, seconds: float = 10.0) -> list[int]:
    """Processes that name the folder in their command line, after some time to end."""
    until = time.monotonic() + seconds
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if folder.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.1)
