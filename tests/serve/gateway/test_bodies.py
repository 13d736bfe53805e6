"""Bodies that are read, and that change only where an option says so."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.merge_patch import merge_patch
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.bodies import (
    INPUT,
    MESSAGES,
    MOST_FIELDS,
    image_file,
    parsed,
    read_body,
    read_turn,
    written,
)
from m3router.router.serve.gateway.patching import ImagePatch, patched, written_apart
from m3router.router.serve.gateway.usage_reader import UsageReader
from tests.serve.gateway.endpoint_run import data_url, picture

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
URL = data_url(picture())
PARTS = st.one_of(
    JSON,
    st.fixed_dictionaries({"type": st.just("text"), "text": JSON}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["image_url", None, "video_url", "file"]),
            "image_url": st.just({"url": URL, "detail": "high"}) | st.just(URL) | JSON,
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("input_image"), "image_url": st.just(URL) | JSON, "file_id": JSON}
    ),
)
ITEMS = st.lists(
    JSON
    | st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "tool", "system", None, 5]),
            "content": st.lists(PARTS, max_size=4) | JSON,
        }
    ),
    max_size=5,
)
BODIES = st.builds(
    lambda rest, items, name: {**rest, name: items},
    st.dictionaries(st.text(), JSON, max_size=4),
    ITEMS | JSON,
    st.sampled_from([MESSAGES, INPUT]),
)
PATCHES = st.dictionaries(
    st.sampled_from(["mm_processor_kwargs", "temperature", "x", "a"]), JSON, max_size=3
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy
@given(BODIES, PATCHES, st.dictionaries(st.text(min_size=1), JSON, max_size=2))
def test_nothing_changes_but_what_the_option_says(body, patch, image):
    image.pop("url", None)
    image.pop("image_url", None)
    before = copy.deepcopy(body)
    field = MESSAGES if MESSAGES in body else INPUT
    turn = read_turn(body, field)
    for part in turn.images:
        image_file(part, 1 << 20)
    option = EndpointOption(name="o", model="m", body=patch)
    places = {one.place: ImagePatch(image=image, url="data:new") for one in turn.images}
    new = patched(body, option, places)
    assert body == before
    expected = {**merge_patch(before, patch), "model": "m"}
    expected.pop("m3router", None)
    assert set(new) == set(expected)
    for name in set(new) - {field}:
        assert new[name] == expected[name]
    undone = copy.deepcopy(new)
    for part in turn.images:  # put back what was there: the rest is as it was
        target, original = undone, before
        *outside, last = part.place
        for name in outside:
            target, original = target[name], original[name]
        changed, was = target[last], original[last]
        holder = changed if was.get("type") == "input_image" else changed["image_url"]
        assert (holder["image_url"] if holder is changed else holder["url"]) == "data:new"
        keys = set(was) | {"image_url"} | (set(image) if holder is changed else set())
        assert set(changed) <= keys
        target[last] = original[last]
    assert undone.get(field) == expected.get(field)
    assert json.loads(written(new)) == new


@given(BODIES)
def test_a_body_that_no_option_changes_is_the_same(body):
    body.pop("m3router", None)
    new = patched(body, EndpointOption(name="o"), {})
    assert new == body and list(new) == list(body)
    assert parsed(written(body)) == body


ENDS = ["", "=", '"', "\\", "\n", "\0", "\x7f", "é", "\ud800", "-0-"]


@given(BODIES, st.sampled_from(ENDS), st.sampled_from(ENDS))
def test_images_are_written_apart_as_they_are_written_together(body, first, second):
    field = MESSAGES if MESSAGES in body else INPUT
    for number, part in enumerate(read_turn(body, field).images):
        target = body
        for name in part.place:
            target = target[name]
        url = f"{URL}{'A' * 2000}{(first, second)[number % 2]}"
        if isinstance(target["image_url"], dict) and target["type"] != "input_image":
            target["image_url"] = {**target["image_url"], "url": url}
        else:
            target["image_url"] = url
    before, places = copy.deepcopy(body), [one.place for one in read_turn(body, field).images]
    assert written_apart(body, places) == written(body) and body == before
    came = read_body(written(body))
    assert written_apart(came.fields, places, came) == written(body)
    changed = {**came.fields, field: copy.copy(came.fields[field])}
    assert written_apart(changed, places, came) == written(body)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"5",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b"\xff",
    ],
)
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(ApiError) as told:
        parsed(raw)
    assert told.value.status == 400 and told.value.code == "invalid_json"


SPACE = st.text(" \t\r\n", max_size=3)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=5), st.data())
def test_what_nobody_changed_is_sent_as_it_came(body, data):
    """Blanks, escapes and the spelling of numbers included; keys may come twice."""
    fields = [
        (name, json.dumps(value, ensure_ascii=data.draw(st.booleans()), indent=data.draw(indents)))
        for name, value in body.items()
        for _ in range(data.draw(st.integers(1, 2)))
        for indents in [st.sampled_from([None, 1])]
    ]
    inside = ",".join(
        "".join((data.draw(SPACE), json.dumps(name), data.draw(SPACE), ":", data.draw(SPACE), text))
        + data.draw(SPACE)
        for name, text in fields
    )
    raw = f"{data.draw(SPACE)}{{{inside or data.draw(SPACE)}}}{data.draw(SPACE)}".encode()
    came = read_body(raw)
    assert came.fields == json.loads(raw) == body
    new = {**body, **came.fields, "new": [1]}
    sent = written(new, came)
    assert json.loads(sent) == {**body, "new": [1]}
    for name, text in dict(fields).items():
        assert f"{json.dumps(name)}:{text}".encode() in sent or name == "new"


@given(st.text('{}[]",:ab1 \\', max_size=12))
def test_bodies_are_read_as_json_reads_them(text):
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    try:
        assert parsed(text.encode()) == found
    except ApiError:
        assert not isinstance(found, dict)


def test_no_conversation_has_so_many_fields():
    many = {str(number): 0 for number in range(MOST_FIELDS)}
    assert parsed(json.dumps(many).encode()) == many
    for raw in (json.dumps({**many, "one": 1}), '{"a":1,' + '"a":1,' * MOST_FIELDS + '"a":1}'):
        with pytest.raises(ApiError, match="more than 1 000 fields"):
            parsed(raw.encode())


def test_half_a_pair_and_large_numbers_go_on():
    raw = b'{"a":"\\ud800","b":12345678901234567890123,"c":1e-300}'
    assert written(parsed(raw)) == raw


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_reading_usage_never_fails(junk, sizes, events):
    whole = b'data: {"id": "a", "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
    text = whole + junk + b"\n" + whole if events else whole[6:]
    reader = UsageReader("text/event-stream" if events else "application/json", texts=True)
    at = 0
    for size in [*sizes, len(text)]:
        reader.feed(text[at : at + size])
        at += size
    said = reader.end()
    assert (said.id, said.counts.prompt, said.counts.answer) == ("a", 3, 1)


def test_long_answers_are_not_kept():
    reader = UsageReader("text/event-stream")
    for _ in range(200):
        reader.feed(b"x" * 65_536)
        assert reader.waiting <= (1 << 20) + 65_536
    reader.feed(b'\ndata: {"usage": {"prompt_tokens": 3}}\n')
    assert reader.end().counts.prompt == 3
    reader = UsageReader("application/json")
    for _ in range(200):
        reader.feed(b"x" * 65_536)
        assert reader.waiting <= (4 << 20) + 65_536
    assert reader.end().usage is None
