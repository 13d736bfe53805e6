from __future__ import annotations

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.features.table import FILE, FeatureTable


def table(n: int = 4) -> FeatureTable:
    generator = np.random.default_rng(0)
    return FeatureTable(
        ids=tuple(f"e{i}" for i in range(n)),
        blocks={"image": generator.random((n, 3)), "question": generator.random((n, 2))},
        metadata={"source": "tower-1"},
    )


def test_round_trip_is_bit_equal(tmp_path):
    original = table()
    original.write(tmp_path, params={"version": 1})
    again = FeatureTable.read(tmp_path)
    assert again.ids == original.ids
    assert list(again.blocks) == ["image", "question"]
    assert again.metadata == {"source": "tower-1"}
    for name, block in original.blocks.items():
        assert again.blocks[name].dtype == np.float32
        np.testing.assert_array_equal(again.blocks[name], block)


def test_matrix_puts_blocks_side_by_side_in_the_order_asked_for():
    features = table()
    both = features.matrix(["question", "image"])
    np.testing.assert_array_equal(both[:, :2], features.blocks["question"])
    np.testing.assert_array_equal(both[:, 2:], features.blocks["image"])
    assert features.matrix().shape == (4, 5)
    assert features.widths == {"image": 3, "question": 2}


def test_align_reorders_and_leaves_out():
    features = table()
    picked = features.align(["e3", "e1"])
    assert picked.ids == ("e3", "e1")
    np.testing.assert_array_equal(picked.blocks["image"], features.blocks["image"][[3, 1]])


def test_align_names_missing_ids():
    with pytest.raises(MismatchError, match=r"1 of 2 examples.*first missing: \['x9'\]"):
        table().align(["e0", "x9"])


def test_unknown_block_names_both_sides():
    with pytest.raises(MismatchError, match=r"\['peek'\].*'image': 3"):
        table().matrix(["peek"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_name_block_and_example(bad):
    block = np.zeros((3, 2))
    block[1, 0] = bad
    with pytest.raises(DataError, match="'image' must be finite.*'b'"):
        FeatureTable(ids=("a", "b", "c"), blocks={"image": block})


@pytest.mark.parametrize(
    ("ids", "blocks", "message"),
    [
        (("a", "a"), {"image": np.zeros((2, 1))}, "'a' comes twice"),
        (("a",), {}, "at least one block"),
        (("a",), {"image": np.zeros((2, 1))}, r"\(2, 1\)"),
        (("a",), {"image": np.zeros((1, 0))}, r"\(1, 0\)"),
        (("a",), {"image": np.zeros(1)}, r"\(1,\)"),
    ],
)
def test_misshapen_tables_are_refused(ids, blocks, message):
    with pytest.raises(DataError, match=message):
        FeatureTable(ids=ids, blocks=blocks)


def test_edited_or_truncated_file_is_refused(tmp_path):
    table().write(tmp_path)
    path = tmp_path / FILE
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (flipped, content[:-10], b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cut short or edited"):
            FeatureTable.read(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        FeatureTable.read(tmp_path)


def test_a_folder_without_features_is_refused(tmp_path):
    with pytest.raises(DataError, match="manifest"):
        FeatureTable.read(tmp_path)


def test_large_tables_are_kept_in_files_and_small_ones_in_memory(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    blocks = {name: generator.random((700, d), dtype=np.float32) for name, d in SIZES.items()}
    original = FeatureTable(ids=tuple(f"e{i}" for i in range(700)), blocks=blocks)
    original.write(tmp_path)
    expected = original.matrix(["image"], ids=["e5", "e699"])
    monkeypatch.setattr("m3router.router.features.mapped.LIMIT", 4 * 700 * SIZES["image"])
    monkeypatch.setattr("m3router.router.features.mapped.STEP", 1000)  # many parts
    again = FeatureTable.read(tmp_path)
    assert is_mapped(again.blocks["image"])
    assert not is_mapped(again.blocks["question"])
    for name in SIZES:
        np.testing.assert_array_equal(again.blocks[name], blocks[name])
    side_by_side = again.matrix()
    assert is_mapped(side_by_side)
    np.testing.assert_array_equal(side_by_side, np.hstack(list(blocks.values())))
    np.testing.assert_array_equal(again.matrix(["image"], ids=["e5", "e699"]), expected)
    reverse = again.align(tuple(reversed(again.ids)))
    np.testing.assert_array_equal(reverse.blocks["image"], blocks["image"][::-1])


SIZES = {"image": 7, "question": 3}


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def test_features_that_are_not_finite_are_found_in_any_part(monkeypatch):
    monkeypatch.setattr("m3router.router.features.mapped.STEP", 10)
    block = np.zeros((100, 3), dtype=np.float32)
    block[77, 1] = np.nan
    with pytest.raises(DataError, match="1 rows are not, first that of example 'e77'"):
        FeatureTable(ids=tuple(f"e{i}" for i in range(100)), blocks={"image": block})


def test_examples_that_are_not_in_the_table_are_refused_by_matrix_too():
    with pytest.raises(MismatchError, match="1 of 2 examples"):
        table(1).matrix(ids=["e0", "b"])
