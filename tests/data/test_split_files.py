from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.splits.assignment import assigned_split, read_assignment, shares_in_order
from m3router.data.splits.split import SPLITS, Split, split_by_group

IDS = [f"e{i}" for i in range(40)]
GROUPS = [f"g{i // 2}" for i in range(40)]


@given(st.lists(st.integers(1, 50), min_size=4, max_size=4), st.permutations(range(4)))
def test_shares_are_read_in_any_order(counts, order):
    shares = [count / sum(counts) for count in counts]
    given = {SPLITS[place]: shares[place] for place in order}
    assert shares_in_order(given) == tuple(shares)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fit": 0.5, "tune": 0.1, "calibrate": 0.2, "test": 0.3}, "sum to 1.*1.1"),
        ({"fit": 0.5, "tune": 0.3, "test": 0.2}, "lack calibrate"),
        ({"fit": 0.5, "tune": 0.1, "calib": 0.2, "test": 0.2}, "Did you mean 'calibrate'"),
        ({"fit": 1.2, "tune": -0.4, "calibrate": 0.1, "test": 0.1}, "positive"),
        ({"fit": float("nan"), "tune": 0.4, "calibrate": 0.1, "test": 0.1}, "positive"),
        ({"": 0.5}, "Unknown part"),
        ({}, "lack fit, tune, calibrate, test"),
    ],
)
def test_bad_shares_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        shares_in_order(given)


def by_group(parts):
    return {f"g{i}": part for i, part in enumerate(parts)}


GIVEN = by_group(["fit"] * 8 + ["tune"] * 4 + ["calibrate"] * 4 + ["test"] * 4)


def test_a_given_assignment_is_kept_by_group_or_by_id():
    grouped = assigned_split(IDS, GROUPS, GIVEN)
    by_id = assigned_split(
        IDS, GROUPS, {name: GIVEN[group] for name, group in zip(IDS, GROUPS, strict=True)}
    )
    for name in SPLITS:
        rows = [row for row, group in enumerate(GROUPS) if GIVEN[group] == name]
        assert grouped.part(name).tolist() == by_id.part(name).tolist() == rows
    assert grouped.fingerprint == by_id.fingerprint
    assert grouped.fractions == (0.4, 0.2, 0.2, 0.2)


@given(st.integers(0, 10**6), st.integers(3, 19))
def test_train_is_divided_by_group_and_test_is_kept(seed, train):
    given_parts = by_group(["train"] * train + ["test"] * (20 - train))
    split = assigned_split(IDS, GROUPS, given_parts, seed=seed)
    split.prove_disjoint(GROUPS)
    assert split.test.tolist() == list(range(2 * train, 40))
    assert sorted(np.concatenate([split.part(name) for name in SPLITS])) == list(range(40))
    assert all(len(split.part(name)) for name in SPLITS)
    again = assigned_split(IDS, GROUPS, given_parts, seed=seed)
    assert again.fingerprint == split.fingerprint


def test_train_is_divided_in_proportion_to_the_shares():
    ids = [f"e{i}" for i in range(1000)]
    parts = {name: "train" if i < 900 else "test" for i, name in enumerate(ids)}
    split = assigned_split(ids, ids, parts, shares=(0.6, 0.2, 0.1, 0.1))
    assert [len(split.part(name)) for name in SPLITS] == [600, 200, 100, 100]


def test_images_in_two_parts_are_named():
    parts = {name: GIVEN[group] for name, group in zip(IDS, GROUPS, strict=True)}
    parts["e1"] = "test"  # its image is g0, as e0's
    with pytest.raises(DataError, match=r"1 groups .*g0 \(fit and test\)"):
        assigned_split(IDS, GROUPS, parts)


def test_examples_without_a_part_are_named():
    parts = {group: part for group, part in GIVEN.items() if group != "g3"}
    with pytest.raises(DataError, match="does not assign 2 of 40.*e6, e7"):
        assigned_split(IDS, GROUPS, parts)


@pytest.mark.parametrize("missing", SPLITS)
def test_an_empty_part_is_refused(missing):
    other = "fit" if missing != "fit" else "tune"
    parts = {group: other if part == missing else part for group, part in GIVEN.items()}
    with pytest.raises(DataError, match=f"leaves {missing} empty"):
        assigned_split(IDS, GROUPS, parts)


def test_too_few_images_to_divide_are_refused():
    with pytest.raises(DataError, match="2 groups cannot be divided"):
        assigned_split(IDS, GROUPS, by_group(["train"] * 2 + ["test"] * 18))


def written(folder: Path, kind: str, key: str, value: str) -> Path:
    path = folder / f"parts.{kind}"
    rows = pd.DataFrame({key: list(GIVEN), value: list(GIVEN.values()), "more": 1})
    if kind == "csv":
        rows.to_csv(path, index=False)
    elif kind == "parquet":
        rows.to_parquet(path)
    else:
        path.write_text(json.dumps(GIVEN))
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_files_of_every_kind_are_read(tmp_path, kind):
    assert read_assignment(written(tmp_path, kind, "group", "split")) == GIVEN
    if kind != "json":
        path = written(tmp_path, kind, "id", "official")
        assert read_assignment(path, column="official") == GIVEN
        with pytest.raises(DataError, match="split or part.*official.*--split-column"):
            read_assignment(path)


def test_a_recorded_split_is_an_assignment(tmp_path):
    split = split_by_group(GROUPS, seed=4)
    split.write(tmp_path / "split.json")
    again = assigned_split(IDS, GROUPS, read_assignment(tmp_path / "split.json"))
    assert again.fingerprint == split.fingerprint
    again.write(tmp_path / "again.json")
    assert Split.read(tmp_path / "again.json", GROUPS).fingerprint == split.fingerprint


def test_an_imported_table_with_a_row_per_option_serves(tmp_path):
    path = tmp_path / "answers.csv"
    lines = [f"{name},{option},{part}" for name, part in GIVEN.items() for option in "ab"]
    path.write_text("\n".join(["id,option,split", *lines]))
    assert read_assignment(path) == GIVEN
    path.write_text("id,option,split\ng0,a,fit\ng0,b,test\n")
    with pytest.raises(DataError, match="'g0' into 'fit' and into 'test'"):
        read_assignment(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,split\ng0,tset\n", "Did you mean 'test'"),
        ("a.csv", "id,split\ng0,\n", "Unknown part ''"),
        ("a.csv", "id,split\n", "assigns nothing"),
        ("a.csv", "", "is not a readable .csv table"),
        ("a.json", "[1]", "one JSON object"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"g0": 3}', "Unknown part '3'"),
        ("a.parquet", "no", "is not a readable .parquet table"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_assignment(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "none.json", "none.parquet"])
def test_missing_files_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        read_assignment(tmp_path / name)
