"""One reader of tables: every format, every type of cell, and importers and splits that agree."""

from __future__ import annotations

import datetime
import gzip
import importlib.util
import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.importers.table import COLUMNS, read_table
from m3router.data.importers.vlmevalkit import read_vlmevalkit
from m3router.data.splits.assignment import PARTS, Covered, read_assignment
from m3router.data.tables.cells import Nested, key_of, keys_of, text_of
from m3router.data.tables.table import read_cells

Columns = dict[str, list[Any]]
WORDS = ["None", "NA", "N/A", "nan", "NaN", "null", "NULL", "<NA>", "#N/A", "n/a", "-nan", "inf"]
HAS_XLSX = importlib.util.find_spec("openpyxl") is not None


def as_csv(path: Path, columns: Columns, **options: Any) -> Path:
    pd.DataFrame(columns, dtype=object).to_csv(path, index=False, **options)
    return path


def csv(folder: Path, columns: Columns) -> Path:
    return as_csv(folder / "t.csv", columns)


def tsv(folder: Path, columns: Columns) -> Path:
    return as_csv(folder / "t.tsv", columns, sep="\t")


def utf16(folder: Path, columns: Columns) -> Path:
    return as_csv(folder / "t.csv", columns, encoding="utf-16")


def bom_crlf(folder: Path, columns: Columns) -> Path:
    return as_csv(folder / "t.csv", columns, encoding="utf-8-sig", lineterminator="\r\n")


def packed(folder: Path, columns: Columns) -> Path:
    (folder / "t.csv.gz").write_bytes(gzip.compress(csv(folder, columns).read_bytes()))
    return folder / "t.csv.gz"


def trailing_commas(folder: Path, columns: Columns) -> Path:
    return as_csv(folder / "t.csv", {**columns, "": [None] * len(columns["id"])})


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def records(folder: Path, columns: Columns) -> Path:
    path = folder / "t.json"
    path.write_text(json.dumps(rows_of(columns), default=str), encoding="utf-8")
    return path


def lines(folder: Path, columns: Columns) -> Path:
    path = folder / "t.jsonl"
    text = "\n".join(json.dumps(row, default=str, ensure_ascii=False) for row in rows_of(columns))
    path.write_text(text, encoding="utf-8")
    return path


def parquet(folder: Path, columns: Columns) -> Path:
    pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=3)
    return folder / "t.parquet"


def categories(folder: Path, columns: Columns) -> Path:
    encoded = {name: pa.array(column).dictionary_encode() for name, column in columns.items()}
    pq.write_table(pa.table(encoded), folder / "t.parquet")
    return folder / "t.parquet"


def large_text(folder: Path, columns: Columns) -> Path:
    table = pa.table(columns)
    kinds = [pa.large_string() if pa.types.is_string(f.type) else f.type for f in table.schema]
    named = pa.schema(list(zip(table.column_names, kinds, strict=True)))
    pq.write_table(table.cast(named), folder / "t.parquet")
    return folder / "t.parquet"


def pandas_index(folder: Path, columns: Columns) -> Path:
    pd.DataFrame(columns).set_index("id").to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def multi_index(folder: Path, columns: Columns) -> Path:
    pd.DataFrame(columns).set_index(["id", "option"]).to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def xlsx(folder: Path, columns: Columns) -> Path:
    pd.DataFrame(columns, dtype=object).to_excel(folder / "t.xlsx", index=False)
    return folder / "t.xlsx"


Writer = Callable[[Path, Columns], Path]
TEXTUAL = [csv, tsv, utf16, bom_crlf, packed, trailing_commas]
TYPED = [records, lines, parquet, categories, large_text, pandas_index, multi_index]
WRITERS: list[Writer] = [*TEXTUAL, *TYPED]
READERS: list[Writer] = [csv, lines, parquet]
"""One for each way that cells are read in; the other writers differ in what is around them."""


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
COLUMNS_OF_IDS = st.one_of(
    st.lists(st.one_of(texts, st.sampled_from(WORDS)).filter(str.strip)),
    st.lists(
        st.sampled_from(["007", "7", "7.0", "07.0", " 8", "8 ", "1e5", "1,000", "TRUE", "no"])
    ),
    st.lists(st.integers(-(2**62), 2**62)),
    st.lists(st.integers(-50, 50).map(float)),
    st.lists(st.integers(-50, 50).map(lambda number: number / 4)),
    st.lists(st.decimals(-99, 99, places=2)),
    st.lists(st.booleans()),
    st.lists(st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 1, 1))),
)


def log_columns(ids: list[Any], parts: list[str]) -> Columns:
    """Two rows for each id, one behind all the others."""
    return {
        "id": ids * 2,
        "question": [f"Which, {place}?" for place in range(len(ids))] * 2,
        "option": ["weak"] * len(ids) + ["strong"] * len(ids),
        "correct": [place % 2 for place in range(2 * len(ids))],
        "split": parts * 2,
    }


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(ids=COLUMNS_OF_IDS, data=st.data())
def test_whatever_import_reads_split_reads_the_same_way(
    tmp_path_factory: pytest.TempPathFactory, ids: list[Any], data: st.DataObject
) -> None:
    distinct = list({key_of(str(text_of(one))): one for one in ids}.values())
    assume(distinct and len(set(keys_of([str(one) for one in distinct]))) == len(distinct))
    part = st.sampled_from(PARTS)
    parts = data.draw(st.lists(part, min_size=len(distinct), max_size=len(distinct)))
    for writer in WRITERS:
        path = writer(tmp_path_factory.mktemp(writer.__name__), log_columns(distinct, parts))
        log = read_table(path)
        assert len(log) == len(distinct), writer
        assert log.n_gaps == 0, writer
        covered = Covered(ids=log.ids, groups=list(log.groups), columns=log.metadata[COLUMNS])
        assignment = read_assignment(path, covered=covered)
        assert covered.parts(assignment) == parts, writer
        assert set(assignment) == set(log.ids), writer
        if writer is not multi_index:
            assert list(log.questions) == [f"Which, {place}?" for place in range(len(distinct))]


# Types make no difference: a CSV table of the same reads the same.
@pytest.mark.parametrize("writer", [csv, *TYPED], ids=lambda writer: writer.__name__)
@pytest.mark.parametrize(
    ("given_ids", "read"),
    [
        ([1.0, 2.0, 12.0], ["1", "2", "12"]),
        ([0.5, 1.0, 1.5], ["0.5", "1", "1.5"]),
        ([2**53 + 1, 2**62], [str(2**53 + 1), str(2**62)]),
        (["007", " 8 ", "None"], ["007", "8", "None"]),
        (["1.0", "2.0", "3.0"], ["1", "2", "3"]),  # a column of floats that went through CSV
        (["1.0", "2.10", "x"], ["1.0", "2.10", "x"]),
        (["Cafe\u0301", "b"], ["Caf\u00e9", "b"]),
        ([True, False], ["True", "False"]),
    ],
)
def test_identifiers(tmp_path: Path, writer: Writer, given_ids: list[Any], read: list[str]) -> None:
    columns = log_columns(given_ids, ["fit"] * len(given_ids))
    assert list(read_table(writer(tmp_path, columns)).ids) == read


@pytest.mark.skipif(not HAS_XLSX, reason="openpyxl is not here")
def test_workbooks_read_as_other_tables(tmp_path: Path) -> None:
    columns = log_columns([1, "007", " b ", 2.0, "None"], ["fit", "tune", "train", "test", "fit"])
    log = read_table(xlsx(tmp_path, columns))
    assert log.ids == ("1", "007", "b", "2", "None")
    covered = Covered(ids=log.ids, groups=log.ids, columns=log.metadata[COLUMNS])
    found = read_assignment(tmp_path / "t.xlsx", covered=covered)
    assert covered.parts(found) == columns["split"][:5]


@pytest.mark.parametrize(
    ("writer", "word"),
    [
        *itertools.product(READERS, WORDS),
        *itertools.product([one for one in WRITERS if one not in READERS], ["NaN", "null"]),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_no_word_is_missing(tmp_path: Path, writer: Writer, word: str) -> None:
    columns = {**log_columns([word, "b"], ["fit", "test"]), "answer": [word, "", word, None]}
    columns["question"] = [word, "q"] * 2
    columns["option"] = [word, word, "x", "x"]
    if writer is multi_index:  # then it is one of the option's names
        columns["dataset"] = [word] * 4
    log = read_table(writer(tmp_path, columns))
    assert (log.ids, log.options) == ((word, "b"), (word, "x"))
    assert list(log.questions) == [word, "q"]
    answers = log.frame["answer"].tolist()
    assert answers[:2] == [word, word]
    assert answers[2] == ("" if writer in TYPED else None)
    assert answers[3] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (float("nan"), None),
        (np.float32(0.1), "0.1"),
        (np.float64(3), "3"),
        (np.int64(3), "3"),
        (np.bool_(True), "True"),
        (Decimal("12.00"), "12"),
        (Decimal("12.50"), "12.50"),
        (pd.NA, None),
        (pd.NaT, None),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (pd.Timestamp("2024-01-02"), "2024-01-02"),  # Excel's dates are all such
        (datetime.datetime(2024, 1, 2, 10, 30), "2024-01-02 10:30:00"),
        (0, "0"),
        ("", ""),
    ],
)
def test_cells(value: object, text: str | None) -> None:
    assert text_of(value) == text


def test_nested_cells_say_what_they_are() -> None:
    kinds = [text_of(value).kind for value in ([1, 2], {"bytes": b"", "path": "a"}, b"abc")]  # type: ignore[union-attr]
    assert kinds == ["a list of 2 values", "an object with the fields bytes, path", "3 bytes"]
    assert isinstance(text_of(np.zeros(3)), Nested)


def test_arrow_types(tmp_path: Path) -> None:
    stamps = pa.array([datetime.datetime(2024, 1, 2, 3), None])
    table = pa.table(
        {
            "f32": pa.array([0.1, 2.0], pa.float32()),
            "dec": pa.array([Decimal("1.00"), Decimal("2.50")]),
            "null": pa.nulls(2),
            "ints": pa.array([2**60 + 1, None]),
            "time": stamps,
            "bin": pa.array([b"a", None]),
            "list": pa.array([[1], None]),
            "large": pa.array([" a ", None], pa.large_string()),
            "dict": pa.array([3, None]).dictionary_encode(),
            "a.b": pa.array(["x", "y"]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_cells(tmp_path / "t.parquet")
    assert found.names == tuple(table.column_names)
    assert found.cells("f32") == ["0.1", "2"]
    assert found.cells("dec") == ["1", "2.50"]
    assert found.cells("null") == [None, None]
    assert found.cells("ints") == [str(2**60 + 1), None]  # pandas would make it a float
    assert found.cells("time") == ["2024-01-02 03:00:00", None]
    assert found.cells("bin") == [Nested(b"a"), None]
    assert found.cells("list") == [Nested([1]), None]
    assert found.cells("large") == ["a", None]
    assert found.cells("dict") == ["3", None]
    assert found.cells("a.b") == ["x", "y"]


def test_identifiers_that_lost_their_last_digits_are_refused(tmp_path: Path) -> None:
    columns = log_columns([2.0**53 + 2, 1.0], ["fit", "test"])
    for writer in (parquet, records):
        with pytest.raises(DataError, match="column 'id': 9007199254740994 is a floating-point"):
            read_table(writer(tmp_path, columns))


@pytest.mark.parametrize("pair", [("q1", " q1"), ("\u00e9", "e\u0301"), ("1", "1.0")])
def test_identifiers_that_read_alike_are_reported(tmp_path: Path, pair: tuple[str, str]) -> None:
    for writer in (csv, parquet, records):
        columns = log_columns(list(pair), ["fit", "test"])
        with pytest.raises(DataError, match=r"2 \(id, option\) pairs are duplicate, first"):
            read_table(writer(tmp_path, columns))
        with pytest.raises(DataError, match="into 'fit' and into 'test'"):
            read_assignment(writer(tmp_path, columns))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,note\n1,Gr\xfc\xdfe\n", "line 2 holds the byte 0xFC, which is not UTF-8"),
        ("a.csv", "id,note\n1,x\n".encode("utf-16-le"), "as UTF-16 without its mark does"),
        ("a.csv", b'id,note\n1,"x', "line 2: unexpected end of data"),
        ("a.csv", b'id,note\n1,"x"y\n', "line 2: ',' expected"),
        ("a.csv", b"id,note\n1,x\n2,x,y\n", r"more cells than .* \(line 3: 3 and 2\)"),
        ("a.csv", b"\xd0\xcf\x11\xe0 a workbook", r"of the old kind \(.xls\). Save it as .xlsx"),
        ("a.json", b'{"a": [{"id": 1}], "b": [{"id": 2}]}', r"2 lists of objects \(a, b\)"),
        ("a.csv", b"", "it is empty"),
        ("a.json", b'{"id": {"0": 1}}', "a list of rows is needed"),
        ("a.json", b'[{"id": 1, "id": 2}]', "the field 'id' twice"),
        ("a.jsonl", b'{"id": 1}\n{"id": \n', "line 2: "),
        ("a.jsonl", b'{"id": "\\ud800"}\n', "line 1: it holds half of a surrogate pair"),
        ("a.parquet", b"no", "is not a readable .parquet table"),
        ("a.csv.gz", b"no", "is not a readable .gz file"),
        ("a.parquet.gz", b"no", "must be one of .*, got '.parquet.gz'"),
        ("a.pkl", b"no", "must be one of .csv, .tsv, .*, got '.pkl'"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for reader in (read_cells, read_table, read_assignment):
        if reader is read_assignment and name == "a.json":
            continue  # an object is an assignment
        with pytest.raises(DataError, match=message):
            reader(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_vlmevalkit({"1": tmp_path / name})


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",id , note,id,,\n0,a,x,b,,\n1,c,y,d,,\n\n,,,,,\n")
    table = read_cells(path)
    assert table.names == ("Unnamed: 0", "id", "note", "id")
    assert (len(table), table.cells("note"), table.cells("Unnamed: 0")) == (
        2,
        ["x", "y"],
        ["0", "1"],
    )
    with pytest.raises(DataError, match="2 columns called 'id'"):
        table.cells("id")
    with pytest.raises(DataError, match="no column 'ids'; it has"):
        table.cells("ids")


def test_numbers_are_read_one_way(tmp_path: Path) -> None:
    columns = log_columns(["a", "b"], ["fit", "test"])
    columns["correct"] = [" TRUE", "no", "1e0", ".5"]
    assert np.nansum(read_table(csv(tmp_path, columns)).scores) == 2.5
    for bad in ("1,0", "1_0", "nan", "None", "50%", "\u0661"):
        with pytest.raises(DataError, match="'correct' must be in .*first .* in row 1"):
            read_table(csv(tmp_path, {**columns, "correct": [bad, "1", "1", "1"]}))
    for bad in ("1,000.5", "1_000", "inf", "0,5"):
        with pytest.raises(DataError, match="'cost' must be a number .*separators of thousands"):
            read_table(csv(tmp_path, {**columns, "cost": [bad, "1", "1", "1"]}))


def test_a_table_with_large_cells(tmp_path: Path) -> None:
    """The csv module refuses cells of more than 131 072 characters by itself."""
    columns = {**log_columns(["a"], ["fit"]), "answer": ["x" * 300_000] * 2}
    assert read_table(csv(tmp_path, columns)).frame["answer"].str.len().tolist() == [300_000] * 2
