"""Every benchmark, from rows with its published columns to scored examples."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.images import open_image
from m3router.data.manifest import read_manifest, sha256_file
from m3router.data.scoring.metrics import is_judged, load_metric, metric_names
from m3router.data.sources.benchmarks.table import BENCHMARKS, benchmark
from m3router.data.sources.fetching import fetch_benchmark
from m3router.data.sources.hub import Origin, iter_benchmark
from m3router.data.sources.jsonl import load_jsonl

WORD = "\nAnswer the question using a single word or phrase."
ONE_WORD = "\nAnswer the question with a single word."
LETTER = "\nAnswer with the option's letter from the given choices directly."
NO_ANSWER = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


def image(colour: str = "red", *, kind: str = "PNG", orientation: int = 0) -> dict[str, Any]:
    """An image as the hub's Parquet files have it."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (6, 3), colour).save(buffer, kind, exif=exif)
    return {"bytes": buffer.getvalue(), "path": f"{colour}.{kind.lower()}"}


def ten(*texts: str) -> list[str]:
    return [*texts, *[texts[-1]] * (10 - len(texts))]


# Benchmark -> (a row as published, prompt, right answer, wrong answer, dataset, chance).
PUBLISHED: dict[str, tuple[dict[str, Any], str, str, str, str, float]] = {
    "mmbench": (
        {
            "index": 241, "question": "Which is right?", "hint": "Look left.", "answer": "B",
            "A": "cat", "B": "dog", "C": "nan", "D": None, "category": "ocr",
            "image": image(), "source": "s", "L2-category": "l2", "comment": "nan",
            "split": "dev",
        },
        "Look left. Which is right? There are several options:\nA. cat\nB. dog\n" + LETTER,
        "It is a dog", "A.", "mmbench/ocr", 0.5,
    ),
    "pope": (
        {
            "id": "7", "question_id": "7", "question": "Is there a cat? ", "answer": "yes",
            "image_source": "COCO_val2014_1", "image": image(), "category": "adversarial",
        },
        "Is there a cat?" + WORD, "Yes.", "No, there is none", "pope/adversarial", 0.5,
    ),
    "vizwiz": (
        {
            "question_id": "VizWiz_val_1.jpg", "image": image(), "question": "What IS this?",
            "answers": ten("Two bikes.", "", "2 bikes"), "category": "other",
        },
        "What is this?" + NO_ANSWER + WORD, "the 2 bikes", "unanswerable", "vizwiz", 0.0,
    ),
    "seedbench": (
        {
            "answer": "C", "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
            "choice_d": "Four", "data_id": "x", "data_type": "image", "question": "How many?",
            "question_id": "101", "question_type_id": 5, "image": [image()], "segment": None,
        },
        "How many?\nA. One\nB. Two\nC. Three\nD. Four" + LETTER,
        "C. Three", "Three", "seedbench/image", 0.25,
    ),
    "scienceqa": (
        {
            "image": image(), "question": "Which?", "choices": ["x", "y"], "answer": 1,
            "hint": "Think.", "task": "t", "grade": "g", "subject": "s", "topic": "t",
            "category": "c", "skill": "k", "lecture": "", "solution": "",
        },
        "Context: Think.\nWhich?\nA. x\nB. y" + LETTER, "B. y", "(B)", "scienceqa", 0.5,
    ),
    "mmmu": (
        {
            "id": "validation_Art_Theory_12", "question": "See <image 1>.",
            "options": "['oak', \"elm's\", 'ash']", "explanation": "", "image_1": image(),
            **{f"image_{n}": None for n in range(2, 8)}, "img_type": "['Photo']",
            "answer": "C", "topic_difficulty": "Easy", "question_type": "multiple-choice",
            "subfield": "s",
        },
        "See <image 1>.\nA. oak\nB. elm's\nC. ash\n" + LETTER,
        "I would say (C)", "I cannot tell", "mmmu/Art_Theory", 1 / 3,
    ),
    "docvqa": (
        {
            "questionId": "49", "question": "What is the date?", "question_types": ["form"],
            "image": image(), "docId": 1, "ucsf_document_id": "u", "data_split": "val",
            "ucsf_document_page_no": "1", "answers": ["1/8/93", "Jan 8"],
        },
        "What is the date?" + WORD, "1/8/93", "2000", "docvqa", 0.0,
    ),
    "chartqa": (
        {"type": "human_test", "question": "How much?", "answer": "100", "image": image()},
        "How much?" + ONE_WORD, "104.9", "106", "chartqa/human_test", 0.0,
    ),
    "ai2d": (
        {"question": "Which?", "options": ["x", "y", "z", "w"], "answer": "2", "image": image()},
        "Which?\nA. x\nB. y\nC. z\nD. w" + LETTER, "c", "C z", "ai2d", 0.25,
    ),
    "textvqa": (
        {
            "image_id": "i", "question_id": 34602, "question": "what brand is this?",
            "question_tokens": ["what"], "image": image(), "image_width": 6, "image_height": 3,
            "answers": ten("Dakota", "dakota digital"), "image_classes": ["c"],
            "set_name": "val", "ocr_tokens": ["DAKOTA"],
        },
        "What brand is this?" + WORD, "dakota digital.", "kodak", "textvqa", 0.0,
    ),
    "vqav2": (
        {
            "question_type": "what is", "multiple_choice_answer": "net", "image_id": 9,
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": place}
                for place, text in enumerate(ten("a net", "net"), start=1)
            ],
            "answer_type": "other", "question_id": 262148000, "question": "Where is he?",
            "image": image(),
        },
        "Where is he?" + WORD, "Net.", "ball", "vqav2", 0.0,
    ),
    "mme": (
        {
            "question_id": "OCR/1.jpg", "image": image(), "answer": "Yes", "category": "OCR",
            "question": "Is it 5? Please answer yes or no.",
        },
        "Is it 5?" + WORD, "Yes, it is", "No", "mme/OCR", 0.5,
    ),
    "gqa": (
        {
            "id": "201307251", "imageId": "n161313", "question": "Is it overcast?",
            "answer": "no", "fullAnswer": "No, it is clear.", "isBalanced": True,
        },
        "Is it overcast?" + WORD, "No.", "yes", "gqa", 0.0,
    ),
    "mmvet": (
        {
            "question_id": "v1_0", "image": image(), "question": "What is x?",
            "answer": "-1<AND>-5", "image_source": "a.com", "capability": "ocr,math",
        },
        "What is x?", "x = -1 or x = -5", "x = 3", "mmvet/ocr,math", 0.0,
    ),
    "llava-bench": (
        {
            "question_id": 0, "question": "Name the city.", "caption": "A view.\nOf a city.",
            "gpt_answer": "It is Honolulu.", "category": "conv", "image": image(),
            "image_id": "001",
        },
        "Name the city.", "Honolulu", "Rome", "llava-bench/conv", 0.0,
    ),
    "msvdqa": (
        {
            "": 1, "video_id": 1201, "answer": "null", "question": "who pours?",
            "video_name": "clip", "question_id": "1201_30933", "question_type": 0,
        },
        "who pours?" + WORD.replace("\n", " "), "Null.", "man", "msvdqa", 0.0,
    ),
    "msrvttqa": (
        {
            "": 1, "video_id": 7009, "answer": "2", "question": "how many?",
            "video_name": "clip", "question_id": 170851, "question_type": 19,
        },
        "how many?" + WORD.replace("\n", " "), "2", "two", "msrvttqa", 0.0,
    ),
    "activitynetqa": (
        {
            "video_name": "clip", "question": "is He tall", "question_id": "q_1",
            "answer": "yes", "type": 3,
        },
        "Is he tall? Answer the question using a single word or phrase.",
        "Yes", "Yes he is", "activitynetqa", 0.0,
    ),
    "nextqa": (
        {
            "video": 4010069381, "frame_count": 9, "width": 6, "height": 3, "question": "why ",
            "answer": 4, "qid": 6, "type": "CW", "a0": "rain", "a1": "sun ", "a2": "fun",
            "a3": "sad", "a4": "cold",
        },
        "why\nA. rain\nB. sun\nC. fun\nD. sad\nE. cold",
        "E", "cold", "nextqa/CW", 0.2,
    ),
    "intentqa": (
        {
            "": 1, "video_name": 4010069381, "question": "why did he jump",
            "question_id": "4010069381_CH_1", "answer": "balance", "video_id": 4010069381,
            "question_type": "CH", "a0": "jump", "a1": "nod", "a2": "push", "a3": "play",
            "a4": "balance",
        },
        "why did he jump\nA. jump\nB. nod\nC. push\nD. play\nE. balance" + LETTER,
        "(E)", "D", "intentqa/CH", 0.2,
    ),
    "egoschema": (
        {
            "question_idx": "3", "question": "What is C doing?", "video_idx": "clip",
            "option": ["A. C cooks", "B. C runs", "C. C reads", "D. C sits", "E. C is. Done"],
            "answer": "1",
        },
        "What is C doing?\nA. C cooks\nB. C runs\nC. C reads\nD. C sits\nE. C is. Done" + LETTER,
        "B. C runs", "A.", "egoschema", 0.2,
    ),
}  # fmt: skip
VIDEOS = {"nextqa": "4010069381", "intentqa": "4010069381", "activitynetqa": "v_clip"}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def origin_of(name: str, rows: list[dict[str, Any]], folder: Path, **more: Any) -> Origin:
    """The files of a benchmark as a user would have them."""
    folder.mkdir(exist_ok=True)
    entry = benchmark(name)
    files = (write_rows(folder / ("rows.parquet" if entry.hub else "rows.csv"), rows),)
    if name == "gqa":
        apart = [{"id": "n1", "image": image("blue")}, {"id": "n161313", "image": image()}]
        more.setdefault("image_files", (write_rows(folder / "images.parquet", apart),))
    if entry.video:
        videos = folder / "videos" / "part"
        videos.mkdir(parents=True, exist_ok=True)
        (videos / f"{VIDEOS.get(name, 'clip')}.webm").write_bytes(b"x")
        more.setdefault("videos", folder / "videos")
    return Origin(files=files, **more)


# `max_new_tokens` of lmms-eval's task files, version 0.7.3; 1024 where LLaVA's default counts.
LONGEST = {
    "mmbench": 1024, "gqa": 16, "pope": 128, "vizwiz": 1024, "seedbench": 1024, "scienceqa": 16,
    "mmmu": 128, "docvqa": 32, "chartqa": 16, "ai2d": 16, "textvqa": 1024, "vqav2": 16, "mme": 16,
    "mmvet": 1024, "llava-bench": 1024, "msvdqa": 64, "msrvttqa": 64, "activitynetqa": 64,
    "nextqa": 1024, "intentqa": 1024, "egoschema": 16,
}  # fmt: skip


def test_every_benchmark_has_a_fixture():
    assert set(PUBLISHED) == set(BENCHMARKS)
    asked = "mmbench gqa pope vizwiz seedbench scienceqa mmmu docvqa chartqa ai2d textvqa vqav2 mme"
    judged = "mmvet llava-bench"
    filmed = "msvdqa msrvttqa activitynetqa nextqa intentqa egoschema"
    assert list(BENCHMARKS) == [*asked.split(), *judged.split(), *filmed.split()]
    for entry in map(benchmark, BENCHMARKS):
        assert entry.metric in metric_names()
        assert bool(entry.hub) != bool(entry.sheet)


@pytest.mark.parametrize("name", PUBLISHED)
def test_from_rows_to_scores(name: str, tmp_path: Path) -> None:
    row, prompt, right, wrong, dataset, chance = PUBLISHED[name]
    fetched = fetch_benchmark(
        name, folder=tmp_path / "out", origin=origin_of(name, [row], tmp_path / "in")
    )
    (example,) = load_jsonl(fetched.examples, images=fetched.images)
    assert (example.question, example.dataset) == (prompt, dataset)
    assert example.id.startswith(f"{name}-")
    assert example.metric == benchmark(name).metric
    assert example.max_new_tokens == LONGEST[name]
    if is_judged(example.metric):
        with pytest.raises(DataError, match="scored by a judge"):
            example.score(right)
    else:
        assert example.score(right) == pytest.approx(1.0)
        assert example.score(wrong) == 0.0
    assert example.chance_level == pytest.approx(chance)
    if benchmark(name).video:
        assert (fetched.images / example.image).suffix == ".webm"
        assert (fetched.images / example.image).is_file()
    else:
        assert (fetched.images / example.image).read_bytes() == image()["bytes"]
        assert open_image(fetched.images / example.image).size == (6, 3)
    manifest = read_manifest(tmp_path / "out", stage="examples")
    assert manifest["params"]["benchmark"] == name
    assert manifest["outputs"] == {"examples.jsonl": sha256_file(fetched.examples)}
    assert (manifest["examples"], fetched.count) == (1, 1)


def test_what_a_judge_is_told_of_an_image_stays_with_the_example(tmp_path: Path) -> None:
    (example,) = read("llava-bench", [PUBLISHED["llava-bench"][0]], tmp_path)
    assert example.context == "A view.\nOf a city." and example.answers == ("It is Honolulu.",)
    assert type(example).from_dict(example.to_dict()) == example
    (other,) = read("mmvet", [PUBLISHED["mmvet"][0]], tmp_path)
    assert "context" not in other.to_dict()  # so that its hash is what it was


def variants(name: str, **changes: list[Any]) -> list[dict[str, Any]]:
    """The row of a benchmark, several times, with changes."""
    count = max(map(len, changes.values()))
    return [
        {**PUBLISHED[name][0], **{key: values[place] for key, values in changes.items()}}
        for place in range(count)
    ]


def read(name: str, rows: list[dict[str, Any]], folder: Path, **more: Any) -> list[Any]:
    return list(
        iter_benchmark(
            name, folder=folder / "out", origin=origin_of(name, rows, folder / "in", **more)
        )
    )


def test_images_are_written_once_as_they_are(tmp_path: Path) -> None:
    jpeg = image("blue", kind="JPEG", orientation=6)
    odd = {"bytes": b"no image", "path": "x"}
    rows = variants("chartqa", image=[image(), jpeg, image(), odd])
    first, second, third, fourth = read("chartqa", rows, tmp_path)
    assert first.image == third.image and first.group == third.group != second.group
    assert [Path(e.image).suffix for e in (first, second, fourth)] == [".png", ".jpg", ".img"]
    assert (tmp_path / "out" / second.image).read_bytes() == jpeg["bytes"]
    assert open_image(tmp_path / "out" / second.image).size == (3, 6)  # EXIF is still there
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert len({example.id for example in (first, second, third, fourth)}) == 4


def test_ids_that_repeat_are_told_apart(tmp_path: Path) -> None:
    rows = variants("mme", question=["Is it 5?", "Is it 6?"])
    assert [e.id for e in read("mme", rows, tmp_path)] == ["mme-OCR/1.jpg", "mme-OCR/1.jpg-2"]


def test_limit_and_rows_that_are_left_out(tmp_path: Path) -> None:
    rows = variants("mmmu", id=[f"validation_Art_{n}" for n in range(5)])
    rows[0]["image_2"] = image("blue")
    rows[2]["options"] = "['', 'b', 'c']"
    rows[3]["question_type"], rows[3]["answer"] = "open", "['24/7', '3.429']"
    origin = origin_of("mmmu", rows, tmp_path / "in")
    fetched = fetch_benchmark("mmmu", folder=tmp_path / "all", origin=origin)
    assert fetched.left_out == {
        "has 2 images": 1,
        "cannot be scored: choices holds an empty text": 1,
    }
    examples = load_jsonl(fetched.examples, images=fetched.images)
    assert [e.id for e in examples] == [f"mmmu-validation_Art_{n}" for n in (1, 3, 4)]
    assert (examples[1].answers, examples[1].choices) == (("24/7", "3.429"), ())
    assert load_metric("mmmu")("So the ratio is 3.43", examples[1].answers) == 1.0
    origin = Origin(files=origin.files, limit=2)
    assert len(list(iter_benchmark("mmmu", folder=tmp_path / "few", origin=origin))) == 2
    with pytest.raises(DataError, match="limit 1 or more, got 0 and 0"):
        list(iter_benchmark("mmmu", folder=tmp_path, origin=Origin(files=origin.files, limit=0)))


def test_parts_of_a_dataset_are_together_the_whole(tmp_path: Path) -> None:
    colours = ["red", "blue", "green", "white", "black"]
    rows = variants("chartqa", image=[image(colour) for colour in colours])
    files = origin_of("chartqa", rows, tmp_path / "in").files

    def part(skip: int) -> list[Any]:
        folder, origin = tmp_path / f"part{skip}", Origin(files=files, skip=skip, limit=2)
        examples = list(iter_benchmark("chartqa", folder=folder, origin=origin))
        assert len(list(folder.iterdir())) == len(examples)  # no image of another part
        return examples

    whole = list(iter_benchmark("chartqa", folder=tmp_path / "all", origin=Origin(files=files)))
    assert part(0) + part(2) + part(4) == whole
    with pytest.raises(DataError, match="there are none left. Check --split, --skip"):
        part(5)


def test_frames_of_videos_are_left_out_of_seedbench(tmp_path: Path) -> None:
    rows = variants("seedbench", image=[[image(), image("blue")], [image()]])
    assert len(read("seedbench", rows, tmp_path)) == 1
    with pytest.raises(DataError, match="can be used; 1 has several images. Check --split"):
        read("seedbench", rows[:1], tmp_path)


def test_answers_that_are_not_public(tmp_path: Path) -> None:
    rows = variants("docvqa", answers=[None])
    with pytest.raises(DataError, match="DocVQA: no row .* 1 has no answer"):
        read("docvqa", rows, tmp_path)


def test_an_empty_answer_of_one_annotator_counts(tmp_path: Path) -> None:
    rows = variants("textvqa", answers=[["", "", "", *["shell"] * 7], [""] * 10, ["x"] * 10])
    first, last = read("textvqa", rows, tmp_path)
    assert first.score("the") == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert last.answers == ("x",) * 10


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pope", lambda row: row.pop("category"), "POPE: missing column category; the rows have"),
        ("pope", lambda row: row.update(question=None), "POPE: a row is not as published"),
        ("pope", lambda row: row.update(image={"path": "a.png"}), "pope-7: .* stored as bytes"),
        ("mmmu", lambda row: row.update(options="oak"), "'oak' is not a list of options"),
        ("gqa", lambda row: row.update(imageId="n9"), "1 of 1 images are missing, first n9"),
        ("nextqa", lambda row: row.update(video=5), "1 of 1 videos are missing in .*: 5. Add"),
    ],
)
def test_rows_that_are_not_as_published(
    name: str, change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    row = dict(PUBLISHED[name][0])
    change(row)
    with pytest.raises(DataError, match=message):
        read(name, [row], tmp_path)


def test_all_missing_videos_are_counted(tmp_path: Path) -> None:
    rows = variants("nextqa", video=[4010069381, *range(1, 9)], qid=list(range(9)))
    with pytest.raises(DataError, match="8 of 9 videos are missing .*: 1, 2, 3, 4, 5, ..."):
        read("nextqa", rows, tmp_path)
    with pytest.raises(DataError, match="about videos: pass their folder with --videos"):
        read("nextqa", rows, tmp_path, videos=None)


def test_where_files_are_wrong(tmp_path: Path) -> None:
    row = PUBLISHED["pope"][0]
    good = write_rows(tmp_path / "a.parquet", [row])
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "a.txt").write_text("x")

    def refuses(message: str, name: str = "pope", **origin: Any) -> None:
        with pytest.raises(DataError, match=message):
            list(iter_benchmark(name, folder=tmp_path, origin=Origin(**origin)))

    refuses("POPE cannot be read from .*bad.parquet", files=(tmp_path / "bad.parquet",))
    refuses("cannot be read from .*none.parquet", files=(tmp_path / "none.parquet",))
    refuses("one kind out of .parquet, .csv", files=(tmp_path / "a.txt",))
    refuses("one kind", files=(good, tmp_path / "a.csv"))
    refuses("files are read whole", files=(good,), split="val")
    refuses(
        "IntentQA is not on the Hugging Face hub. Download .*IntentQA.csv",
        "intentqa",
        videos=tmp_path,
    )
    refuses("Unknown benchmark 'poep'. Did you mean 'pope'", "poep")
    refuses("GQA: missing column imageId", "gqa", files=(good,), image_files=(good,))
    refuses("keeps its images apart.*--image-file", "gqa", files=(good,))


def test_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    told = r"POPE cannot be read from lmms-lab(-encoder)?/POPE .default, test"
    with pytest.raises(DataError, match=told):
        list(iter_benchmark("pope", folder=tmp_path))


def test_both_homes_are_tried_the_new_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Rows:
        features = None

        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield PUBLISHED["pope"][0]

    def loads_from(*homes: str) -> Callable[..., Rows]:
        def load(name: str, *_: Any, **__: Any) -> Rows:
            asked.append(name)
            if name in homes:
                return Rows()
            raise FileNotFoundError(f"{name} is not there.")

        return load

    new, old = benchmark("pope").homes
    for homes, tried in (((new, old), [new]), ((old,), [new, old])):
        asked.clear()
        monkeypatch.setattr("datasets.load_dataset", loads_from(*homes))
        folder = tmp_path / str(len(tried))
        fetch_benchmark("pope", folder=folder)
        assert asked == tried
        assert read_manifest(folder, stage="examples")["params"]["hub"] == tried[-1]
    monkeypatch.setattr("datasets.load_dataset", loads_from())
    with pytest.raises(DataError, match=f"{old} .*{old} is not there; nor from {new} .*{new} is"):
        list(iter_benchmark("pope", folder=tmp_path / "none"))


def test_homes_are_those_of_july_2026_and_before() -> None:
    for name, entry in ((name, benchmark(name)) for name in BENCHMARKS):
        if entry.hub:
            owner = "lmms-eval" if entry.video else "lmms-lab-encoder"
            own = entry.hub.partition("/")[2]
            assert entry.homes == (f"{owner}/{own}", f"lmms-lab/{own}"), name
        else:
            assert entry.homes == ()


def test_a_connection_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = HfHubHTTPError.__bases__[0]  # what the client's own errors are

    class Rows:
        features = None

        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield PUBLISHED["pope"][0]
            raise broken("timed out")

    # Rows that were given are not given again from the other home.
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Rows())
    with pytest.raises(DataError, match="POPE cannot be read .*: timed out. Check the connection"):
        list(iter_benchmark("pope", folder=tmp_path))


def test_an_interrupted_fetch_leaves_no_examples(tmp_path: Path) -> None:
    rows = variants("chartqa", image=[image(), {"bytes": None, "path": "x"}, image("blue")])
    folder = tmp_path / "out"
    with pytest.raises(DataError, match="chartqa-1: the image must be stored as bytes"):
        fetch_benchmark("chartqa", folder=folder, origin=origin_of("chartqa", rows, tmp_path))
    assert not (folder / "examples.jsonl").exists()
    rows[1]["image"] = image()
    counts: list[int] = []
    origin = origin_of("chartqa", rows, tmp_path)
    fetched = fetch_benchmark("chartqa", folder=folder, origin=origin, progress=counts.append)
    assert counts == [1, 2, 3]
    assert sorted(path.name for path in folder.iterdir()) == [
        "examples.jsonl", "images", "manifest.json",
    ]  # fmt: skip
    assert len(list(fetched.images.iterdir())) == 2
    with pytest.raises(DataError, match="exists already"):
        fetch_benchmark("chartqa", folder=folder, origin=origin)
    lines = fetched.examples.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["chartqa-0", "chartqa-1", "chartqa-2"]


def test_questions_stream(tmp_path: Path) -> None:
    """The first examples come before a later row is read: here one that cannot be."""
    rows = variants("chartqa", question=["a", "b", "c", None])
    origin = origin_of("chartqa", rows, tmp_path / "in", limit=3)
    assert len(list(iter_benchmark("chartqa", folder=tmp_path / "out", origin=origin))) == 3


@pytest.mark.parametrize("word", ["None", "NA", "N/A", "null", "NaN", "no", "0"])
def test_mmbench_drops_no_word(word: str, tmp_path: Path) -> None:
    """VLMEvalKit 1559: the option 'None' was dropped, and the letters behind it moved up."""
    (row,) = variants("mmbench", A=[word], B=["dog"], C=["nan"], D=[None])
    origin = origin_of("mmbench", [row], tmp_path / "in")
    (example,) = list(iter_benchmark("mmbench", folder=tmp_path, origin=origin))
    assert example.choices == (word, "dog")
    assert f"\nA. {word}\nB. dog\n" in example.question
    assert (example.answers, example.chance_level) == (("B",), 0.5)


@pytest.mark.parametrize("gap", ["nan", None, ""])
def test_mmbench_letters_keep_their_places(gap: str | None, tmp_path: Path) -> None:
    (row,) = variants("mmbench", B=[gap], C=[gap], D=["dog"], answer=["D"], hint=["None"])
    origin = origin_of("mmbench", [row], tmp_path / "in")
    fetched = fetch_benchmark("mmbench", folder=tmp_path / "out", origin=origin)
    (example,) = load_jsonl(fetched.examples, images=fetched.images)
    assert example.choices == ("cat", None, None, "dog")
    assert example.question.startswith(
        "None Which is right? There are several options:\nA. cat\nD. dog\n"
    )
    assert example.chance_level == 0.5
    assert [example.score(said) for said in ("D", "a dog", "B", "cat")] == [1, 1, 0, 0]


def test_a_right_choice_that_the_data_lack_is_left_out(tmp_path: Path) -> None:
    rows = variants("mmbench", B=["nan", "dog"], C=["x", "x"], answer=["B", "B"])
    fetched = fetch_benchmark(
        "mmbench", folder=tmp_path / "out", origin=origin_of("mmbench", rows, tmp_path / "in")
    )
    assert fetched.count == 1
    assert fetched.left_out == {"cannot be scored: answer 'B' is a letter without a choice": 1}


def test_words_and_numbers_of_a_sheet_stay_texts(tmp_path: Path) -> None:
    """pandas would read the answers as missing, true, 1 and 7, and a sheet of numbers as floats."""
    words = ["NA", "null", "None", "nan", "True", "1.50", "007", "1e3"]
    rows = variants("msvdqa", answer=words, question_id=[f"00{n}" for n in range(8)])
    origin = origin_of("msvdqa", rows, tmp_path / "in")
    examples = list(iter_benchmark("msvdqa", folder=tmp_path, origin=origin))
    assert [one.answers for one in examples] == [(word,) for word in words]
    assert [one.id for one in examples] == [f"msvdqa-00{n}" for n in range(8)]


def test_choices_of_a_sheet_that_are_words(tmp_path: Path) -> None:
    (row,) = variants("intentqa", a0=["None"], a1=["NA"], a2=[""], a3=["0"], answer=["0"])
    origin = origin_of("intentqa", [row], tmp_path / "in")
    (example,) = list(iter_benchmark("intentqa", folder=tmp_path, origin=origin))
    assert example.choices == ("None", "NA", None, "0", "balance")
    assert example.answers == ("D",)
    assert "\nA. None\nB. NA\nD. 0\nE. balance" in example.question
