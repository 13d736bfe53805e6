"""Files of options, merge patches, prices, sizes, keys: what is read, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError
from m3router.m3core.endpoint import PRESETS, Key, Prices, parse_options, read_options
from m3router.m3core.endpoint.keys import base_url
from m3router.m3core.endpoint.merge_patch import joined_patches, merge_patch
from m3router.m3core.endpoint.sent_images import Sending

FEW = settings(max_examples=40, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # appendix A of RFC 7396
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target, patch, result):
    assert merge_patch(target, patch) == result


@FEW
@given(JSON, JSON)
def test_a_patch_changes_nothing_when_applied_again(target, patch):
    before = json.dumps([target, patch])
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once and json.dumps([target, patch]) == before


@FEW
@given(st.dictionaries(st.sampled_from("abc"), st.integers()), OBJECTS, OBJECTS)
def test_a_joined_patch_does_what_two_do(target, first, second):
    expected = merge_patch(merge_patch(target, first), second)
    assert merge_patch(target, joined_patches(first, second)) == expected


@FEW
@given(OBJECTS, st.sampled_from(["png", "jpeg:90", "webp:lossless"]), st.integers(1, 5000))
def test_options_are_read_from_what_they_write(body, encoding, side):
    content = {
        "model": "m",
        "body": {"x": body},
        "price": {"input": 1.5},
        "option": [
            {"name": "a", "longest_side": side, "encoding": encoding},
            {"name": "b", "max_pixels": side, "image": {"detail": "low"}, "remove": ["x.a"]},
        ],
    }
    options = parse_options(content)
    assert parse_options(json.loads(json.dumps(options.as_json()))) == options


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_ladder_of_options(name):
    options = read_options(preset=name, model="m")
    assert len(options.options) >= 2 and options.preset == name
    assert {one.model for one in options.options} == {"m"}
    assert PRESETS[name].about


def test_all_that_is_wrong_is_said_together(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text(
        """
        modle = "m"
        stream = "yes"
        body = {messages = [], when = 2026-01-01}
        image = {url = "x"}
        """
    )
    with pytest.raises(DataError) as raised:
        read_options(path)
    told = str(raised.value)
    for part in (
        str(path),
        "Did you mean 'model'",
        "stream must be true or false",
        "body may not set messages",
        ".when is nothing that JSON can say",
        "image may not set url",
        "there must be tables [[option]]",
    ):
        assert part in told
    path.write_text(
        """
        [[option]]
        name = "a"
        longest_sid = 3
        [[option]]
        max_pixels = 0
        [[option]]
        name = "c"
        longest_side = 3
        max_pixels = 4
        [[option]]
        name = "d"
        encoding = "jpg"
        [[option]]
        name = "e"
        price = {inputs = 3}
        [[option]]
        name = "f"
        longest_side = true
        [[option]]
        name = "e"
        remove = ["model"]
        length_field = "max_token"
        """
    )
    with pytest.raises(DataError) as raised:
        read_options(path)
    told = str(raised.value)
    for part in (
        "Did you mean 'longest_side'",
        "option 2 has no name",
        "exclude each other",
        "unknown encoding 'jpg'",
        "Did you mean 'input'",
        "option 'f': longest_side must be a whole number",
        "remove may not name model",
        "Did you mean 'max_tokens'",
    ):
        assert part in told, part


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"option": [{"name": "a"}, {"name": "b"}]}, "'a' and 'b' ask the same"),
        ({"option": [{"name": "a"}, {"name": "a", "model": "m"}]}, "'a' is there twice"),
        ({"preset": "resize", "option": []}, "brings its own options"),
        ({"preset": "vllm-gemma"}, "Did you mean 'vllm-gemma4'"),
        ({"option": []}, "at least one table"),
        ({"option": [{"name": "a", "price": {"input": -1}}]}, "price input must be a number"),
    ],
)
def test_options_that_make_no_sense_together(content, match):
    with pytest.raises(DataError, match=re.escape(match)):
        parse_options(content)


@pytest.mark.parametrize("text", ["option = [", "{", "\x00"])
@pytest.mark.parametrize("name", ["o.toml", "o.json"])
def test_a_file_that_is_none_is_named(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        read_options(tmp_path / name)


SIDES = st.integers(1, 3000)


@FEW
@given(SIDES, SIDES, st.integers(1, 10_000))
def test_images_keep_within_limits_and_are_never_enlarged(width, height, limit):
    for sending in (Sending(longest_side=limit), Sending(max_pixels=limit)):
        new = sending.size(width, height)
        assert 1 <= new[0] <= width and 1 <= new[1] <= height
        if sending.longest_side:
            assert max(new) <= limit
        else:
            assert new[0] * new[1] <= limit
        if min(new) >= 20:
            assert new[0] / new[1] == pytest.approx(width / height, rel=0.06)
    assert Sending().size(width, height) == (width, height)


@pytest.mark.parametrize(
    ("encoding", "lossless"),
    [("png", True), ("webp:lossless", True), ("jpeg:95", False), ("webp:80", False)],
)
def test_lossless_encodings_keep_every_pixel(encoding, lossless):
    import base64
    import io

    image = Image.effect_noise((48, 32), 60).convert("RGB")
    sent = Sending(encoding=encoding).encode(image)
    kind, _, data = sent.url.partition(";base64,")
    read = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    assert kind == f"data:image/{encoding.partition(':')[0]}" and sent.pixels == 48 * 32
    assert (read.tobytes() == image.tobytes()) is lossless


@pytest.mark.parametrize("encoding", ["", "jpeg:0", "jpeg:101", "png:9", "webp", "jpeg:x", "gif"])
def test_unknown_encodings(encoding):
    with pytest.raises(DataError, match="unknown encoding"):
        Sending(encoding=encoding)


def test_prices_are_none_where_a_count_that_costs_is_missing():
    prices = Prices(input=2.0, image=0.01)
    assert prices.of_answer(prompt=None, cached=None, answer=3) is None
    assert prices.of_answer(prompt=500_000, cached=None, answer=None) == pytest.approx(1.01)
    per_image = Prices(image=0.5, request=0.25)
    assert per_image.of_answer(prompt=None, cached=None, answer=None) == 0.75


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("https://me:sk-secret@host/v1", "user or a password"),
        ("https://host/v1?key=sk-secret", "a query"),
        ("host:8000", "must begin with http"),
        ("http://host:port", "port a number"),
        ("ftp://host", "must begin with http"),
    ],
)
def test_addresses_with_secrets_are_refused_without_repeating_them(url, match):
    with pytest.raises(DataError, match=match) as raised:
        base_url(url)
    assert "sk-secret" not in str(raised.value)


def test_keys_are_shown_nowhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", " sk-secret\n")
    key = Key.from_environment("MY_KEY")
    assert key.reveal() == "sk-secret" and "secret" not in f"{key!r} {key} {key.source}"
    path = Path(tmp_path / "key")
    path.write_text("sk-other\n")
    path.chmod(0o644)
    assert Key.again(Key.from_file(path).source).reveal() == "sk-other"
    assert "chmod 600" in caplog.text and "sk-other" not in caplog.text
    with pytest.raises(DataError, match="NO_KEY is not set"):
        Key.from_environment("NO_KEY")
    for wrong in ("", "two lines\nof it", "schlüssel"):
        with pytest.raises(DataError, match="API key"):
            Key(wrong)
