"""Keys: who gets in, and what happens to the file while the server runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3router.data.errors import DataError
from m3router.router.cli.main import app
from m3router.router.serve.guard.key_file import add_key, list_keys, revoke_key
from m3router.router.serve.guard.keys import Key, KeyRing

LONG = "a-token-of-the-environment"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def later(self, ring: KeyRing) -> KeyRing:
        self.now += 1.5
        return ring


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def old(file: Path) -> None:
    """As if the file had been written long ago, so that it is taken as settled."""
    os.utime(file, (1_000_000, 1_000_000))


def test_a_key_opens_and_nothing_else_does(file: Path) -> None:
    token = add_key(file, "alice", requests_per_minute=60)
    other = add_key(file, "bob")
    ring = KeyRing.of(file, None)
    assert ring.needed
    assert ring.authenticate(token) == Key("alice", 60)
    assert ring.authenticate(other) == Key("bob", None)
    for wrong in (
        "",
        token[:-1],
        token + "x",
        token.upper(),
        " " + token,
        "alice",
        "\udc80",
        "é" * 9,
    ):
        assert ring.authenticate(wrong) is None
    for stored in list_keys(file):
        assert ring.authenticate(stored.sha256) is None, "the hash itself is no token"


def test_the_token_is_nowhere_in_the_file(file: Path) -> None:
    token = add_key(file, "alice")
    content = file.read_text()
    assert token not in content and token[4:] not in content
    assert hashlib.sha256(token.encode()).hexdigest() in content
    assert file.stat().st_mode & 0o777 == 0o600
    assert len({add_key(file, f"name{number}") for number in range(20)}) == 20


def named(token: str) -> Key:
    """The key of a token of the environment."""
    return Key("environment-" + hashlib.sha256(token.encode()).hexdigest()[:6])


def test_environment() -> None:
    ring = KeyRing.of(None, f" {LONG}, second-token-of-some-length ,,")
    assert ring.needed
    assert ring.authenticate(LONG) == named(LONG)
    assert ring.authenticate("second-token-of-some-length") == named("second-token-of-some-length")
    again = KeyRing.of(None, f"third-token-of-some-length,second-token-of-some-length,{LONG}")
    assert again.authenticate(LONG) == named(LONG), "whatever stands before it"
    assert ring.authenticate("") is None and ring.authenticate(" ") is None
    assert LONG not in repr(ring)


def test_no_two_keys_have_one_name(file: Path) -> None:
    with pytest.raises(DataError, match="Two tokens of M3ROUTER_API_KEYS would have the same name"):
        KeyRing.of(None, "token-number-7538-of-many,token-number-9369-of-many")
    add_key(file, named(LONG).name)
    with pytest.raises(DataError, match=f"its name {named(LONG).name} is that of a token in"):
        KeyRing.of(file, LONG)


@pytest.mark.parametrize("value", ["", " ", ",", " , "])
def test_an_empty_environment_does_not_open_the_door(value: str) -> None:
    with pytest.raises(DataError, match="M3ROUTER_API_KEYS is set but holds no key"):
        KeyRing.of(None, value)


def test_nothing_configured_is_open() -> None:
    ring = KeyRing.of(None, None)
    assert not ring.needed and ring.authenticate("anything") is None


def test_short_tokens_are_warned_of_without_being_told(caplog: pytest.LogCaptureFixture) -> None:
    KeyRing.of(None, "hunter2")
    assert "can be guessed" in caplog.text and "hunter2" not in caplog.text


def test_keys_come_and_go_without_restart(file: Path) -> None:
    clock = Clock()
    alice = add_key(file, "alice")
    ring = KeyRing.of(file, LONG, clock=clock)
    bob = add_key(file, "bob")
    assert ring.authenticate(bob) is None, "looked at once a second"
    assert clock.later(ring).authenticate(bob) == Key("bob")
    revoke_key(file, "alice")
    assert clock.later(ring).authenticate(alice) is None
    revoke_key(file, "bob")
    assert clock.later(ring).authenticate(bob) is None
    assert ring.needed and ring.authenticate(LONG) == named(LONG)


def test_a_change_that_leaves_size_and_time_alone_is_seen(file: Path) -> None:
    """Within one tick of the file system's clock, which is why fresh files are read again."""
    clock = Clock()
    token = add_key(file, "alice")
    ring = KeyRing.of(file, None, clock=clock)
    status = file.stat()
    swapped = file.read_text().replace(hashlib.sha256(token.encode()).hexdigest(), "0" * 64)
    with file.open("r+") as opened:
        opened.write(swapped)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size and file.stat().st_ino == status.st_ino
    assert clock.later(ring).authenticate(token) is None


def test_a_settled_file_is_not_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    token = add_key(file, "alice")
    old(file)
    ring = KeyRing.of(file, None, clock=clock)
    file.write_text("x" * file.stat().st_size)  # damaged, which reading would complain of
    old(file)
    assert clock.later(ring).authenticate(token) == Key("alice")
    assert caplog.text == ""


def gone(file: Path) -> None:
    file.unlink()


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    """Opening one for reading waits for a writer, so it must be told before."""
    file.unlink()
    os.mkfifo(file)


DAMAGE = {
    "vanished": gone,
    "folder": folder,
    "pipe": pipe,
    "empty": lambda file: file.write_text(""),
    "blank": lambda file: file.write_text("\n \n"),
    "half a line": lambda file: file.write_text(file.read_text()[:-20]),
    "binary": lambda file: file.write_bytes(b"\xff\xfe\0"),
    "not an object": lambda file: file.write_text("[1]\n"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "no hash": lambda file: file.write_text('{"name": "mallory"}\n'),
    "the token itself": lambda file: file.write_text('{"name": "m", "sha256": "m3r_secret"}\n'),
    "same name": lambda file: file.write_text(file.read_text() * 2),
    "same token": lambda file: file.write_text(
        file.read_text() + file.read_text().replace("alice", "mallory")
    ),
    "long": lambda file: file.write_text("#" * 5_000_000),
    "limit of 0": lambda file: file.write_text(
        json.dumps({"name": "m", "sha256": "0" * 64, "requests_per_minute": 0})
    ),
    "misspelled limit": lambda file: file.write_text(
        json.dumps({"name": "m", "sha256": "0" * 64, "request_per_minute": 60})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_neither_opens_nor_locks(
    file: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    token = add_key(file, "alice")
    ring = KeyRing.of(file, None, clock=clock)
    before = file.read_text()
    DAMAGE[damage](file)
    for _ in range(3):
        assert clock.later(ring).authenticate(token) == Key("alice")
        assert ring.authenticate("a stranger") is None and ring.authenticate("") is None
        assert ring.needed
    assert caplog.text.count("The keys read before stay valid") == 1, "said once"
    assert token not in caplog.text and "m3r_secret" not in caplog.text
    with pytest.raises(DataError, match="cannot be used") as refused:
        KeyRing.of(file, None)
    assert "m3r_secret" not in str(refused.value)
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.write_text(before)
    other = add_key(file, "bob")
    assert clock.later(ring).authenticate(other) == Key("bob"), "mended"


def test_comments_only_means_nobody(file: Path) -> None:
    clock = Clock()
    token = add_key(file, "alice")
    ring = KeyRing.of(file, None, clock=clock)
    file.write_text("# nobody\n")
    assert clock.later(ring).authenticate(token) is None and ring.needed


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_files_open_to_others_are_warned_of(
    file: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    add_key(file, "alice")
    KeyRing.of(file, None)
    assert "chmod" not in caplog.text
    file.chmod(mode)
    KeyRing.of(file, None)
    assert "chmod 600" in caplog.text


def test_every_key_is_compared(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key it is: no way out before the last comparison."""
    import hmac

    tokens = [add_key(file, f"name{number}") for number in range(5)]
    ring = KeyRing.of(file, LONG)
    counted: list[int] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: counted.append(1) or real(a, b))
    for token in (*tokens, LONG, "nobody's"):
        counted.clear()
        ring.authenticate(token)
        assert len(counted) == 6


def test_comments_and_permissions_survive_changes(file: Path) -> None:
    add_key(file, "alice")
    file.write_text("# of the lab\n" + file.read_text() + "# the end")
    file.chmod(0o640)
    add_key(file, "bob")
    revoke_key(file, "alice")
    text = file.read_text()
    assert text.startswith("# of the lab\n") and "# the end\n" in text
    assert [key.name for key in list_keys(file)] == ["bob"]
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    add_key(file, "alice")
    link.symlink_to(file)
    add_key(link, "bob")
    assert link.is_symlink() and len(list_keys(file)) == 2


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n", "-x", "é", "x" * 65, "a{b}"])
def test_names(file: Path, name: str) -> None:
    with pytest.raises(DataError, match="A key's name must be"):
        add_key(file, name)
    assert not file.exists()


def test_the_command(file: Path) -> None:
    run = CliRunner().invoke
    added = run(app, ["keys", "add", str(file), "alice", "--requests-per-minute", "5"])
    assert added.exit_code == 0
    token = re.search(r"^m3r_[A-Za-z0-9_-]{43}$", added.stdout, re.M)
    assert token and KeyRing.of(file, None).authenticate(token.group()) == Key("alice", 5)
    again = run(app, ["keys", "add", str(file), "alice"])
    assert again.exit_code == 2 and "have a key alice" in again.stderr
    listed = run(app, ["keys", "list", str(file)])
    assert "alice" in listed.stdout and token.group() not in listed.stdout
    assert run(app, ["keys", "revoke", str(file), "alice"]).exit_code == 0
    assert list_keys(file) == []
    assert run(app, ["keys", "revoke", str(file), "alice"]).exit_code == 2
    assert run(app, ["keys", "list", str(file), "alice"]).exit_code == 2
    assert run(app, ["keys", "add", str(file)]).exit_code == 2
    assert run(app, ["keys", "revoke", str(file), "x", "--requests-per-minute", "5"]).exit_code == 2


def test_no_secret_in_any_log(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = add_key(file, "alice")
    ring = KeyRing.of(file, f"{LONG},short")
    ring.authenticate("a wrong token")
    text = caplog.text
    assert not any(secret in text for secret in (token, LONG, "a wrong token"))
