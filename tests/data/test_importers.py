from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.importers import IMPORTERS, importer
from m3router.data.importers.blindtest import read_blindtest
from m3router.data.importers.table import read_table
from m3router.data.prices import Prices

BLINDTEST = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "blindtest"

CSV = """id,question,option,correct,cost,image,dataset,group,note
q1,What?,large,1,10,a.png,d,g1,x
q1,What?,small,0,2,a.png,d,g1,x
q2,"Why, then?",small,true,4,b.png,d,g2,x
q2,"Why, then?",large,False,30,b.png,d,g2,x
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_names() -> None:
    assert importer("table") is read_table
    assert set(IMPORTERS) == {"blindtest", "exported", "lmms-eval", "table", "vlmevalkit"}
    for name in IMPORTERS:
        assert callable(importer(name))
    with pytest.raises(DataError, match="Unknown importer 'blindtst'. Did you mean 'blindtest'"):
        importer("blindtst")


# --- table -----------------------------------------------------------------------------------


def test_full_table(tmp_path: Path) -> None:
    log = read_table(write(tmp_path, CSV), cost_unit="USD")
    assert log.options == ("small", "large")  # by mean cost, not by appearance
    assert log.cost_unit == "USD"
    assert log.ids == ("q1", "q2")
    assert log.scores.tolist() == [[0, 1], [1, 0]]
    assert log.costs.tolist() == [[2, 10], [4, 30]]
    assert list(log.groups) == ["g1", "g2"]
    assert list(log.questions) == ["What?", "Why, then?"]
    assert list(log.images) == ["a.png", "b.png"]


def test_references_and_metric_of_a_table(tmp_path: Path) -> None:
    text = """id,question,option,correct,gold,metric
q1,What?,small,1,red,exact
q1,What?,large,0,red,exact
q2,Who?,small,1,"['Ann', 'Anna']",any
q2,Who?,large,0,"['Ann', 'Anna']",any
q3,Why?,small,1,,
q3,Why?,large,1,,
"""
    log = read_table(write(tmp_path, text), columns={"reference": "gold"})
    assert log.references.tolist() == [("red",), ("Ann", "Anna"), None]
    assert log.metrics.tolist() == ["exact", "any", None]
    assert read_table(write(tmp_path, CSV)).references.tolist() == [None, None]


def test_parquet_equals_csv(tmp_path: Path) -> None:
    first = read_table(write(tmp_path, CSV))
    table = pd.read_csv(tmp_path / "log.csv")
    table["correct"] = [1.0, 0.0, 1.0, 0.0]
    table.to_parquet(tmp_path / "log.parquet")
    second = read_table(tmp_path / "log.parquet")
    pd.testing.assert_frame_equal(first.frame, second.frame)


def test_least_table_gets_ranks_and_own_groups(tmp_path: Path) -> None:
    text = "id,question,option,correct\n1,q,9,0.5\n1,q,36,1\n2,q,9,0\n2,q,36,0\n"
    log = read_table(write(tmp_path, text))
    assert log.options == ("9", "36")
    assert (log.cost_unit, log.costs.tolist()) == ("rank", [[1, 2], [1, 2]])
    assert list(log.groups) == ["1", "2"]
    assert list(log.datasets) == ["default"] * 2
    assert log.scores[0, 0] == 0.5


def test_image_is_the_group(tmp_path: Path) -> None:
    text = "id,question,option,correct,image\n1,q,s,0,a.png\n2,q,s,0,a.png\n"
    assert list(read_table(write(tmp_path, text)).groups) == ["a.png", "a.png"]


def test_empty_correct_is_a_gap_not_a_wrong_answer(tmp_path: Path) -> None:
    log = read_table(write(tmp_path, "id,question,option,correct\n1,q,s,\n1,q,l,1\n2,NA,s,0\n"))
    assert np.isnan(log.scores).tolist() == [[True, False], [False, True]]
    assert log.n_gaps == 2
    assert "no value" in log.errors()["error"].iloc[0]
    assert log.questions[1] == "NA"


def test_every_problem_is_listed(tmp_path: Path) -> None:
    text = "id,question,option,correct,cost\n1,q,s,2,1\n1,q,s,maybe,-1\n,q,l,1,cheap\n3,,l,0,1\n"
    with pytest.raises(DataError) as error:
        read_table(write(tmp_path, text))
    for part in (
        "'correct' must be in [0, 1] or true/false: 2 rows are not, first '2' in row 1",
        "'cost' must be a number of at least 0 in every row: 2 rows have none, first '-1' in row 2",
        "'id' is empty in 1 rows, first row 3",
        "'question' is empty in 1 rows, first row 4",
        "1 (id, option) pairs are duplicate, first [('1', 's')]",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,option\n1,s\n", r"lacks the columns question, correct"),
        ("id,question,option,correct\n", "holds no rows"),
        ("", "is not a readable .csv table"),
        ('id,question,option,correct\n1,"q,s,1\n', "is not a readable .csv table"),
        ("id,option,correct,question\n1,s,1,what, then\n", "more cells .* in quotation marks"),
        ("id;question;option;correct\n1;q;s;x\n", "'x'"),
        (
            "id,question,option,correct,group\n1,q,s,1,a\n1,q,l,1,b\n",
            "disagree with themselves",
        ),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text))


def test_empty_cells_behind_the_last_column_are_nothing(tmp_path: Path) -> None:
    text = "id,question,option,correct\n007,q,s,1,\n007,q,l,0,\n"
    log = read_table(write(tmp_path, text))
    assert (log.ids, log.scores.tolist()) == (("007",), [[1.0, 0.0]])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="must be one of .csv, .tsv, .parquet, .*, got '.xls'"):
        read_table(tmp_path / "a.xls")
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="is not a readable .parquet table"):
        read_table(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_bytes(b"id,question\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="is not a readable .csv table"):
        read_table(tmp_path / "a.csv")


def test_what_is_not_mapped_is_told(tmp_path: Path) -> None:
    log = read_table(write(tmp_path, CSV))
    assert log.metadata["unmapped"] == ["columns not used: ['note']"]
    text = "id,question,option,correct\n1,q,s,\n1,q,l,1\n2,q,s,0\n"
    told = read_table(write(tmp_path, text)).metadata["unmapped"]
    for part in (
        "no column 'cost': an option costs its place",
        "no column 'group': every id is a group of its own",
        "1 rows have no value in the column 'correct'; they are gaps (1)",
        "1 of 2 ids lack some of the 2 options; those are gaps (2)",
    ):
        assert any(part in sentence for sentence in told), part


def test_columns_of_other_names(tmp_path: Path) -> None:
    text = CSV.replace("id,question,option,correct", "sample_id,question,provider,acc")
    columns = {"id": "sample_id", "option": "provider", "correct": "acc"}
    log = read_table(write(tmp_path, text), columns=columns)
    pd.testing.assert_frame_equal(log.frame, read_table(write(tmp_path, CSV)).frame)
    text = "id,question,option,correct,group\n1,g1,s,1,Why?\n2,g2,s,0,How?\n"
    log = read_table(write(tmp_path, text), columns={"question": "group", "group": "question"})
    assert (list(log.questions), list(log.groups)) == (["Why?", "How?"], ["g1", "g2"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ids": "id"}, "Unknown column 'ids'. Did you mean 'id'"),
        ({"id": "sample"}, r"has no columns sample; it has id"),
        ({"id": "note", "group": "note"}, "is named for two of ours"),
        ({"answer": "question"}, r"lacks the columns question.*--column question=NAME"),
    ],
)
def test_renamings_that_do_not_fit(tmp_path: Path, columns: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, CSV), columns=columns)


def test_a_column_that_gives_way_is_told(tmp_path: Path) -> None:
    log = read_table(write(tmp_path, CSV), columns={"group": "note"})
    assert list(log.groups) == ["x", "x"]
    assert log.metadata["unmapped"] == ["columns not used: ['group (of the table)']"]


def test_parquet_types(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "id": [1, 1, 2, 2],
            "question": ["q ", None, "r", "r"],
            "option": pd.Categorical(["7b", "13b", "7b", "13b"]),
            "correct": [True, False, None, True],
            "cost": np.array([7, 13, 7, 13], dtype=np.float32),
        }
    )
    table.loc[1, "question"] = "q"
    table.to_parquet(tmp_path / "t.parquet")
    log = read_table(tmp_path / "t.parquet")
    assert log.options == ("7b", "13b")
    assert log.ids == ("1", "2")
    assert list(log.questions) == ["q", "r"]
    np.testing.assert_array_equal(log.scores, [[1, 0], [np.nan, 1]])


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(64)).decode()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (PNG, "holds an image in base64. Write the images to files"),
        (JPEG, "holds an image in base64"),  # it begins as an absolute path does: /9j/
        ("\n".join([PNG[:76], PNG[76:]]), "holds an image in base64"),
        (f"data:image/png;base64,{PNG}", "holds a data URL"),
        ("<PIL.PngImagePlugin.PngImageFile image mode=RGB size=4x4 at 0x7F>", "holds an object of"),
        ("array([[0, 0],\n [0, 0]], dtype=uint8)", "holds an object of"),
        ("b'\\x89PNG\\r\\n'", "holds bytes written as text"),
        ("https://example.org/a.png", "holds an address. Download the images"),
        ("s3://bucket/a.png", "holds an address"),
        ("['a.png', 'b.png']", "holds a list or object written as text. Name one file"),
        ("{'bytes': b'x', 'path': None}", "holds a list or object written as text"),
        ("a" * 252 + ".png", "has a name of 256 bytes; a file's name has at most 255"),
        ("ä" * 126 + ".png", "has a name of 256 bytes"),
        ("a/" * 2048 + "a.png", "has a name of 4101 bytes"),
        ("a\0.png", "holds a NUL character"),
        (["a.png", "b.png"], "holds a list of 2 values. Name one file"),
        ({"bytes": b"\x89PNG", "path": "a.png"}, r"holds an image itself \(4 bytes\)"),
        ({"url": "a.png"}, "holds an object with the fields url"),
        (b"\x89PNG", "holds 4 bytes. Write the images to files"),
    ],
)
def test_what_is_no_path_of_an_image_is_refused_by_row_and_column(
    tmp_path: Path, cell: object, message: str
) -> None:
    good = None if isinstance(cell, dict | list | bytes) else "a.png"
    rows = [
        {"id": "1", "question": "q", "option": "s", "correct": 1, "photo": good},
        {"id": "2", "question": "q", "option": "s", "correct": 1, "photo": cell},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    where = r"'image' \('photo' of the table\) in row 2 "
    with pytest.raises(DataError, match=where + message):
        read_table(tmp_path / "t.parquet", columns={"image": "photo"})
    if isinstance(cell, str) and "\0" not in cell:
        pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(DataError, match=where + message):
            read_table(tmp_path / "t.csv", columns={"image": "photo"})


@pytest.mark.parametrize(
    "path",
    ["a.png", "a b/ü.jpg", "iVBORw0KGgo.png", "[1].png", "a" * 251 + ".png", "C:/x/a.png", "R0lGOD",
     "data/a.png", "data_files/abcdefghijklmnopqrstuvwxyz0123456789"],
)  # fmt: skip
def test_odd_names_of_files_are_names(tmp_path: Path, path: str) -> None:
    rows = pd.DataFrame({"id": ["1"], "question": "q", "option": "s", "correct": 1, "image": path})
    rows.to_csv(tmp_path / "t.csv", index=False)
    assert list(read_table(tmp_path / "t.csv").images) == [path]


def test_an_image_that_is_a_path_alone_is_that_path(tmp_path: Path) -> None:
    """As the ``datasets`` library stores images that it did not embed."""
    images = [{"bytes": None, "path": "a.png"}, None, {"bytes": None, "path": None}]
    rows = [
        {"id": str(n), "question": "q", "option": "s", "correct": 1, "image": image}
        for n, image in enumerate(images)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").images) == ["a.png", "", ""]


def test_many_bad_cells_are_counted(tmp_path: Path) -> None:
    rows = [{"id": n, "question": ["q"], "option": "s", "correct": 1} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'question' in row 3 holds a list.*\n.*6 more rows"):
        read_table(tmp_path / "t.parquet")


def test_copies_of_an_images_name_are_one_group(tmp_path: Path) -> None:
    text = "id,question,option,correct,image\n1,q,s,0,Cafe\u0301.png\n2,q,s,0,Caf\u00e9.png\n"
    log = read_table(write(tmp_path, text))
    assert len(set(log.groups)) == 1
    assert len(set(log.images)) == 2  # files are opened by the names they were given


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 5), st.sampled_from("abc")),
        st.tuples(st.integers(0, 1), st.integers(0, 9)),
        min_size=1,
    )
)
def test_cells_land_where_they_belong(tmp_path_factory, cells: dict) -> None:
    lines = ["id,question,option,correct,cost"]
    lines += [f"q{i},what,{o},{c},{p}" for (i, o), (c, p) in cells.items()]
    log = read_table(write(tmp_path_factory.mktemp("t"), "\n".join(lines)))
    means = [np.mean([p for (_, o), (_, p) in cells.items() if o == name]) for name in log.options]
    assert means == sorted(means)
    assert np.isfinite(log.scores).sum() == len(cells)
    for (i, o), (c, p) in cells.items():
        place = log.ids.index(f"q{i}"), log.options.index(o)
        assert (log.scores[place], log.costs[place]) == (c, p)


def test_confidences_and_log_probabilities_are_read(tmp_path: Path) -> None:
    text = """id,question,option,correct,sure,logprob
1,q,s,0,0.25,-1.5
1,q,l,1,1,0
2,q,s,0,,-2
2,q,l,1,0.5,1e-9
"""
    log = read_table(write(tmp_path, text), columns={"confidence": "sure"})
    np.testing.assert_array_equal(log.laid_out("confidence"), [[0.25, 1], [np.nan, 0.5]])
    np.testing.assert_array_equal(log.laid_out("logprob"), [[-1.5, 0], [-2, 0]])
    (told,) = [one for one in log.metadata["unmapped"] if "'confidence'" in one]
    assert told.startswith("column 'confidence': 1 of 4 cells are empty; cascades need it")
    assert np.isnan(read_table(write(tmp_path, CSV)).laid_out("confidence")).all()


def test_a_column_that_is_no_confidence_refuses_nothing(tmp_path: Path) -> None:
    text = "id,question,option,correct,confidence,logprob\n1,q,s,0,87,0.4\n1,q,l,1,high,nan\n"
    log = read_table(write(tmp_path, text))
    assert np.isnan(log.laid_out("confidence")).all() and np.isnan(log.laid_out("logprob")).all()
    told = "\n".join(log.metadata["unmapped"])
    assert "2 of 2 cells are not a number in [0, 1], first '87' in row 1" in told
    assert "'logprob': 1 of 2 cells are not a number of at most 0" in told


BAD = """id,question,option,correct,cost,image
1,q,s,1,1,a.png
1,q,l,0,2,a.png
2,q,s,maybe,1,b.png
2,q,l,1,2,b.png
,q,s,1,1,c.png
3,q,s,1,cheap,d.png
3,q,l,1,2,https://example.org/d.png
4,q,s,1,1,e.png
4,q,s,1,1,e.png
4,q,l,1,2,e.png
5,q,s,1,1,f.png
5,q,s,0,1,f.png
5,q,l,1,2,f.png
6,q,s,1,1,g.png
6,other,l,1,2,g.png
"""


def test_bad_rows_are_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, BAD)
    with pytest.raises(DataError, match="--skip-bad leaves these rows out"):
        read_table(path)
    log = read_table(path, skip_bad=True)
    assert log.ids == ("1", "2", "4", "5")
    np.testing.assert_array_equal(log.scores, [[1, 0], [np.nan, 1], [1, 1], [np.nan, 1]])
    told = "\n".join(log.metadata["unmapped"])
    for part in (
        "9 of 15 rows are bad and were left out",
        "first 'maybe' in row 3",
        "'id' is empty in 1 rows, first row 5",
        "first 'cheap' in row 6",
        "'image' in row 7 holds an address",
        "2 (id, option) pairs are duplicate",
        "1 ids disagree with themselves across options",
        "2 of 4 ids lack some of the 2 options",
    ):
        assert part in told, part
    with pytest.raises(DataError, match="no row is left, all 1 are bad"):
        read_table(write(tmp_path, "id,question,option,correct\n1,q,s,7\n"), skip_bad=True)


def test_lines_that_are_no_rows_are_left_out_and_told(tmp_path: Path) -> None:
    text = "id,question,option,correct\n1,q,s,1\n2,why, then?,s,1\n3,q,s,0\n"
    with pytest.raises(DataError, match="more cells"):
        read_table(write(tmp_path, text))
    log = read_table(write(tmp_path, text), skip_bad=True)
    assert log.ids == ("1", "3")
    assert any("1 lines cannot be read and were left out (line 3 has 5" in one
               for one in log.metadata["unmapped"])  # fmt: skip
    row = '{"id": "%s", "question": "q", "option": "s", "correct": 1}'
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join([row % 1, '{"id": "2", "ques', "[1]", row % 4]))
    with pytest.raises(DataError, match="line 2"):
        read_table(path)
    log = read_table(path, skip_bad=True)
    assert log.ids == ("1", "4")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["1", "0", "2", "maybe"]), st.sampled_from(["1", "-1", "x"])),
        min_size=1,
        max_size=12,
    )
)
def test_exactly_the_good_rows_stay(tmp_path_factory, cells: list[tuple[str, str]]) -> None:
    lines = ["id,question,option,correct,cost"]
    lines += [f"{n},q,s,{right},{cost}" for n, (right, cost) in enumerate(cells)]
    path = write(tmp_path_factory.mktemp("t"), "\n".join(lines))
    good = [str(n) for n, (right, cost) in enumerate(cells) if right in "01" and cost == "1"]
    if good:
        assert read_table(path, skip_bad=True).ids == tuple(good)
    else:
        with pytest.raises(DataError, match="no row is left"):
            read_table(path, skip_bad=True)


def test_one_image_for_every_question_of_pope_is_told(tmp_path: Path) -> None:
    lines = ["id,question,option,correct,image,dataset"]
    lines += [f"{n},q,s,1,POPE/{n}.jpg,{'POPE' if n < 30 else 'MMStar'}" for n in range(60)]
    told = read_table(write(tmp_path, "\n".join(lines))).metadata["unmapped"]
    (warning,) = [one for one in told if "several questions about an image" in one]
    assert warning.startswith("POPE asks") and "its 30 questions are in 30 groups" in warning


# --- BlindTest -------------------------------------------------------------------------------


def record(**changes: object) -> dict[str, object]:
    scales = [
        {"name": "1155px", "pixels": 1334025, "correct": True},
        {"name": "384px", "pixels": 147456, "correct": False},
        {"name": "769px", "pixels": 591361, "correct": True},
    ]
    base = {
        "id": "circles-0000/touching/m1",
        "group": "circles-0000",
        "dataset": "circles",
        "model": "m1",
        "image": "images/circles-0000.png",
        "question": "Touching?",
        "scales": scales,
    }
    return {**base, **changes}


def blindtest(folder: Path, *records: object) -> Path:
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records)
    (folder / "oracle.jsonl").write_text(text)
    return folder


def test_blindtest_record(tmp_path: Path) -> None:
    other = record(id="circles-0000/touching/m2", model="m2")
    folder = blindtest(tmp_path, record(), "", other)
    log = read_blindtest(folder)
    assert log.options == ("384px", "768px", "1152px")
    assert log.cost_unit == "pixels"
    assert log.scores.tolist() == [[0, 1, 1]] * 2
    assert log.costs.tolist() == [[147456, 591361, 1334025]] * 2
    assert list(log.datasets) == ["circles/m1", "circles/m2"]
    assert list(log.groups) == ["circles-0000"] * 2
    assert log.chance.tolist() == [1 / 2, 1 / 2]
    assert read_blindtest(folder, model="m2").ids == ("circles-0000/touching/m2",)


@pytest.mark.parametrize(
    "bad", ["{", "[]", record(scales=[]), {"id": "x", "model": "m"}, record(scales=[1, 2, 3])]
)
def test_bad_blindtest_records_name_their_line(tmp_path: Path, bad: object) -> None:
    with pytest.raises(DataError, match="line 2 is not a BlindTest record"):
        read_blindtest(blindtest(tmp_path, record(), bad))


def test_blindtest_folder_and_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="oracle.jsonl cannot be read"):
        read_blindtest(tmp_path)
    with pytest.raises(DataError, match="Unknown BlindTest model 'gpt4o'. Did you mean 'gpt-4o'"):
        read_blindtest(blindtest(tmp_path, record(model="gpt-4o")), model="gpt4o")


@pytest.mark.skipif(not BLINDTEST.is_dir(), reason="the BlindTest data are not here")
def test_the_real_log() -> None:
    log = read_blindtest(BLINDTEST)
    assert (len(log), log.n_gaps, len(set(log.groups))) == (6592, 0, 824)
    assert len(set(log.datasets)) == 8
    raw = [json.loads(line) for line in (BLINDTEST / "oracle.jsonl").read_text().splitlines()]
    right = [[scale["correct"] for scale in r["scales"]] for r in raw]
    np.testing.assert_array_equal(log.scores, np.array(right, dtype=float))
    assert all((BLINDTEST / image).is_file() for image in set(log.images))
    one = read_blindtest(BLINDTEST, model="gpt-4o")
    assert len(one) == 1648


def test_what_answers_took_lands_in_the_log(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "id,question,option,correct,cost,prompt_tokens,image_tokens,cached_tokens,answer_tokens,"
        "seconds,pixels\n"
        "1,what,a,1,2,600,500,100,7,0.5,1024\n"
        "1,what,b,0,3,90,many,,1.5,,0\n",
    )
    log = read_table(path)
    for name, expected in {
        "image_tokens": [500, np.nan],
        "text_tokens": [100, np.nan],
        "cached_tokens": [100, np.nan],
        "answer_tokens": [7, np.nan],
        "seconds": [0.5, np.nan],
        "pixels": [1024, np.nan],
    }.items():
        np.testing.assert_array_equal(log.laid_out(name)[0], expected, err_msg=name)
    assert log.frame["image_tokens_from"].tolist() == ["reported", None]
    told = "\n".join(log.metadata["unmapped"])
    assert "'image_tokens': 1 of 2 cells are not whole numbers, first 'many' in row 2" in told
    assert "not used" not in told


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 3), st.sampled_from(("small", "large"))),
        st.tuples(st.integers(0, 900), st.integers(0, 90), st.integers(0, 50)),
        min_size=1,
    )
)
def test_prices_of_tokens_are_the_costs(tmp_path_factory, cells: dict) -> None:
    prices = {"small": Prices(input=0.1, output=0.4), "large": Prices(input=2, output=9, cached=1)}
    prices = {name: prices[name] for name in prices if any(o == name for _, o in cells)}
    lines = ["id,question,option,correct,prompt_tokens,answer_tokens,cached_tokens"]
    lines += [f"q{i},what,{o},1,{p},{a},{min(c, p)}" for (i, o), (p, a, c) in cells.items()]
    log = read_table(write(tmp_path_factory.mktemp("t"), "\n".join(lines)), prices=prices)
    assert log.cost_unit == "USD"
    for (number, option), (prompt, answer, cached) in cells.items():
        cached = min(cached, prompt)
        expected = (
            (prompt * 0.1 + answer * 0.4) / 1e6
            if option == "small"
            else ((prompt - cached) * 2 + cached * 1 + answer * 9) / 1e6
        )
        cell = log.ids.index(f"q{number}"), log.options.index(option)
        assert log.costs[cell] == pytest.approx(expected)
        assert log.laid_out("price")[cell] == pytest.approx(expected)


def test_costs_of_a_table_by_option_quantity_and_column(tmp_path: Path) -> None:
    text = "id,question,option,correct,cost,seconds,paid\n"
    path = write(tmp_path, text + "1,what,9,1,5,0.5,3\n1,what,36,1,6,0.25,\n2,what,9,,1,,2\n")
    log = read_table(path, costs={"36": 7.0, "9": 8.0}, cost_unit="GB")
    assert log.options == ("36", "9") and log.costs[0].tolist() == [7, 8] and log.cost_unit == "GB"
    assert "by the numbers in their names they would be 9, 36" in "\n".join(
        log.metadata["unmapped"]
    )
    log = read_table(path, costs="seconds")
    assert log.options == ("36", "9") and log.costs[0].tolist() == [0.25, 0.5]
    assert log.cost_unit == "seconds" and np.isnan(log.costs[1]).all()
    with pytest.raises(DataError, match="'cost' must be a number.*1 rows have none"):
        read_table(path, costs="paid")
    assert read_table(path, costs="paid", skip_bad=True).options == ("9",)
    with pytest.raises(DataError, match="'cost': 3 of 3 answers|no count of their prompt"):
        read_table(path, prices={"9": Prices(), "36": Prices(output=1.0)})
    with pytest.raises(DataError, match="asked for twice"):
        read_table(path, costs="paid", columns={"cost": "seconds"})
