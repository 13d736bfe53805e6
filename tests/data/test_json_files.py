"""Strict JSON: what is refused, and that the message says what and where."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.json_files import MOST_DEPTH, parse_json, read_json, read_json_object
from m3router.data.plain_files import is_there, read_bytes

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**290), 10**290) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_what_is_json_is_read_as_it_is(value):
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Expecting value"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b"[-1e999]", "-1e999 is too large"),
        (b"1" * 5000, "has 5000 digits"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 101 + b"]" * 101, "nested deeper"),
        (b'{"a": 1, "a": 2}', "field 'a' twice"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        (b'{"a": "\xff"}', "byte 7 is 0xFF"),
        ("{}".encode("utf-16"), "byte 0 is 0xFF"),
        (b"{} {}", "Extra data"),
    ],
)
def test_what_is_no_strict_json_is_refused(content, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        parse_json(content)
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json is not JSON \(.*{told}.*\)\. Do it again\."):
        read_json(path, redo="Do it again.")


def test_what_is_just_within_the_limits_is_taken():
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH)
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json("[NaN, -Infinity]", nan=True)[1] == float("-inf")
    assert parse_json('"[[[[' + "[" * 200 + '"')


def test_what_is_no_plain_file_is_told_and_never_waited_for(tmp_path):
    pipe, loop, folder = tmp_path / "pipe", tmp_path / "loop", tmp_path / "folder"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    folder.mkdir()
    for path, told in ((pipe, "plain file"), (loop, "symbolic links"), (folder, "directory")):
        assert is_there(path)
        with pytest.raises(DataError, match=told):
            read_bytes(path)
    assert not is_there(tmp_path / "none") and not is_there(tmp_path / "none" / "below")


def test_another_kind_of_value_is_told(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="must hold a JSON object, found list"):
        read_json_object(tmp_path / "a.json", redo="Do it again.")
