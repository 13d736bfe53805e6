"""Which column of a given split is read: never a silent guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from m3router.data.errors import DataError
from m3router.data.importers.table import COLUMNS, read_table
from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.assignment import Covered, assigned_split, read_assignment

COUNT = 20
IDS = [str(number) for number in range(COUNT)]
PARTS = ["train" if number % 5 else "test" for number in range(COUNT)]


def answers(**changes: Any) -> pd.DataFrame:
    """A log's own table, in which ``id`` numbers the rows and ``sample_id`` the questions."""
    numbers = [number for number in range(COUNT) for _ in "ab"]
    columns = {
        "id": range(2 * COUNT),
        "sample_id": numbers,
        "question": [f"Which {number}?" for number in numbers],
        "option": ["weak", "strong"] * COUNT,
        "correct": 1,
        "part": [PARTS[number] for number in numbers],
    }
    return pd.DataFrame({**columns, **changes})


def written(folder: Path, table: pd.DataFrame, name: str = "t.csv") -> Path:
    path = folder / name
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return path


def covered_by(log: OracleLog, **columns: str) -> Covered:
    recorded = columns or log.metadata.get(COLUMNS, {})
    return Covered(
        ids=log.ids, groups=list(log.groups), columns=recorded, questions=list(log.questions)
    )


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_column_of_the_import_is_remembered(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, answers(), name)
    log = read_table(path, columns={"id": "sample_id"})
    assert log.metadata[COLUMNS]["id"] == "sample_id"
    found = read_assignment(path, covered=covered_by(log))
    assert covered_by(log).parts(found) == PARTS
    split = assigned_split(log.ids, log.groups, found)
    assert [log.ids[row] for row in split.test] == [one for one in IDS if int(one) % 5 == 0]


def test_two_columns_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    """Logs of earlier versions, and labelled ones, do not remember a column."""
    path = written(tmp_path, answers())
    covered = Covered(ids=IDS, groups=IDS)
    with pytest.raises(DataError, match="'id' and 'sample_id'.*differently.*--split-id"):
        read_assignment(path, covered=covered)
    assert covered.parts(read_assignment(path, key="sample_id", covered=covered)) == PARTS
    # What the columns agree in needs no choice.
    path = written(tmp_path, answers(part="test"))
    assert set(covered.parts(read_assignment(path, covered=covered))) == {"test"}


def test_another_table_than_the_logs_own_is_doubted(tmp_path: Path) -> None:
    log = read_table(written(tmp_path, answers(id=answers()["sample_id"])))
    assert log.metadata[COLUMNS]["id"] == "id"
    official = pd.DataFrame(
        {"id": range(COUNT), "uid": list(reversed(range(COUNT))), "split": PARTS}
    )
    with pytest.raises(DataError, match="'id' and 'uid'"):
        read_assignment(written(tmp_path, official, "o.csv"), covered=covered_by(log))
    plain = written(tmp_path, official.drop(columns="uid"), "o.csv")
    assert covered_by(log).parts(read_assignment(plain, covered=covered_by(log))) == PARTS


def test_a_column_by_which_other_questions_are_asked_is_refused(tmp_path: Path) -> None:
    """The ids are row numbers here, and no other column holds those of the log."""
    log = read_table(written(tmp_path, answers(id=answers()["sample_id"])))
    table = answers(sample_id=[f"s{number}" for number in range(COUNT) for _ in "ab"])
    path = written(tmp_path, table, "o.csv")
    with pytest.raises(DataError, match="by its column 'id', 19 of 20 examples have another quest"):
        read_assignment(path, covered=covered_by(log), column="part")
    assert read_assignment(path, covered=covered_by(log), column="part", key="id")


def test_ids_that_do_not_cover_the_log_are_told_with_their_column(tmp_path: Path) -> None:
    table = answers(id=[f"row{number}" for number in range(2 * COUNT)])
    path, covered = written(tmp_path, table), Covered(ids=IDS, groups=IDS)
    with pytest.raises(DataError, match="'id' .'row0', 'row1'.* not assign 20 of 20") as error:
        read_assignment(path, covered=covered)
    assert "Its column 'sample_id' covers the log" in str(error.value)
    with pytest.raises(DataError, match="column 'question'"):
        read_assignment(path, covered=covered, key="question")
    with pytest.raises(DataError, match="no column 'sample'; it has"):
        read_assignment(path, covered=covered, key="sample")
    path = written(tmp_path, table.drop(columns="id"))
    with pytest.raises(DataError, match=r"needs a column of id.*Its column 'sample_id' covers"):
        read_assignment(path, covered=covered)


def test_groups_are_read_by_the_column_they_were_imported_from(tmp_path: Path) -> None:
    scenes = [f"s{number // 2}" for number in range(COUNT) for _ in "ab"]
    table = answers(scene=scenes, id=answers()["sample_id"])
    log = read_table(written(tmp_path, table), columns={"group": "scene"})
    official = pd.DataFrame({"scene": [f"s{n}" for n in range(10)], "split": ["fit", "test"] * 5})
    found = read_assignment(written(tmp_path, official, "o.csv"), covered=covered_by(log))
    assert covered_by(log).parts(found) == ["fit", "fit", "test", "test"] * 5
    # 'group' covers the log too, and says otherwise than 'id' does.
    both = pd.DataFrame({"id": IDS, "group": [f"s{n // 2}" for n in range(COUNT)], "split": "fit"})
    both.loc[0:1, "split"] = "test"
    both.loc[2, "group"] = "s0"
    both.loc[3, "group"] = "s0"
    both.loc[0:1, "group"] = "s1"
    with pytest.raises(DataError, match="'id' and 'group'"):
        read_assignment(
            written(tmp_path, both, "o.csv"),
            covered=Covered(ids=log.ids, groups=list(log.groups)),
        )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"split": ["fit", "fit"], "part": ["fit", "test"]}, "'split' and 'part'.*--split-column"),
        ({"split": ["fit", None]}, "Unknown part ''"),
        ({"split": ["fit", "Test"]}, "Did you mean 'test'"),
        ({"split": ["fit", "test"], "id": ["a", None]}, "the column 'id' is empty in row 2"),
        ({"split": ["fit", "test"], "id": [[1], [2]]}, "'id' in row 1 holds a list of 1 values"),
        ({"split": ["fit", "test"], "example_id": ["b", "a"]}, "'id' and 'example_id'"),
    ],
)
def test_tables_that_can_be_read_in_two_ways(
    tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    path = written(tmp_path, pd.DataFrame({"id": ["a", "b"], **columns}), "t.parquet")
    with pytest.raises(DataError, match=message):
        read_assignment(path)


def test_a_column_of_other_parts_does_not_hide_ours(tmp_path: Path) -> None:
    """Benchmarks have a column 'split' of their own, such as 'dev'."""
    table = pd.DataFrame({"id": ["a", "b"], "split": "dev", "part": ["fit", "test"]})
    assert read_assignment(written(tmp_path, table)) == {"a": "fit", "b": "test"}


def test_spaces_and_numbers_do_not_separate(tmp_path: Path) -> None:
    table = pd.DataFrame({" id": ["1.0", " 2.0"], "split ": ["fit ", " test"]})
    covered = Covered(ids=["1", "2"], groups=["g", "h"])
    assert covered.parts(read_assignment(written(tmp_path, table), covered=covered)) == [
        "fit",
        "test",
    ]
    earlier = Covered(ids=["1.0", "2.0"], groups=["g", "h"])  # as CSV was read before
    assert earlier.parts(read_assignment(tmp_path / "t.csv", covered=earlier)) == ["fit", "test"]


def test_json_is_an_object_or_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"id": 1, "split": "fit"}, {"id": 2.0, "split": "test"}]))
    assert read_assignment(path) == {"1": "fit", "2": "test"}
    path.write_text(json.dumps({" Cafe\u0301": "fit", "b": " test "}))
    covered = Covered(ids=["Caf\u00e9", "b"], groups=["g", "h"])
    assert covered.parts(read_assignment(path, covered=covered)) == ["fit", "test"]
    path.write_text('{"a": "fit", "a": "test"}')
    with pytest.raises(DataError, match="the field 'a' twice"):
        read_assignment(path)
    path.write_text('{"a": "fit"}')
    for words in ({"column": "part"}, {"key": "uid"}):
        with pytest.raises(DataError, match="is JSON and has no columns"):
            read_assignment(path, **words)
