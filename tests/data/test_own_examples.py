"""Examples of the user's own: the same ones in every form read equal, and each rule by itself."""

from __future__ import annotations

import base64
import gzip
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.sources.examples import load_examples
from m3router.data.sources.image_check import check_images

datasets.disable_progress_bars()


def cells(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as people keep them in a sheet: lists are JSON, what is not given is empty."""
    texts = [{name: _cell(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(texts, dtype=object)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


Writer = Callable[[Path, list[dict[str, Any]]], Any]


def text_file(name: str, text: Callable[[list[dict[str, Any]]], str], encoding: str) -> Writer:
    def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
        (folder / name).write_bytes(text(rows).encode(encoding))
        return folder / name

    return write


def sheet(separator: str, ending: str) -> Callable[[list[dict[str, Any]]], str]:
    return lambda rows: cells(rows).to_csv(sep=separator, index=False, lineterminator=ending)


def table(name: str, method: str, **options: Any) -> Writer:
    def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
        frame = cells(rows)
        if method == "to_parquet":  # whose columns have one type
            frame["answers"] = frame["answers"].astype(str)
        getattr(frame, method)(folder / name, **options)
        return folder / name

    return write


def of_dataset(rows: list[dict[str, Any]]) -> datasets.Dataset:
    names = dict.fromkeys(name for row in rows for name in row)  # it reads those of the first row
    return datasets.Dataset.from_list(
        [
            {
                **dict.fromkeys(names),
                **row,
                "answers": [str(one) for one in _listed(row["answers"])],
            }
            for row in rows
        ]
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    place = Path(folder / f"saved-{len(list(folder.iterdir()))}")
    datasets.DatasetDict(test=of_dataset(rows)).save_to_disk(str(place))
    return place


def packed(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "e.csv.gz").write_bytes(gzip.compress(sheet(",", "\n")(rows).encode()))
    return folder / "e.csv.gz"


WRITERS: dict[str, Writer] = {
    "jsonl": text_file("e.jsonl", lines, "utf-8-sig"),
    "jsonl without an ending": text_file("examples", lines, "utf-8"),
    "json": text_file("e.json", json.dumps, "utf-8"),
    "json, wrapped": text_file(
        "w.json", lambda rows: json.dumps({"version": 1, "data": rows}, indent=1), "utf-8"
    ),
    "csv": text_file("e.csv", sheet(",", "\n"), "utf-8"),
    "csv of Excel in Europe": text_file("e.csv", sheet(";", "\r\n"), "utf-8-sig"),
    "csv, gzip": packed,
    "tsv": text_file("e.tsv", sheet("\t", "\r\n"), "utf-16"),
    "csv called txt": text_file("e.txt", sheet(",", "\n"), "utf-8"),
    "parquet": table("e.parquet", "to_parquet", index=False),
    "parquet called csv": table("p.csv", "to_parquet", index=False),
    "xlsx": table("e.xlsx", "to_excel", index=False),
    "saved dataset": saved,
    "Dataset": lambda folder, rows: of_dataset(rows),
    "DataFrame": lambda folder, rows: cells(rows),
    "list": lambda folder, rows: rows,
}

WORDS = st.text("aZ0 .,;|\t\"'[é字_\n", min_size=1, max_size=9).filter(str.strip)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "image": st.sampled_from(["a.png", "b/ c.jpg", "ü.png"]),
            "question": WORDS,
            "answers": st.one_of(
                WORDS.filter(lambda text: text.strip()[0] != "["),
                st.lists(WORDS, min_size=1, max_size=3),
                st.integers(-5, 10**12),
            ),
        },
        optional={"dataset": st.sampled_from(["one", "two"]), "max_new_tokens": st.integers(1, 99)},
    ),
    min_size=1,
    max_size=4,
)
IDS = st.lists(st.sampled_from(["007", "1.0", "1e3", "None", "NA", "x", "7"]), unique=True)


@settings(deadline=None, max_examples=8, phases=(Phase.generate,))  # shrinking takes minutes
@given(rows=ROWS, ids=IDS.filter(lambda ids: len(ids) > 3))
def test_the_same_examples_read_equal_from_everywhere(tmp_path_factory, rows, ids) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"id": name, **row} for name, row in zip(ids, rows, strict=False)]
    known = [
        Example.from_dict({**row, "answers": [str(one) for one in _listed(row["answers"])]})
        for row in rows
    ]
    for name, write in WRITERS.items():
        assert load_examples(write(folder, rows), images=folder) == known, name


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 6), (number * 60, 0, 9)).save(folder / f"{number}.png")
    return folder


def test_names_of_columns_and_empty_cells(tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("Image_Path;Question;ANSWER;Chance;split\n0.png;q;42;0,5;x\n\n1.png;q;;;\n")
    found = load_examples(path)
    assert found.images == photos
    assert [(one.id, one.answers, one.metric, one.chance) for one in found] == [
        ("1", ("42",), "exact", 0.5),
        ("2", (), "agreement", None),
    ]
    told = " ".join(found.notes)
    assert "numbers of the rows are the ids" in told and "the column split is not used" in told


def test_commas_in_a_table_with_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("image;question;answer;seen, by whom\na.png;Is it, or not?;yes;x\n")
    assert load_examples(path)[0].question == "Is it, or not?"


def test_absolute_paths_and_paths_beside_the_file(tmp_path: Path, photos: Path) -> None:
    def loaded(*names: object, **given: Any) -> tuple[Path, list[str]]:
        path = tmp_path / "e.jsonl"
        path.write_text(lines([{"image": str(name), "question": "q"} for name in names]))
        found = load_examples(path, **given)
        return found.images, [one.image for one in found]

    whole = photos / "0.png"
    assert loaded("0.png") == (photos, ["0.png"])
    assert loaded("images/0.png") == (tmp_path, ["images/0.png"])
    assert loaded(whole) == (photos, ["0.png"])
    assert loaded(whole, "1.png", images=photos) == (photos, ["0.png", "1.png"])
    assert loaded(whole, "1.png", images=photos.parent) == (tmp_path, ["images/0.png", "1.png"])
    (tmp_path / "other").mkdir()
    assert loaded(whole, "1.png", images=tmp_path / "other") == (
        tmp_path,
        ["images/0.png", "other/1.png"],
    )
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "e.jsonl").write_text(
        lines([{"image": "../images/0.png", "question": "q"}])
    )
    found = load_examples(tmp_path / "deep" / "e.jsonl")
    assert (found.images, found[0].image) == (photos, "0.png")
    with pytest.raises(DataError, match="climbs out of the images folder"):
        loaded("../0.png", images=photos)


def test_images_in_the_data_become_files(tmp_path: Path, photos: Path) -> None:
    raw = [(photos / f"{number}.png").read_bytes() for number in (0, 1, 0)]
    text = [base64.b64encode(one).decode() for one in raw]
    asked = {"question": ["a", "b", "c"], "answer": ["x", "y", "z"]}
    as_features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string")}
        | {"answer": datasets.ClassLabel(names=["x", "y", "z"])}
    )
    objects = [{"bytes": one, "path": "p.png"} for one in raw]
    dataset = datasets.Dataset.from_dict({**asked, "image": objects}, features=as_features)
    dataset.to_parquet(str(tmp_path / "hub.parquet"))
    pd.DataFrame({**asked, "image": raw}).to_parquet(tmp_path / "raw.parquet")
    pd.DataFrame({**asked, "image": text}).to_csv(tmp_path / "b.tsv", sep="\t", index=False)
    vlm = pd.DataFrame({"index": [5, 6, 7], **asked, "image": [*text[:2], "5"]})
    vlm.to_csv(tmp_path / "v.tsv", sep="\t", index=False)
    urls = [{"image": f"data:image/png;base64,{one}", "question": "q"} for one in text]
    lists = [{"images": [one], "question": "q"} for one in objects]
    names = None
    for source in (
        dataset,
        tmp_path / "hub.parquet",
        tmp_path / "raw.parquet",
        tmp_path / "b.tsv",
        tmp_path / "v.tsv",
        urls,
        lists,
    ):
        found = load_examples(source, store=tmp_path / "store")
        assert found.images == tmp_path / "store"
        names = names or [one.image for one in found]
        assert [one.image for one in found] == names
    assert len(set(names)) == 2 and names[0] == names[2]
    assert [one.group for one in found] == names
    assert [one.answers[0] for one in load_examples(dataset, store=tmp_path / "store")] == [*"xyz"]
    assert (tmp_path / "store" / names[1]).read_bytes() == raw[1]
    assert {stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "store").iterdir()} == {0o600}
    drawn = [Image.open(io.BytesIO(one)) for one in raw]
    pixels = load_examples(pd.DataFrame({**asked, "image": drawn}), store=tmp_path / "drawn")
    assert pixels[0].image == pixels[2].image != pixels[1].image
    with Image.open(tmp_path / "drawn" / pixels[1].image) as kept:
        assert kept.getpixel((0, 0)) == (60, 0, 9)
    with pytest.raises(DataError, match=r"say where images are to be written \(store=FOLDER\)"):
        load_examples(urls)
    assert len(load_examples(urls, looks=False)) == 3


def test_choices_in_columns_of_letters(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("index,image,question,hint,A,B,C,answer\n3,a.png,Which?,Look.,cat,,dog,C\n")
    (one,) = load_examples(path)
    assert (one.id, one.choices, one.metric) == ("3", ("cat", None, "dog"), "choice")
    assert one.question.startswith("Look.\nWhich?\nA. cat\nC. dog\nAnswer with the option's letter")
    assert (one.score("C"), one.score("dog"), one.score("A")) == (1, 1, 0)


GOOD = {"image": "a.png", "question": "q", "answer": "x"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "a", "qestion": "q"}], "Unknown column 'qestion'. Did you mean 'question'?"),
        ([{"img2": "a", "question": "q"}], "Unknown column 'img2'. Did you mean 'img'?"),
        ([{"picture": "a", "question": "q"}], "no image; the columns are picture, question"),
        ([{"Image": "a", "image": "b"}], "two columns that read as 'image'"),
        ([GOOD | {"image": "https://x.org/a.png"}], "row 1: .*'image' holds an address. Download"),
        ([GOOD, GOOD | {"image": ["a", "b"]}], "row 2: .*holds a list of 2 images"),
        ([GOOD, GOOD | {"image": None}], "row 2: Example '2': missing image"),
        ([GOOD | {"image": b"", "x": 1}], "missing image"),
        ([GOOD, GOOD | {"question": " "}], "row 2: Example '2': missing question"),
        ([GOOD | {"answers": ["y"]}], "has both 'answer' and 'answers'"),
        ([GOOD | {"id": 1}, GOOD], "1 of 2 rows have no id. Give all of them one, or none"),
        ([GOOD | {"id": 1}, GOOD | {"id": "1"}], "row 2: duplicate id '1', first on row 1"),
        ([GOOD | {"metric": "exact", "answer": ""}], "missing answers"),
        (
            [GOOD | {"max_new_tokens": "many"}],
            "max_new_tokens must be a whole number .* got 'many'",
        ),
        ([3], "expected a JSON object, got int"),
        ([], "holds no examples"),
        (
            {"test": 1, "train": 2},
            r"got dict with test, train. Choose one, such as source\['test'\]",
        ),
        (7, "a list of objects, got int"),
    ],
)
def test_what_cannot_be_used_is_said(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_examples(rows)


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(GOOD) + "\n{not json\n")
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0 a workbook")
    both = datasets.DatasetDict(
        a=datasets.Dataset.from_list([GOOD]), b=datasets.Dataset.from_list([GOOD])
    )
    both.save_to_disk(str(tmp_path / "both"))
    for source, message in (
        (tmp_path / "none.csv", "none.csv cannot be read: No such file"),
        (tmp_path, "is a folder, and not one that a dataset's save_to_disk wrote"),
        (tmp_path / "both", "2 parts: give the folder of one, such as .*both/a"),
        (both, "Choose one, such as"),
        (tmp_path / "bad.jsonl", "line 2: invalid JSON"),
        (tmp_path / "old.xls", "old kind .* Save it as .xlsx"),
    ):
        with pytest.raises(DataError, match=message):
            load_examples(source)
    with pytest.raises(DataError, match="images folder .* does not exist"):
        load_examples([GOOD], images=tmp_path / "none")


@pytest.mark.parametrize("name", ["e.json", "e.jsonl", "e"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("orient", ["dict", "index", "split", "list"])
def test_a_table_written_by_column_is_told_how_to_be_written(
    tmp_path: Path, name: str, indent: int | None, orient: Any
) -> None:
    path = tmp_path / name
    rows = pd.DataFrame([GOOD, GOOD]).to_dict(orient=orient)
    path.write_text(json.dumps(rows, indent=indent))
    with pytest.raises(DataError, match=r"columns of a table.*orient='records'\)\.?$"):
        load_examples(path)


def test_missing_images_are_found_with_what_is_near(tmp_path: Path, photos: Path) -> None:
    (photos / "deep").mkdir()
    (photos / "deep" / "x.png").write_bytes((photos / "0.png").read_bytes())
    (photos / "text.png").write_text("no image")
    check = check_images([f"{n}.png" for n in range(3)] + ["text.png"], photos)
    assert not check.missing and not check.is_hopeless
    assert "1 of 4 images cannot be read, such as text.png: " in check.text
    assert not check_images(["0.png", "1.png"], photos).text
    for names, folder, hint in (
        (["0.PNG", "1.png"], photos, "'0.PNG' is perhaps '0.png'"),
        (["0", "1"], photos, "'0' is perhaps '0.png', '1' is perhaps '1.png'"),
        (["0.jpeg"], photos, "'0.jpeg' is perhaps '0.png'"),
        (["images/0.png", "images/1.png"], photos, f"All of them are in {tmp_path}: give --images"),
        (["0.png", "9.png", "1.png"], tmp_path, f"2 are in {photos}: give --images {photos}"),
        (["x.png"], photos, f"It is in {photos / 'deep'}"),
    ):
        found = check_images(names, folder)
        assert found.is_hopeless and hint in found.text, names
    few = check_images(["text.png"] * 2 + [f"{n}.png" for n in range(3)] * 4, photos)
    assert few.images == 4 and not few.is_hopeless
    assert check_images(["text.png"], photos).is_hopeless  # nothing can be read
