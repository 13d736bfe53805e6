"""Who may ask: API keys from a file and from the environment, known by their SHA-256 only.

The file is written by `m3router keys` and readable by hand: one JSON object a line with ``name``,
``sha256`` (of the token, UTF-8), ``created`` and optionally ``requests_per_minute``; lines that
start with ``#`` are comments. The tokens are drawn at random with 256 bits, which is why a plain
hash is enough: there is nothing to guess. It is looked at again while the server runs, so that a
key is added or revoked without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name

ENVIRONMENT = "M3ROUTER_API_KEYS"
"""Tokens in plain text, separated by commas."""
NAMED, SHOWN = "environment-", 6
"""What such a token's key is named: this, and so many digits of the token's SHA-256, whatever the
order of the tokens is; what is recorded for a key stays that key's."""
LOOK_EVERY = 1.0
"""Seconds between two looks at the file."""
SETTLED = 2.0
"""Seconds after which a changed file is taken as whole; until then it is read at every look,
since a second change within the file system's tick leaves no trace in its times."""
LONGEST_FILE = 4 << 20
SHORTEST = 20
"""Characters below which a token from the environment is warned of."""

NAME_RULE = (
    "name must be 1 to 64 letters, digits, dots, dashes or underscores, and start with a letter "
    "or digit."
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = ("name", "sha256", "created", "requests_per_minute")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """Who asks.

    Attributes:
        name: Of the key, for logs, limits and metrics.
        requests_per_minute: This key's own limit; None for the server's.
    """

    name: str
    requests_per_minute: float | None = None


@dataclass(frozen=True)
class StoredKey:
    """A key as the file has it; the token is not in it."""

    name: str
    sha256: str
    created: str = ""
    requests_per_minute: float | None = None

    def line(self) -> str:
        """As the file has it, without the line's end."""
        fields = {"name": self.name, "sha256": self.sha256, "created": self.created}
        limit = self.requests_per_minute
        return json.dumps(fields if limit is None else {**fields, "requests_per_minute": limit})


def new_token() -> str:
    """Draw a token: 256 random bits, and a beginning that scanners for leaked secrets can know."""
    return "m3r_" + secrets.token_urlsafe(32)


def sha256_of(token: str) -> str:
    """The hash that is stored, 64 hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


NO_KEY = "not a JSON object. Give a file that `m3router keys add` made, or the name of a new one."


def parse_keys(text: str) -> list[StoredKey]:
    """Read the text of a key file.

    Args:
        text: Of the whole file.

    Returns:
        Its keys. None at all where it has comments only: that is how all keys are revoked.

    Raises:
        DataError: The text is blank or a line is not a key; the message names the line, and nothing
            that stands in it but the names of fields and keys.
    """
    found: dict[str, StoredKey] = {}
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise DataError("it is empty; a file without keys has a comment line (#).")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _parse_line(line, number)
        if key.name in found:
            raise DataError(f"line {number}: the name {key.name} is used twice.")
        found[key.name] = key
    if len({key.sha256 for key in found.values()}) < len(found):
        raise DataError("two names have the same token; revoke one of them.")
    return list(found.values())


def _parse_line(line: str, number: int) -> StoredKey:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"line {number}: {NO_KEY}") from None
    if not isinstance(fields, dict):
        raise DataError(f"line {number}: {NO_KEY}")
    unknown = next((given for given in fields if given not in _FIELDS), None)
    if unknown is not None:  # a misspelled limit would be none
        raise DataError(f"line {number}: {unknown_name('field', unknown, _FIELDS)}")
    name, digest = fields.get("name"), fields.get("sha256")
    limit, created = fields.get("requests_per_minute"), fields.get("created", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"line {number}: {NAME_RULE}")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise DataError(f"line {number}: sha256 must be 64 lower-case hexadecimal digits.")
    if limit is not None and not (
        isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < 1e9
    ):
        raise DataError(f"line {number}: requests_per_minute must be a number above 0.")
    if not isinstance(created, str):
        raise DataError(f"line {number}: created must be a text.")
    return StoredKey(name, digest, created, limit)


def check_name(name: str) -> None:
    """Refuse a name that no key can have.

    Raises:
        DataError: If it is not 1 to 64 harmless characters.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"A key's {NAME_RULE} Got {name!r}.")


@dataclass
class KeyRing:
    """The keys that are valid now. Made by :meth:`of`; used from one thread.

    What happens to the file never opens the door: without it, or when it is damaged, the last good
    keys stay valid, everybody else stays out, and a warning says so.

    Attributes:
        file: Where keys are; None for none.
        fixed: (SHA-256 digest, key) from the environment.
        clock: Seconds, monotonic.
    """

    file: Path | None
    fixed: list[tuple[bytes, Key]]
    clock: Callable[[], float] = time.monotonic
    _stored: list[tuple[bytes, Key]] = field(default_factory=list, init=False, repr=False)
    _seen: tuple[int, ...] = field(default=(), init=False, repr=False)
    _next_look: float = field(default=0.0, init=False, repr=False)
    _complaint: str = field(default="", init=False, repr=False)

    @classmethod
    def of(
        cls,
        file: Path | None,
        environment: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> KeyRing:
        """Read the keys that a server starts with.

        Args:
            file: As `m3router keys` writes it; None for none.
            environment: The value of :data:`ENVIRONMENT`; None where it is not set.
            clock: Seconds, monotonic.

        Raises:
            DataError: The file is missing or damaged, or the environment variable is set but
                holds no token: a server that was meant to have keys does not start without.
        """
        ring = cls(file, _from_environment(environment), clock)
        if file is not None:
            try:
                ring._read(file)
            except DataError as error:
                raise DataError(f"Keys {file} cannot be used: {error}") from error
            ring._next_look = clock() + LOOK_EVERY
        return ring

    @property
    def needed(self) -> bool:
        """Whether a key must be shown; False where none was ever configured."""
        return self.file is not None or bool(self.fixed)

    def authenticate(self, token: str) -> Key | None:
        """Whose token this is.

        The hash is compared with every key's, each in constant time and all of them always: how
        long it takes tells nothing about which key came close.

        Returns:
            None where it is nobody's.
        """
        self._look()
        digest = bytes.fromhex(sha256_of(token))
        found: Key | None = None
        for known, key in [*self.fixed, *self._stored]:
            if hmac.compare_digest(known, digest):
                found = key
        return found

    def _look(self) -> None:
        """Read the file anew if it changed; keep what is known if it cannot be read."""
        if self.file is None or self.clock() < self._next_look:
            return
        self._next_look = self.clock() + LOOK_EVERY
        try:
            if _signature(self.file.stat()) != self._seen:
                self._read(self.file)
            self._complaint = ""
        except (OSError, DataError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            complaint = f"Keys {self.file} cannot be used: {cause}"
            if complaint != self._complaint:
                _log.warning("%s The keys read before stay valid.", complaint)
            self._complaint = complaint

    def _read(self, file: Path) -> None:
        try:
            with open(file, "rb", opener=_without_waiting) as opened:
                status = os.fstat(opened.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise DataError("it is not a plain file.")
                content = opened.read(LONGEST_FILE + 1)
            if len(content) > LONGEST_FILE:
                raise DataError(f"it is longer than {LONGEST_FILE} bytes.")
            keys = parse_keys(content.decode("utf-8"))
        except OSError as error:
            raise DataError(f"{error.strerror or error}.") from error
        except UnicodeDecodeError:
            raise DataError("it is not UTF-8 text.") from None
        both = {key.name for key in keys} & {key.name for _, key in self.fixed}
        if both:
            raise DataError(
                f"its name {min(both)} is that of a token in {ENVIRONMENT}; give it another one."
            )
        self._stored = [
            (bytes.fromhex(key.sha256), Key(key.name, key.requests_per_minute)) for key in keys
        ]
        first = self._seen == ()
        fresh = abs(time.time() - status.st_mtime) < SETTLED
        self._seen = (0,) if fresh else _signature(status)
        if first and status.st_mode & 0o077:
            _log.warning("Keys %s can be read or written by others: chmod 600 it.", file)


def _without_waiting(name: str, flags: int) -> int:
    """Open what may be a pipe; plainly that would wait for somebody to write into it."""
    return os.open(name, flags | os.O_NONBLOCK)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def _from_environment(value: str | None) -> list[tuple[bytes, Key]]:
    if value is None:
        return []
    tokens = [token.strip() for token in value.split(",") if token.strip()]
    if not tokens:
        raise DataError(
            f"{ENVIRONMENT} is set but holds no key; unset it, or give tokens separated by commas."
        )
    if any(len(token) < SHORTEST for token in tokens):
        _log.warning(
            "%s holds a token of fewer than %d characters, which can be guessed; `m3router keys "
            "add` draws a good one.",
            ENVIRONMENT,
            SHORTEST,
        )
    keys = {digest: Key(NAMED + digest[:SHOWN]) for digest in map(sha256_of, tokens)}
    if len({key.name for key in keys.values()}) < len(keys):
        raise DataError(
            f"Two tokens of {ENVIRONMENT} would have the same name, as the first {SHOWN} digits of "
            "their SHA-256 are the same. Draw another one: `m3router keys add` does."
        )
    return [(bytes.fromhex(digest), key) for digest, key in keys.items()]
