from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.sources.instructions import Conversation, load_instructions


def human(text: object) -> dict:
    return {"from": "human", "value": text}


def gpt(text: object) -> dict:
    return {"from": "gpt", "value": text}


GOOD = {"id": "a", "image": "a.png", "conversations": [human("<image>\nWhat?"), gpt("A cat.")]}


def write(folder: Path, values: object) -> Path:
    path = folder / "train.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_the_published_shape_is_read(tmp_path):
    text = {"id": 7, "model": "x", "conversations": [human("Hi"), gpt(" Hello \n")]}
    many = GOOD | {
        "conversations": [human("Is it?\n<image>"), gpt("Yes"), human("Sure?"), gpt("Yes")]
    }
    assert load_instructions(write(tmp_path, [GOOD, text, many])) == [
        Conversation(id="a", image="a.png", turns=(("What?", "A cat."),)),
        Conversation(id="7", image=None, turns=(("Hi", "Hello"),)),
        Conversation(id="a", image="a.png", turns=(("Is it?", "Yes"), ("Sure?", "Yes"))),
    ]


def test_what_teaches_nothing_is_left_out_as_in_llava(tmp_path):
    messages = [gpt("Welcome"), human("Hi"), gpt("Hello"), human("And?")]
    (one,) = load_instructions(write(tmp_path, [{"conversations": messages}]))
    assert one == Conversation(id="1", image=None, turns=(("Hi", "Hello"),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": None}, "'conversations' must be a list of messages, got nothing"),
        ({"conversations": []}, "got list without any"),
        ({"conversations": "x"}, "must be a list of messages, got str"),
        ({"conversations": [human("<image>")]}, "no question has an answer"),
        ({"conversations": ["x"]}, "message 1 must be a JSON object, got str"),
        ({"conversations": [human("a"), human("b")]}, "message 2 is from 'human' where 'gpt'"),
        ({"conversations": [gpt("a"), gpt("b")]}, "message 2 is from 'gpt' where 'human'"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "message 1 is 'from' 'bot'; must be"),
        ({"conversations": [human(3), gpt("x")]}, "must have a text as 'value', got int"),
        ({"conversations": [human("What?"), gpt("x")]}, "<image> once, in its first question"),
        ({"conversations": [human("<image><image>?"), gpt("x")]}, r"have \[2\] of them"),
        ({"conversations": [human("<image>\n "), gpt("x")]}, "question 1 is empty"),
        ({"conversations": [human("<image>a"), gpt(" ")]}, "answer 1 is empty"),
        ({"image": None}, "an entry without 'image' has no <image>"),
        ({"image": ["a.png", "b.png"]}, "'image' must be one path"),
        ({"image": "../a.png"}, "climbs out of the images folder"),
        ({"image": "/a.png"}, "is absolute"),
        ({"imge": "b.png"}, "has the field 'imge'. Did you mean 'image'"),
        ({"Conversation": []}, "Did you mean 'conversations'"),
        ({"images": ["a.png"]}, "'images'; an entry is about one image"),
        ({"video": "a.mp4"}, "'video'; an entry is about one image"),
    ],
)
def test_a_bad_entry_is_named_with_its_rule(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"1 bad entries(.|\n)*entry 2 \(id 'a'\): .*{message}"):
        load_instructions(write(tmp_path, [GOOD, GOOD | change]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{}\n{}", "one JSON list, not one object a line"),
        (b"{}", "must hold a JSON list of conversations, got dict"),
        (b"[]", "holds no conversations"),
        (b"[3]", "entry 1: must be a JSON object, got int"),
        (b"[\xff]", "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_instructions(path)


def test_a_missing_file_and_many_problems(tmp_path):
    with pytest.raises(DataError, match="none.json cannot be read"):
        load_instructions(tmp_path / "none.json")
    with pytest.raises(DataError, match="30 bad entries(.|\n)*... and 10 more"):
        load_instructions(write(tmp_path, [3] * 30))


word = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), min_size=1)
word = word.map(str.strip).filter(bool)
pairs = st.lists(st.tuples(word, word), min_size=1, max_size=4)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "image", "conversations", "from", "value"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(turns=pairs, image=st.booleans(), space=st.sampled_from(["", " ", "\n", "\n\n"]))
def test_whatever_is_written_is_read_back(tmp_path_factory, turns, image, space):
    messages = []
    for place, (question, answer) in enumerate(turns):
        tag = "<image>" + space if image and place == 0 else ""
        messages += [human(tag + question + space), gpt(space + answer)]
    entry: dict = {"id": "x", "conversations": messages} | ({"image": "p.png"} if image else {})
    (one,) = load_instructions(write(tmp_path_factory.mktemp("w"), [entry]))
    assert one.turns == tuple(turns)
    assert one.image == ("p.png" if image else None)


@settings(max_examples=150)
@given(junk)
def test_junk_is_an_error_of_ours_or_conversations_that_keep_the_rules(tmp_path_factory, values):
    path = write(tmp_path_factory.mktemp("j"), values)
    try:
        conversations = load_instructions(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert all(one.turns and all(q and a for q, a in one.turns) for one in conversations)
