from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.files import PARQUET
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST

OPTIONS = ("1", "9", "36")


def row(example: str, scale: str, **changes: object) -> dict[str, object]:
    return {
        "example_id": example,
        "group": f"g-{example}",
        "dataset": "toy",
        "question": f"What is {example}?",
        "image": f"{example}.png",
        "scale": scale,
        "cost": float(scale),
        "score": 1.0,
        "chance": 0.25,
        **changes,
    }


def grid(*examples: str) -> list[dict[str, object]]:
    return [row(example, scale) for example in examples for scale in OPTIONS]


def build(rows: list[dict[str, object]]) -> OracleLog:
    return OracleLog(
        pd.DataFrame(rows), options=OPTIONS, cost_unit="visual tokens", metadata={"model": "toy"}
    )


def with_gaps() -> OracleLog:
    """Four examples: whole, one failed generation, one row missing, whole."""
    rows = grid("d", "b", "c", "a")
    rows[4] |= {"score": None, "cost": None, "error": "CUDA out of memory"}
    del rows[7]
    return build(rows)


def test_views_are_aligned_and_in_example_order() -> None:
    rows = grid("z", "a", "m")
    for place, value in enumerate(rows):
        value["score"] = place / 10
        value["answer"] = f"answer {place}"
    shuffled = [rows[i] for i in (2, 8, 5, 0, 1, 7, 3, 4, 6)]
    log = build(shuffled)
    assert log.ids == ("z", "m", "a")
    expected = np.array([[0.0, 0.1, 0.2], [0.6, 0.7, 0.8], [0.3, 0.4, 0.5]])
    assert np.array_equal(log.scores, expected)
    assert np.array_equal(log.costs, np.tile([1.0, 9.0, 36.0], (3, 1)))
    assert list(log.groups) == ["g-z", "g-m", "g-a"]
    assert list(log.questions) == ["What is z?", "What is m?", "What is a?"]
    assert list(log.images) == ["z.png", "m.png", "a.png"]
    assert list(log.datasets) == ["toy"] * 3
    assert np.array_equal(log.chance, np.full(3, 0.25))
    assert log.frame["answer"].tolist()[:3] == ["answer 0", "answer 1", "answer 2"]
    assert (len(log), log.n_gaps, log.complete.all()) == (3, 0, True)


def test_what_was_expected_is_kept(tmp_path: Path) -> None:
    rows = grid("a", "b", "c")
    for one in rows[:3]:
        one |= {"references": ["net", "a net", "net"], "metric": "vqa", "max_new_tokens": 16}
        one["finish"] = "length" if one["scale"] == "9" else "stop"
    for one in rows[3:6]:  # known to have none
        one |= {"references": (), "metric": "agreement", "max_new_tokens": 64}
    log = build(rows)
    assert log.references.tolist() == [("net", "a net", "net"), (), None]
    assert log.metrics.tolist() == ["vqa", "agreement", None]
    assert np.array_equal(log.max_new_tokens, [16, 64, np.nan], equal_nan=True)
    assert log.laid_out("finish").tolist() == [["stop", "length", "stop"]] + 2 * [[None] * 3]
    log.write(tmp_path / "log")
    again = OracleLog.read(tmp_path / "log")
    assert again.frame.equals(log.frame)
    assert again.select(["b", "a"]).references.tolist() == [(), ("net", "a net", "net")]


def test_rows_of_earlier_versions_take_what_others_of_their_example_tell() -> None:
    rows = grid("a", "b")
    rows[1] |= {"references": ["x"], "metric": "exact", "max_new_tokens": 16}
    log = build(rows)
    assert log.references.tolist() == [("x",), None]
    assert log.frame["metric"].tolist() == ["exact"] * 3 + [None] * 3
    assert log.frame["max_new_tokens"].tolist()[:3] == [16.0] * 3
    rows[2]["references"] = ["y"]
    with pytest.raises(DataError, match="disagree with themselves .*'a' in references"):
        build(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"references": "net"}, "'references' must hold lists of texts, got 'net'"),
        ({"references": [1]}, r"'references' must hold lists of texts, got \[1\]"),
        ({"metric": 3}, "'metric' must hold texts"),
        ({"max_new_tokens": 0}, "no whole number of at least 1 as max_new_tokens"),
        ({"finish": "tired"}, "a finish that is none of stop, length"),
    ],
)
def test_what_was_expected_is_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build([one | change for one in grid("a")])


def test_log_cannot_be_changed_from_outside() -> None:
    frame = pd.DataFrame(grid("a"))
    metadata = {"model": {"name": "x"}}
    log = OracleLog(frame, options=OPTIONS, cost_unit="tokens", metadata=metadata)
    frame.loc[:, "score"] = 0.0
    given = log.frame
    given.loc[:, "score"] = 0.0
    metadata["model"]["name"] = "y"
    log.metadata["model"]["name"] = "y"
    assert log.scores.sum() == 3
    assert log.metadata == {"model": {"name": "x"}}
    for view in (log.scores, log.costs, log.groups, log.chance, log.complete):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


def test_gaps_stay_nan_and_are_told() -> None:
    log = with_gaps()
    assert np.isnan(log.scores[1]).tolist() == [False, True, False]
    assert np.isnan(log.scores[2]).tolist() == [False, True, False]
    assert log.complete.tolist() == [True, False, False, True]
    assert log.n_gaps == 2
    errors = log.errors()
    assert errors[["example_id", "scale", "error"]].to_numpy().tolist() == [
        ["b", "9", "CUDA out of memory"]
    ]


def test_a_log_with_gaps_is_refused_or_dropped_but_never_filled() -> None:
    log = with_gaps()
    with pytest.raises(DataError, match="2 gaps in 2 of 4 examples") as error:
        log.require_complete()
    for part in ("'b', 'c'", "--gaps drop", "CUDA out of memory"):
        assert part in str(error.value)
    dropped = log.require_complete("drop")
    assert dropped.ids == ("d", "a")
    assert np.isfinite(dropped.scores).all()
    whole = build(grid("a"))
    assert whole.require_complete() is whole


def test_nothing_left_and_nothing_there() -> None:
    failed = build([row("a", s, score=None, error="boom") for s in OPTIONS])
    with pytest.raises(DataError, match="None of the 1 examples .* First cause: boom"):
        failed.drop_gaps()
    empty = OracleLog(
        pd.DataFrame(columns=list(row("a", "1"))), options=OPTIONS, cost_unit="visual tokens"
    )
    assert (len(empty), empty.scores.shape) == (0, (0, 3))
    with pytest.raises(DataError, match="is empty"):
        empty.require_complete()


def test_select_by_ids_rows_and_mask() -> None:
    log = build(grid("a", "b", "c"))
    assert log.select(["c", "a"]).ids == ("c", "a")
    assert log.select([2, 0]).ids == ("c", "a")
    assert log.select(np.array([True, False, True])).ids == ("a", "c")
    assert len(log.select([])) == 0
    assert log.select(["c"]).metadata == log.metadata
    with pytest.raises(MismatchError, match="no 1 of the 2 examples asked for .first: 'x'"):
        log.select(["a", "x"])
    with pytest.raises(DataError, match="rows 0 to 2"):
        log.select([3])
    with pytest.raises(DataError, match="rows 0 to 2"):
        log.select([-1])
    with pytest.raises(DataError, match="only once"):
        log.select([1, 1])
    with pytest.raises(DataError, match="3 entries"):
        log.select(np.array([True]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "10"}, "rows at '10'.*another scale grid"),
        ({"scale": "9"}, "doubled, first example 'a' at option '9'"),
        ({"score": 1.2}, r"a score outside \[0, 1\]"),
        ({"score": None}, "neither a score nor an error"),
        ({"error": "boom"}, "a score although the generation failed"),
        ({"cost": None}, "a score without a cost"),
        ({"cost": -1.0}, "a negative or infinite cost"),
        ({"cost": np.inf}, "a negative or infinite cost"),
        ({"score": "right"}, "Column 'score' must hold numbers"),
        ({"group": "other"}, "disagree with themselves .* first 'a' in group"),
        ({"chance": 1.0}, "disagree|chance level outside"),
        ({"question": None}, "Column 'question' has an empty cell"),
        ({"question": 5}, "Column 'question' must hold texts, got int"),
        ({"answer_tokens": 1.5}, "no whole number as answer_tokens"),
        ({"colour": "red"}, r"unknown columns: colour"),
    ],
)
def test_bad_rows_are_named(changes: dict[str, object], message: str) -> None:
    rows = grid("a")
    rows[0] |= changes
    with pytest.raises(DataError, match=message):
        build(rows)


def test_missing_column_and_bad_options() -> None:
    with pytest.raises(DataError, match=r"missing columns: cost"):
        OracleLog(pd.DataFrame(grid("a")).drop(columns="cost"), options=OPTIONS, cost_unit="tokens")
    with pytest.raises(DataError, match="options, each once"):
        OracleLog(pd.DataFrame(grid("a")), options=("1", "1"), cost_unit="tokens")


def test_write_and_read_give_the_same_log(tmp_path: Path) -> None:
    rows = grid("\u00e9", "b")
    rows[0] |= {"answer": "a\nb", "logprob": -1.5, "answer_tokens": 3, "confidence": 0.1}
    rows[5] |= {"score": None, "cost": None, "error": "boom"}
    log = build(rows)
    log.write(tmp_path / "log")
    again = OracleLog.read(tmp_path / "log")
    pd.testing.assert_frame_equal(again.frame, log.frame)
    assert again.options == OPTIONS
    assert again.cost_unit == "visual tokens"
    assert again.metadata == {"model": "toy"}
    np.testing.assert_array_equal(again.scores, log.scores)
    manifest = json.loads((tmp_path / "log" / MANIFEST).read_text())
    assert (manifest["stage"], manifest["n_examples"], manifest["n_gaps"]) == ("log", 2, 1)
    assert sorted(p.name for p in (tmp_path / "log").iterdir()) == [MANIFEST, PARQUET]


def test_inputs_are_recorded_relative(tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    examples.write_text("{}")
    build(grid("a")).write(tmp_path / "log", inputs={"examples": examples})
    text = (tmp_path / "log" / MANIFEST).read_text()
    recorded = json.loads(text)["inputs"]["examples"]
    assert recorded["path"] == "../examples.jsonl"
    assert len(recorded["sha256"]) == 64
    assert str(tmp_path) not in text


def test_one_flipped_byte_is_found(tmp_path: Path) -> None:
    build(grid("a")).write(tmp_path)
    path = tmp_path / PARQUET
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged or was changed"):
            OracleLog.read(tmp_path)
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="damaged or was changed"):
        OracleLog.read(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        OracleLog.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "schema 3; this version reads up to 2"),
        ({"stage": "features"}, "holds the stage 'features', expected 'log'"),
        ({"files": {}}, "manifest in .* is damaged"),
    ],
)
def test_foreign_manifests(tmp_path: Path, change: dict[str, object], message: str) -> None:
    build(grid("a")).write(tmp_path)
    path = tmp_path / MANIFEST
    older = json.loads(path.read_text()) | {"schema": 1}
    del older["sha256"]  # what was written before manifests were sealed
    path.write_text(json.dumps(older))
    assert OracleLog.read(tmp_path).options == OPTIONS
    path.write_text(json.dumps(older | change))
    with pytest.raises(DataError, match=message):
        OracleLog.read(tmp_path)


def test_a_manifest_with_one_changed_byte_is_refused(tmp_path: Path) -> None:
    build(grid("a")).write(tmp_path)
    path = tmp_path / MANIFEST
    content = path.read_bytes()
    for place in range(len(content)):
        if content[place : place + 1].isspace():
            continue
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match=r"manifest.json|holds the stage"):
            OracleLog.read(tmp_path)
    path.write_bytes(content)
    assert len(OracleLog.read(tmp_path)) == 1


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no manifest.json"):
        OracleLog.read(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        OracleLog.read(tmp_path)
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(DataError, match="not a manifest"):
        OracleLog.read(tmp_path)
