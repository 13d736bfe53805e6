"""A Ray of a test's own, of which nothing is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from m3router.router.serve.backends.ray.backend import ENVIRONMENT

# Before Ray is imported, which reads some of it then; and no token in the home folder.
os.environ.update(ENVIRONMENT, RAY_AUTH_MODE="disabled")


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
