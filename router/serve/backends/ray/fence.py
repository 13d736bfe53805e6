"""A Ray that is started here is for this machine only, and for who has its token.

Left alone, Ray's processes listen on every interface (on Linux), and whoever reaches one of them
may run code. Both of what is set here Ray reads when it is imported, so it comes before that.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import secrets
import tempfile
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError

LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With "0" the address of Ray's node is 127.0.0.1, on Linux, too, and then each of its processes
listens there only. Ray has nothing else that makes all of them do so."""
AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def fence() -> None:
    """Set Ray's environment where it is not set; call it before Ray is imported.

    Raises:
        DataError: If the environment names a token file that others can read.
    """
    os.environ.setdefault(LOCAL_ONLY, "0")
    if os.environ.setdefault(AUTH_MODE, "token") != "token" or TOKEN in os.environ:
        return
    if TOKEN_PATH not in os.environ:
        # Ray itself would write one into the home folder, as readable as the umask has it.
        os.environ[TOKEN_PATH] = str(Path(_own_token().name) / "token")
    check_private(Path(os.environ[TOKEN_PATH]))


def check_address(address: str) -> None:
    """Refuse the address that Ray is about to listen at, if it is not this machine's alone.

    Raises:
        DataError: If it is another, and nobody asked for it.
    """
    if os.environ.get(LOCAL_ONLY) == "0" and not ipaddress.ip_address(address).is_loopback:
        raise DataError(
            f"Ray would listen at {address}, beyond this machine, since it was imported before. "
            f"Set {LOCAL_ONLY}=0 before importing ray, or start a cluster of your own and give "
            "its address."
        )


def check_private(file: Path) -> None:
    """Refuse a file with a secret that others can read or write.

    Raises:
        DataError: If they can, or there is no such file.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"Ray's token {file} cannot be read: {error.strerror}.") from error
    if status.st_mode & 0o077:
        raise DataError(f"Ray's token {file} can be read or written by others: chmod 600 it.")


def keep_inside() -> None:
    """Let gRPC servers of this process listen to this machine only, where its Ray does.

    NOTE: each replica of Ray Serve opens one at ``[::]``, whatever its node's address, and says
    nowhere how to change that (``serve/_private/replica.py`` of 2.60). Called in a replica before.
    """
    if os.environ.get(LOCAL_ONLY) != "0":
        return
    server: Any = importlib.import_module("grpc.aio._server").Server  # comes with ray[serve]
    for name in ("add_insecure_port", "add_secure_port"):
        setattr(server, name, _inside(getattr(server, name)))


def _inside(add_port: Callable[..., int]) -> Callable[..., int]:
    @wraps(add_port)
    def add(self: Any, address: str, *more: Any) -> int:
        host, _, port = address.rpartition(":")
        return add_port(
            self, f"127.0.0.1:{port}" if host in ("[::]", "0.0.0.0") else address, *more
        )

    return add


@cache
def _own_token() -> tempfile.TemporaryDirectory[str]:
    """A folder with a token, until this process ends: Ray reads it once in a process."""
    folder = tempfile.TemporaryDirectory(prefix="m3router-ray-")
    file = os.open(Path(folder.name) / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "w", encoding="ascii") as new:
        new.write(secrets.token_hex(32))
    return folder
