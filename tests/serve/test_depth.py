"""The look at JSON before it is parsed, against json.loads with everything counted afterwards."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m3router.router.serve.guard.json_limits import _BLOCK, Shape, shape_of, too_deep

texts = st.text(alphabet=st.sampled_from('ab"\\[]{},:é\n/u0'), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def marks_of(value: Any) -> int:
    """Opening brackets and commas that a value is written with."""
    if not isinstance(value, list | dict):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(0, len(value) - 1) + sum(map(marks_of, inner))


@given(value=values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_it_sees_what_json_sees(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert shape_of(text) == Shape(depth_of(json.loads(text)), marks_of(json.loads(text)))


class Counting:
    """A JSON reader of its own, character by character, that says how far in it ever was."""

    def __init__(self, text: str) -> None:
        self.deepest = 0
        stack: list[str] = []
        string = escaped = False
        for character in text:
            if string:
                if escaped:
                    escaped = False
                elif character == "\\":
                    escaped = True
                elif character == '"':
                    string = False
            elif character == '"':
                string = True
            elif character in "[{":
                stack.append(character)
                self.deepest = max(self.deepest, len(stack))
            elif character in "]}":
                if not stack:
                    return  # where a parser stops
                stack.pop()
            elif character == "\\":
                return


@given(text=st.text(alphabet=st.sampled_from('"\\[]{},a'), max_size=40))
@example(text='\\"[[[[')
@example(text='"\\\\"[[["')
@example(text="[]]]]][[[[")
def test_broken_text_is_never_taken_for_flatter_than_a_parser_finds_it(text: str) -> None:
    assert shape_of(text.encode()).depth >= Counting(text).deepest


@pytest.mark.parametrize("shift", range(-2, 3))
@pytest.mark.parametrize("middle", ['"', '\\"', "[[", "é", '\\\\"['])
def test_edges_of_blocks(shift: int, middle: str) -> None:
    text = '["' + "a" * (_BLOCK + shift - 4) + middle + '", [[[1]]]]'
    parsed = None
    try:
        parsed = json.loads(text)
    except ValueError:
        assert shape_of(text.encode()).depth >= Counting(text).deepest
    else:
        assert shape_of(text.encode()).depth == depth_of(parsed)


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_the_limit_is_inclusive(depth: int, opening: str, closing: str) -> None:
    text = (opening * depth + "1" + closing * depth).encode()
    assert too_deep(text, 32, 10**9) == (depth > 32)
    assert too_deep((opening * depth).encode(), 32, 10**9) == (depth > 32), (
        "the end does not matter"
    )


def test_brackets_in_questions_are_no_depth() -> None:
    text = json.dumps({"content": "[{" * 1000 + '\\"' + "," * 50_000}).encode()
    assert not too_deep(text, 2, 10)
    assert too_deep(text, 0, 10)


@pytest.mark.parametrize("piece", ["[],", "{},", '"",', "1,", '{"a":1},'])
def test_many_values(piece: str) -> None:
    assert too_deep(("[" + piece * 20_001 + "1]").encode(), 32, 20_000)
    assert not too_deep(("[" + piece * 100 + "1]").encode(), 32, 20_000)


@pytest.mark.parametrize("piece", [b"[]", b'"', b"\\", b'\\"', b"a", b"[", b'"",', b"\xff"])
def test_twenty_megabytes_of_anything_take_no_time(piece: bytes) -> None:
    """A second is fifty times what it takes; a parser in Python would need ten."""
    text = piece * (20_000_000 // len(piece))
    began = time.process_time()
    too_deep(text, 32, 20_000)
    assert time.process_time() - began < 1.5
