from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.example import Example, fingerprint
from m3router.data.scoring.metrics import in_place, load_metric
from m3router.data.sources.jsonl import load_jsonl

GOOD = {"id": "a", "image": "a.png", "question": "What?", "answers": ["cat"]}


def write(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_defaults_and_group_from_image() -> None:
    example = Example.from_dict(GOOD)
    assert example.answers == ("cat",)
    assert example.group == "a.png"
    assert (example.metric, example.dataset, example.chance) == ("exact", "default", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "  "}, "question is empty"),
        ({"id": ""}, "id is empty"),
        ({"answers": []}, "answers is empty"),
        ({"answers": [""]}, "answers holds an empty text"),
        ({"answers": "cat"}, "answers must be a list of texts, got str"),
        ({"answers": [3]}, "answers must hold texts, got int 3"),
        ({"image": None}, "image must be text, got NoneType"),
        ({"metric": "exat"}, "Unknown metric 'exat'. Did you mean 'exact'"),
        ({"chance": 1.0}, r"chance must be in \[0, 1\), got 1.0"),
        ({"chance": -0.1}, "chance must be in"),
        ({"chance": float("nan")}, "chance must be in"),
        ({"chance": "a"}, "chance must be a number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1 to .*, got 0"),
        ({"max_new_tokens": 16.0}, "max_new_tokens must be a whole number .*, got 16.0"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number .*, got True"),
        ({"max_new_tokens": "16"}, "max_new_tokens must be a whole number .*, got '16'"),
        ({"max_new_tokens": 2**40}, "max_new_tokens must be a whole number from 1 to"),
        ({"metric": "vqa"}, "answers of several people"),
        ({"metric": "yes_no"}, "needs the answer 'yes' or 'no', got 'cat'"),
        ({"metric": "choice", "choices": ["dog", "cow"]}, "needs a letter or one of"),
        ({"metric": "choice", "choices": ["dog"], "answers": ["B"]}, "needs a letter or one of"),
        ({"question": "cut \ud83d"}, "question holds half of a surrogate pair"),
        ({"answers": ["cat", "\udc00"]}, "answers holds half of a surrogate pair"),
        ({"group": "\ud83d"}, "group holds half of a surrogate pair"),
        ({"qestion": "x"}, "Unknown field 'qestion'. Did you mean 'question'"),
    ],
)
def test_bad_example_names_the_id(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        Example.from_dict({**GOOD, **change})
    assert change.get("id", "'a'") in str(error.value)


def test_missing_fields_are_all_named() -> None:
    with pytest.raises(DataError, match="missing image, answers"):
        Example.from_dict({"id": "x", "question": "q"})


texts = st.text(min_size=1, max_size=8).filter(str.strip)


@settings(deadline=None)
@given(
    id=texts,
    image=texts,
    question=texts,
    answers=st.lists(texts, min_size=1, max_size=3),
    group=st.text(max_size=4),
    chance=st.none() | st.floats(0, 0.99),
)
def test_dict_round_trip(**values: object) -> None:
    example = Example(**{**values, "answers": tuple(values["answers"])})  # type: ignore[arg-type]
    again = Example.from_dict(json.loads(json.dumps(example.to_dict())))
    assert again == example
    assert fingerprint([again]) == fingerprint([example])


def test_fingerprint_depends_on_content_and_order() -> None:
    one, two = Example.from_dict(GOOD), Example.from_dict({**GOOD, "id": "b"})
    prints = {fingerprint(e) for e in ([one], [two], [one, two], [two, one])}
    assert len(prints) == 4


def test_the_longest_answer_is_part_of_an_example_that_names_one(tmp_path: Path) -> None:
    plain, long = Example.from_dict(GOOD), Example.from_dict({**GOOD, "max_new_tokens": 128})
    # Examples without one keep the hash of the time before the field was there.
    assert "max_new_tokens" not in plain.to_dict()
    assert long.to_dict()["max_new_tokens"] == 128
    assert Example.from_dict(long.to_dict()) == long
    assert fingerprint([plain]) != fingerprint([long])
    (read,) = load_jsonl(write(tmp_path / "e.jsonl", long.to_dict()), images=tmp_path)
    assert read == long
    with pytest.raises(DataError, match="line 1: .*max_new_tokens must be a whole number"):
        load_jsonl(write(tmp_path / "e.jsonl", {**GOOD, "max_new_tokens": -3}), images=tmp_path)


@pytest.mark.parametrize(
    ("change", "chance"),
    [
        ({}, 0.0),
        ({"metric": "yes_no", "answers": ["Yes."]}, 0.5),
        ({"metric": "choice", "choices": ["cat", "dog", "cow"]}, 1 / 3),
        ({"chance": 0.2, "metric": "choice", "answers": ["B"]}, 0.2),
        ({"metric": "choice", "answers": ["B"]}, 0.0),
    ],
)
def test_chance_level(change: dict[str, object], chance: float) -> None:
    assert Example.from_dict({**GOOD, **change}).chance_level == pytest.approx(chance)


def test_jsonl_reads_what_users_write(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.jsonl",
        "\ufeff" + json.dumps({**GOOD, "metadata": {"note": "not read"}}),
        "",
        {"id": 7, "image": "sub/../b.png", "question": "Größe?", "answer": "xl", "group": "g"},
    )
    first, second = load_jsonl(path, images=tmp_path)
    assert (first.id, first.answers) == ("a", ("cat",))
    assert (second.id, second.answers, second.group) == ("7", ("xl",), "g")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**GOOD, "metrc": "choice"}, "Unknown field 'metrc'. Did you mean 'metric'"),
        ({**GOOD, "Group": "g"}, "Unknown field 'Group'. Did you mean 'group'"),
        ({**GOOD, "ANSWER": "x"}, "Unknown field 'ANSWER'. Did you mean 'answer'"),
        ({**GOOD, "image": "/9j/" + "A" * 9000}, r"A\.\.\. \(9004 characters\)' is absolute"),
        ({**GOOD, "chioces": ["cat", "dog"]}, "Did you mean 'choices'"),
        ({"id": "1", "image": "a.png", "question": "q", "anwser": "x"}, "Did you mean 'answer'"),
        ({"id": "1", "vidoe": "a.mp4", "question": "q", "answer": "x"}, "Did you mean 'video'"),
        ({**GOOD, "source": "web"}, "Unknown field 'source'.*goes into 'metadata'"),
        ('{"id": "1", "id": "2"}', "the field 'id' twice"),
    ],
)
def test_jsonl_refuses_what_it_would_not_read(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "e.jsonl", GOOD, line)
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        load_jsonl(path, images=tmp_path)


def test_jsonl_reads_recorded_requests(tmp_path: Path) -> None:
    """Lines of the server's records, see docs/traffic.md."""
    served = {"time": "t", "key": "", "asked": {}, "served": {}, "made_by": {}, "crc": "0"}
    path = write(tmp_path / "e.jsonl", {**GOOD, **served})
    assert load_jsonl(path, images=tmp_path) == [Example.from_dict(GOOD)]


def test_letters_without_a_choice_keep_the_others_in_place(tmp_path: Path) -> None:
    line = {**GOOD, "metric": "choice", "choices": ["cat", None, "None"], "answers": ["C"]}
    (example,) = load_jsonl(write(tmp_path / "e.jsonl", line), images=tmp_path)
    assert example.choices == ("cat", None, "None")
    assert example.chance_level == 0.5
    assert Example.from_dict(json.loads(json.dumps(example.to_dict()))) == example
    for metric in ("choice", "mmbench", "mmmu", "egoschema", "ai2d", "scienceqa", "seedbench"):
        one = Example.from_dict({**line, "metric": metric})
        assert [
            load_metric(metric)(said, one.answers, in_place(one.choices))
            for said in ("C", "B", "A")
        ] == [1, 0, 0], metric
    for answers, message in (
        (["B"], "'B' is a letter without a choice"),
        (["C", "(b)"], r"'\(b\)' is a letter without a choice"),
        (["E"], r"one of \['cat', 'None'\]"),
        ([""], "empty text"),
    ):
        with pytest.raises(DataError, match=message):
            Example.from_dict({**line, "answers": answers})
    for choices in (["cat", None], ["cat", ""], [None, None]):
        with pytest.raises(DataError, match="choices"):
            Example.from_dict({**line, "choices": choices, "answers": ["A"]})


def test_jsonl_takes_videos_in_either_field(tmp_path: Path) -> None:
    rest = {"question": "q", "answer": "a"}
    lines = [{"id": "1", "video": "v/a.mp4", **rest}, {"id": "2", "image": "b.webm", **rest}]
    first, second = load_jsonl(write(tmp_path / "e.jsonl", *lines), images=tmp_path)
    assert (first.image, first.group, second.image) == ("v/a.mp4", "v/a.mp4", "b.webm")
    for line, message in (
        ({"video": "a.mp4", "image": "a.png"}, "has both 'image' and 'video'"),
        ({"video": "a.png"}, "'a.png' has no known ending of a video, such as .mp4"),
        ({"video": "../a.mp4"}, "climbs out"),
        ({"video": 3}, "image must be text, got int"),
    ):
        path = write(tmp_path / "bad.jsonl", {"id": "1", **line, **rest})
        with pytest.raises(DataError, match=message):
            load_jsonl(path, images=tmp_path)


def test_jsonl_collects_every_bad_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.jsonl",
        GOOD,
        "{not json",
        {"id": "b", "image": "b.png", "question": "q"},
        GOOD,
        {**GOOD, "id": "c", "metric": "annls"},
        {**GOOD, "id": "d", "question": ""},
        "[1]",
        {**GOOD, "id": "e", "answer": "cat"},
    )
    with pytest.raises(DataError) as error:
        load_jsonl(path, images=tmp_path)
    message = str(error.value)
    assert "7 bad lines" in message
    for part in (
        "line 2: invalid JSON",
        "line 3: Example 'b': missing answers",
        "line 4: duplicate id 'a', first on line 1",
        "line 5: Example 'c': Unknown metric 'annls'. Did you mean 'anls'?",
        "line 6: Example 'd': question is empty",
        "line 7: expected a JSON object, got list",
        "line 8: Example 'e': has both",
    ):
        assert part in message


def test_jsonl_lists_at_most_twenty(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", *["{"] * 33)
    with pytest.raises(DataError, match="33 bad lines") as error:
        load_jsonl(path, images=tmp_path)
    assert str(error.value).count("invalid JSON") == 20
    assert "and 13 more" in str(error.value)


@pytest.mark.parametrize(
    "image", ["../x.png", "a/../../x.png", "/etc/x.png", "..", "C:\\x.png", "..\\x.png", "a\0b"]
)
def test_images_stay_in_their_folder(tmp_path: Path, image: str) -> None:
    path = write(tmp_path / "e.jsonl", {**GOOD, "image": image})
    with pytest.raises(DataError, match="line 1: Example 'a': image"):
        load_jsonl(path, images=tmp_path)


def test_jsonl_file_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", GOOD)
    with pytest.raises(DataError, match="images folder .* does not exist"):
        load_jsonl(path, images=tmp_path / "none")
    with pytest.raises(DataError, match="No such file"):
        load_jsonl(tmp_path / "none.jsonl", images=tmp_path)
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match="holds no examples"):
        load_jsonl(path, images=tmp_path)
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"id": "\xff\xfe"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        load_jsonl(path, images=tmp_path)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_are_read_or_refused_cleanly(tmp_path_factory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "e.jsonl"
    path.write_bytes(b"\n".join([json.dumps(GOOD).encode(), *lines]))
    try:
        examples = load_jsonl(path, images=folder)
    except DataError as error:
        assert "line" in str(error)
    else:
        assert [example.id for example in examples] == ["a"]
