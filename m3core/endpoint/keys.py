"""API keys and addresses: what is secret stays out of logs, messages and files."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from m3router.data.errors import DataError
from m3router.data.paths import StrPath, as_path

ENDING = "/chat/completions"
HIDDEN = "[key]"
_NO_HOST = re.compile(r"[\s\x00-\x20\"<>\\^`{|}]")

logger = logging.getLogger(__name__)


class Key:
    """An API key; it shows itself nowhere but in :meth:`reveal`.

    Args:
        secret: The key; spaces and line ends around it are dropped.
        source: Where it is read from, for those who need it again; None for nowhere.

    Raises:
        DataError: If it is empty, or has characters that no header can carry.

    >>> Key("sk-very-secret")
    Key(...)
    """

    __slots__ = ("_secret", "source")

    def __init__(self, secret: str, *, source: Mapping[str, str] | None = None) -> None:
        self._secret = secret.strip()
        self.source = source
        if not self._secret:
            raise DataError("the API key is empty; set the variable or write the file anew")
        if not all("!" <= one <= "~" for one in self._secret):
            raise DataError(
                "the API key has characters other than printable ASCII, or is several lines: "
                "write it alone, without quotation marks"
            )

    def __repr__(self) -> str:
        return "Key(...)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not written to files; name where it is instead")

    def reveal(self) -> str:
        """The key itself, for the header of a request and nothing else."""
        return self._secret

    def hide(self, text: str) -> str:
        """A text in which the key is replaced, should a server have repeated it."""
        return text.replace(self._secret, HIDDEN)

    @classmethod
    def from_environment(cls, name: str) -> Key:
        """The key in an environment variable.

        Raises:
            DataError: If there is no such variable, or it is no key.
        """
        if not os.environ.get(name, "").strip():
            raise DataError(
                f"the environment variable {name} is not set, or is empty; export it, or name "
                "another with --key-env or a file with --key-file"
            )
        return cls(os.environ[name], source={"environment": name})

    @classmethod
    def from_file(cls, path: StrPath) -> Key:
        """The key in a file that holds nothing else; warns where others may read the file.

        Raises:
            DataError: If it cannot be read, or is no key.
        """
        path = as_path(path)
        try:
            mode = path.stat().st_mode
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "not a text of ASCII"
            raise DataError(f"the key file {path} cannot be read: {cause}") from None
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            logger.warning(
                "the key file %s may be read by other users; `chmod 600` it", path, stacklevel=2
            )
        return cls(text, source={"file": str(path)})

    @classmethod
    def again(cls, source: Mapping[str, str]) -> Key:
        """The key from where another one was read.

        Raises:
            DataError: If it is there no more.
        """
        if "environment" in source:
            return cls.from_environment(source["environment"])
        return cls.from_file(Path(source["file"]))


def base_url(url: str) -> str:
    """The address that ``/chat/completions`` and ``/models`` are appended to.

    >>> base_url("http://localhost:8000")
    'http://localhost:8000/v1'
    >>> base_url("https://api.example.org/openai/v1/chat/completions")
    'https://api.example.org/openai/v1'

    Args:
        url: With the scheme; without a path, ``/v1`` is meant.

    Raises:
        DataError: If it is no address of HTTP, or holds what may be a secret: a user, a password,
            a query. The message does not repeat those.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise DataError("the endpoint's address cannot be read: is its port a number?") from None
    if (
        "@" in url.split("://")[-1].split("/")[0]
        or parts.username is not None
        or parts.password is not None
    ):
        raise DataError(
            "the endpoint's address has a user or a password in it, which would be written into "
            "logs: take it out, and give the key by --key-env or --key-file"
        )
    if parts.query or parts.fragment:
        raise DataError(
            "the endpoint's address has a query (what follows ? or #), which may hold a key and "
            "would be written into logs: take it out, and give the key by --key-env or --key-file"
        )
    if parts.scheme not in ("http", "https") or not host or _NO_HOST.search(host):
        raise DataError(
            f"the endpoint's address must begin with http:// or https:// and a host, got {url!r}"
        )
    path = parts.path.rstrip("/").removesuffix(ENDING).rstrip("/") or "/v1"
    named = f"[{host}]" if ":" in host else host
    place = named if port is None else f"{named}:{port}"
    return urlunsplit((parts.scheme, place, path, "", ""))
