"""Tables laid out as VLMEvalKit writes them, in TSV and CSV (``vlmeval/smp/file.py``, ``dump``).

Columns: vlmeval/dataset/image_mcq.py and utils/multiple_choice.py (hit, log, g_index),
image_yorn.py (extracted, score), image_vqa.py and utils/vqa_eval.py (eval_match, eval_score).
"""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError, MismatchError
from m3router.data.importers.shared_images import PARTS
from m3router.data.importers.vlmevalkit import FAILED, by_model, read_vlmevalkit


def mcq(index: int, hit: Any, **changes: Any) -> dict[str, Any]:
    row = {
        "index": index,
        "question": f"Which is {index}?",
        "A": "red",
        "B": "green",
        "C": "blue",
        "D": None,
        "answer": "A",
        "category": "colour",
        "l2-category": "perception",
        "split": "dev",
        "prediction": "A",
        "hit": hit,
        "log": "Match Log: A. ",
    }
    return {**row, **changes}


def yes_no(index: int, score: Any, **changes: Any) -> dict[str, Any]:
    row = {
        "index": index,
        "question": "Is it?",
        "answer": "Yes",
        "image_path": "0001.jpg",
        "prediction": "Yes, it is.",
        "extracted": "Yes",
        "score": score,
    }
    return {**row, **changes}


def short(index: int, match: list[Any], **changes: Any) -> dict[str, Any]:
    row = {
        "index": index,
        "question": "What is it?",
        "answer": "['cat', 'a cat']",
        "prediction": "cat",
        "eval_gt": ["cat", "a cat"],
        "eval_pred": "cat",
        "eval_match": match,
        "eval_score": float(np.mean([float(one) for one in match])),
    }
    return {**row, **changes}


def table(path: Path, *rows: dict[str, Any]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=4, ensure_ascii=False), encoding="utf-8")
        return path
    mark = "\t" if path.suffix == ".tsv" else ","
    frame = pd.DataFrame(rows)
    frame.to_csv(path, sep=mark, index=False, encoding="utf-8", quoting=csv.QUOTE_ALL)
    return path


def told(log: Any) -> str:
    return "\n".join(log.metadata["unmapped"])


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".json"])
def test_multiple_choice(tmp_path: Path, suffix: str) -> None:
    small = table(tmp_path / f"llava_7b_MMStar_openai_result{suffix}", mcq(0, 1), mcq(1, 0))
    large = table(tmp_path / f"llava_13b_MMStar_openai_result{suffix}", mcq(1, 1), mcq(0, 1))
    log = read_vlmevalkit({"13b": large, "7b": small}, costs={"7b": 7, "13b": 13}, cost_unit="GB")
    assert log.options == ("7b", "13b")
    assert log.cost_unit == "GB"
    assert log.ids == ("MMStar/1", "MMStar/0")
    assert log.scores.tolist() == [[0, 1], [1, 1]]
    assert set(log.datasets) == {"MMStar"}
    assert log.questions[0] == "Which is 1?\nA. red\nB. green\nC. blue"
    assert log.chance.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert list(log.groups) == ["MMStar/1", "MMStar/0"]
    assert "options 13b, 7b: columns not used: ['category', 'l2-category', 'log', 'split']" in told(
        log
    )
    assert "2 of 2 examples do not say which image they are about" in told(log)


def test_circular_evaluation(tmp_path: Path) -> None:
    """One row for a question and its rotations, right if all are; ``g_index`` numbers them."""
    path = table(tmp_path / "m_MMBench_exact_matching_result.tsv", mcq(241, 1, g_index=241))
    log = read_vlmevalkit({"384": path}, dataset="MMBench")
    assert log.chance.tolist() == pytest.approx([1 / 27])
    assert list(log.groups) == ["MMBench/241"]
    assert log.costs.tolist() == [[384]]


def test_yes_or_no(tmp_path: Path) -> None:
    rows = [yes_no(0, True), yes_no(1, False), yes_no(2, True, image_path="/data/2.jpg")]
    log = read_vlmevalkit({"1": table(tmp_path / "m_POPE_auxmatch.tsv", *rows)}, dataset="POPE")
    assert log.scores[:, 0].tolist() == [1, 0, 1]
    assert log.chance.tolist() == [0.5] * 3
    assert list(log.groups) == ["POPE/0001.jpg", "POPE/0001.jpg", "POPE//data/2.jpg"]
    assert list(log.images) == ["0001.jpg", "0001.jpg", ""]
    assert "1 of 3 examples name no image file" in told(log)
    log = read_vlmevalkit({"1": tmp_path / "m_POPE_auxmatch.tsv"}, images="{id}.jpg")
    assert list(log.images) == ["0001.jpg", "0001.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("dataset", "match", "score"),
    [
        ("DocVQA_VAL", [0.0, 0.8], 1.0),  # distances: the nearest answer is exactly right
        ("DocVQA_VAL", [0.3], 0.7),
        ("InfoVQA_VAL", [0.6, 0.9], 0.0),  # less than half alike
        ("ChartQA_TEST", [False, True], 1.0),
        ("OCRVQA_TEST", [0.0, 1.0], 1.0),
        ("TextVQA_VAL", [1, 0.5, 0, 0.5], 0.5),
        ("GQA_TestDev_Balanced", [1.0], 1.0),
        ("docvqa-tuned_ChartQA_TEST", [0.0, 1.0], 1.0),
    ],
)
def test_short_answers(tmp_path: Path, dataset: str, match: list[Any], score: float) -> None:
    path = table(tmp_path / f"llava_{dataset}_results.tsv", short(0, match))
    log = read_vlmevalkit({"1": path}, dataset=dataset)
    assert log.scores[0, 0] == pytest.approx(score)
    assert log.chance[0] == 0
    assert "columns not used: ['eval_gt', 'eval_pred', 'eval_score']" in told(log)


def test_answers_of_a_table_are_the_references(tmp_path: Path) -> None:
    log = read_vlmevalkit({"1": table(tmp_path / "m_X_result.tsv", mcq(0, 1), mcq(1, 0))})
    assert set(log.references.tolist()) == {("A",)} and set(log.metrics.tolist()) == {"hit"}
    row = {**short(0, [1.0]), "answer": "['net', 'a net']"}
    log = read_vlmevalkit({"1": table(tmp_path / "m_TextVQA_VAL_results.tsv", row)})
    assert log.references.tolist() == [("net", "a net")]
    assert log.metrics.tolist() == ["eval_match"]


def test_a_failed_generation_is_a_gap_whatever_its_verdict(tmp_path: Path) -> None:
    failed = mcq(1, 0, prediction=f"{FAILED} via API. ")
    path = table(tmp_path / "m_X_result.tsv", mcq(0, 1), failed, mcq(2, None))
    log = read_vlmevalkit({"1": path})
    assert np.isnan(log.scores[:, 0]).tolist() == [False, True, True]
    assert log.errors()["error"].tolist() == [
        f"VLMEvalKit: {FAILED} via API. ",
        "the table has no verdict, or no rule scores the row",
    ]
    assert "option 1: 2 samples have no score; they are gaps" in told(log)


def test_missing_rows_are_gaps_and_other_questions_refused(tmp_path: Path) -> None:
    first = table(tmp_path / "a_X_result.tsv", mcq(0, 1), mcq(1, 0))
    second = table(tmp_path / "b_X_result.tsv", mcq(0, 1))
    log = read_vlmevalkit({"1": first, "9": second})
    assert log.n_gaps == 1
    assert "option 9: 1 of 2 examples are not in its run; they are gaps (X/1)" in told(log)
    other = table(tmp_path / "c_X_result.tsv", mcq(0, 1, question="Else?"), mcq(1, 0))
    with pytest.raises(MismatchError, match="'X/0' has the question 'Which is 0"):
        read_vlmevalkit({"1": first, "9": other})
    with pytest.raises(MismatchError, match="has the answer 'A' at option '1' and 'B'"):
        read_vlmevalkit({"1": first, "9": table(second, mcq(0, 1, answer="B"))})


def test_names_of_the_dataset(tmp_path: Path) -> None:
    same = tmp_path / "one" / "m_MMB_DEV_openai_result.tsv"
    same.parent.mkdir()
    runs = {
        "1": table(same, mcq(0, 1)),
        "9": table(tmp_path / "other_MMB_DEV_openai_result.csv", mcq(0, 1)),
    }
    assert set(read_vlmevalkit(runs).datasets) == {"MMB_DEV"}
    assert set(read_vlmevalkit(runs, dataset="mine").datasets) == {"mine"}
    runs["9"] = table(tmp_path / "elsewhere.tsv", mcq(0, 1))
    assert set(read_vlmevalkit(runs).datasets) == {"default"}


def test_another_column(tmp_path: Path) -> None:
    path = table(tmp_path / "m_X.tsv", mcq(0, 1, Mine=0.25))
    assert read_vlmevalkit({"1": path}, metric={"*": "Mine"}).scores.tolist() == [[0.25]]
    with pytest.raises(DataError, match=r"no column with verdicts \(none\)"):
        read_vlmevalkit({"1": path}, metric={"*": "none"})


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [without(short(0, [1.0]), "eval_match", "eval_score")],
            "A table of predictions must be evaluated first.*multiple choice and chartqa",
        ),
        ([{"split": "dev", "Overall": 0.6}], r"lacks the columns index, question, pred"),
        ([mcq(0, 1), mcq(0, 0)], r"1 rows with an index twice \(0\)"),
        ([mcq(None, 1)], "1 rows have no index"),  # type: ignore[arg-type]
        ([mcq(0, 1), mcq(1, 7)], r"row 2 \(index 1\): the column 'hit' must hold verdicts"),
        ([mcq(0, "maybe")], "got 'maybe'"),
        ([short(0, [1.0], eval_match="[1.0")], "'eval_match' must hold verdicts"),
        ([short(0, [1.0], eval_match="[]")], "'eval_match' must hold verdicts"),
        ([short(0, [1.0], eval_match="['x']")], "'eval_match' must hold verdicts"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_vlmevalkit({"1": table(tmp_path / "m_X_result.tsv", *rows)})


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_vlmevalkit({"1": tmp_path / "none.tsv"})
    with pytest.raises(DataError, match=r"must be one of .csv, .tsv, .parquet, .*, got '.pkl'"):
        read_vlmevalkit({"1": tmp_path / "m_X_result.pkl"})
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="is not a readable .csv table"):
        read_vlmevalkit({"1": tmp_path / "empty.csv"})
    (tmp_path / "header.csv").write_text("index,question,prediction,hit\n")
    with pytest.raises(DataError, match="holds no rows"):
        read_vlmevalkit({"1": tmp_path / "header.csv"})
    (tmp_path / "cut.tsv").write_text('"index"\t"question"\t"prediction"\n"0"\t"Wh')
    with pytest.raises(DataError, match="is not a readable .tsv table"):
        read_vlmevalkit({"1": tmp_path / "cut.tsv"})


def test_json_is_read_as_the_other_formats(tmp_path: Path) -> None:
    rows = [
        short(0, [0.0, 1.0], question="Wie groß?\nSag es."),
        short(1, [0.5], answer=float("nan"), eval_match=float("nan")),
        short(2, [1.0], prediction=None, image_path=None),
    ]
    first = read_vlmevalkit({"1": table(tmp_path / "m_X_results.json", *rows)})
    second = read_vlmevalkit({"1": table(tmp_path / "m_X_results.tsv", *rows)})
    pd.testing.assert_frame_equal(first.frame, second.frame)
    for bad in ('{"hit": [1]}', "[1]", '[{"index": 0', b"\xff\xfe[1"):
        path = tmp_path / "bad.json"
        path.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
        with pytest.raises(DataError, match="is not a readable .json table"):
            read_vlmevalkit({"1": path})


def test_no_word_is_a_missing_choice_and_letters_stay(tmp_path: Path) -> None:
    """Issue 1559 of VLMEvalKit: pandas takes 'None' for a missing cell."""
    rows = [
        mcq(0, 1, A="None", B="NA", C="null", D="nan"),
        mcq(1, 1, A="None", B=None, C="x", D="0", answer="D"),
    ]
    for suffix in (".tsv", ".csv", ".json"):
        log = read_vlmevalkit({"1": table(tmp_path / f"m_X_result{suffix}", *rows)})
        assert log.questions[0] == "Which is 0?\nA. None\nB. NA\nC. null\nD. nan"
        assert log.questions[1] == "Which is 1?\nA. None\nC. x\nD. 0"
        assert log.chance.tolist() == pytest.approx([1 / 4, 1 / 3])
        assert "no text for the choice that is right" not in told(log)


def test_a_right_choice_that_was_lost_is_told(tmp_path: Path) -> None:
    rows = [mcq(0, 0, A=None), mcq(1, 1), mcq(2, 1, A=None, B=None, C=None, answer="A")]
    log = read_vlmevalkit({"1": table(tmp_path / "m_X_result.tsv", *rows)})
    assert "1 questions have no text for the choice that is right (m_X/0)" in told(log)


def test_a_path_for_every_row_tells_no_groups(tmp_path: Path) -> None:
    rows = [yes_no(n, True, image_path=f"/data/{n}.jpg") for n in range(3)]
    log = read_vlmevalkit({"1": table(tmp_path / "m_POPE_auxmatch.tsv", *rows)}, dataset="POPE")
    assert "image_path is another one in every row" in told(log)


def test_an_index_reads_alike_in_every_format(tmp_path: Path) -> None:
    first = table(tmp_path / "a_X_result.json", mcq(0, 1), mcq(1, 1))  # whole numbers
    floats = [{**mcq(0, 1), "index": 0.0}, {**mcq(1, 1), "index": 1.0}]
    for suffix in (".json", ".tsv"):
        second = table(tmp_path / f"b_X_result{suffix}", *floats)
        log = read_vlmevalkit({"1": first, "9": second})
        assert (log.ids, log.n_gaps) == (("X/0", "X/1"), 0)


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is not None, reason="openpyxl is here")
def test_xlsx_without_openpyxl_names_it(tmp_path: Path) -> None:
    path = tmp_path / "m_X_result.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"needs openpyxl.*m3router\[xlsx\].*\.csv or \.tsv"):
        read_vlmevalkit({"1": path})


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is None, reason="openpyxl is not here")
def test_xlsx(tmp_path: Path) -> None:
    rows = [mcq(0, 1), mcq(1, 0)]
    pd.DataFrame(rows).to_excel(tmp_path / "m_X_result.xlsx", index=False)
    first = read_vlmevalkit({"1": tmp_path / "m_X_result.xlsx"})
    second = read_vlmevalkit({"1": table(tmp_path / "m_X_result.tsv", *rows)})
    pd.testing.assert_frame_equal(first.frame, second.frame)
    (tmp_path / "bad.xlsx").write_bytes(b"no zip")
    with pytest.raises(DataError, match="is not a readable .xlsx table"):
        read_vlmevalkit({"1": tmp_path / "bad.xlsx"})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, 1, True, False, 0.5, None]), min_size=1, max_size=8))
def test_every_verdict_is_read(tmp_path_factory, verdicts: list[Any]) -> None:
    rows = [mcq(place, one) for place, one in enumerate(verdicts)]
    path = tmp_path_factory.mktemp("t") / "m_X_result.tsv"
    lines = ["\t".join(rows[0])]
    lines += ["\t".join("" if cell is None else str(cell) for cell in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = read_vlmevalkit({"1": path})
    expected = [np.nan if one is None else float(one) for one in verdicts]
    np.testing.assert_array_equal(log.scores[:, 0], expected)


# --- several data sets and models, and tables without verdicts ------------------------------------


def test_several_data_sets_of_several_models(tmp_path: Path) -> None:
    runs = {
        model: [
            table(tmp_path / f"vila_{model}_MMStar_openai_result.tsv", mcq(0, 1), mcq(1, right)),
            table(tmp_path / f"vila_{model}_POPE_auxmatch.tsv", yes_no(0, True)),
        ]
        for model, right in (("8b", 0), ("13b", 1))
    }
    log = read_vlmevalkit(runs, costs={"8b": 8, "13b": 13})
    assert log.ids == ("MMStar/0", "MMStar/1", "POPE/0")
    assert log.scores.tolist() == [[1, 1], [0, 1], [1, 1]]
    assert list(log.datasets) == ["MMStar", "MMStar", "POPE"]
    assert log.metadata["runs"]["8b"]["path"] == (
        "vila_8b_MMStar_openai_result.tsv, vila_8b_POPE_auxmatch.tsv"
    )


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"a": ["m_X_A_result", "m_X_B_result"], "b": ["n_X_A_result", "n_X_B_result"]},
         ["X_A", "X_B"]),
        ({"a": ["m_x_Aye_result", "m_x_Bee_result"]}, ["Aye", "Bee"]),
        ({"a": ["pope-tuned_7b_POPE_auxmatch", "pope-tuned_7b_MME_score"]}, ["POPE", "MME"]),
        ({"a": ["m_MMBench_DEV_EN_gpt-4o-mini_result"]}, ["MMBench_DEV_EN"]),
    ],
)  # fmt: skip
def test_data_sets_are_told_by_names(tmp_path: Path, files: dict, names: list[str]) -> None:
    for option in files:
        (tmp_path / option).mkdir()
    runs = {
        option: [table(tmp_path / option / f"{stem}.tsv", mcq(0, 1)) for stem in stems]
        for option, stems in files.items()
    }
    assert list(read_vlmevalkit(runs).datasets) == names


def test_a_models_folder(tmp_path: Path) -> None:
    """Predictions give way to verdicts, and averages are no table."""
    table(tmp_path / "m_MMStar.tsv", without(mcq(0, 0), "hit"))
    table(tmp_path / "m_MMStar_openai_result.tsv", mcq(0, 1))
    table(tmp_path / "m_POPE_auxmatch.tsv", yes_no(0, False))
    (tmp_path / "m_MMStar_acc.csv").write_text("split,Overall\nnone,1\n")
    (tmp_path / "m_POPE_score.csv").write_text("split,Overall\nnone,1\n")
    log = read_vlmevalkit({"1": tmp_path})
    assert log.scores.tolist() == [[1], [0]] and list(log.datasets) == ["MMStar", "POPE"]
    table(tmp_path / "m_MMStar_exact_matching_result.tsv", mcq(0, 1))
    with pytest.raises(DataError, match="Option '1' has 2 tables of the data set 'MMStar'"):
        read_vlmevalkit({"1": tmp_path})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no table of VLMEvalKit"):
        read_vlmevalkit({"1": tmp_path / "empty"})


def test_predictions_are_scored_where_the_rule_is_known(tmp_path: Path) -> None:
    bare = without(mcq(0, 1, prediction="It is **A**, red."), "hit")
    wrong = without(mcq(1, 1, prediction="Green"), "hit")
    log = read_vlmevalkit({"1": table(tmp_path / "m_MMStar.tsv", bare, wrong)})
    assert log.scores.tolist() == [[1], [0]] and set(log.metrics) == {"choice"}
    assert "the predictions were scored here, by the rule 'choice'" in told(log)
    rows = [without(yes_no(n, 1, prediction=say), "score") for n, say in enumerate(["Yes", "No."])]
    log = read_vlmevalkit({"1": table(tmp_path / "m_POPE.tsv", *rows)})
    assert log.scores.tolist() == [[1], [0]] and log.chance.tolist() == [0.5, 0.5]


def test_ocrbench_as_vlmevalkit_scores_it(tmp_path: Path) -> None:
    """Contained, without case; formulas without blanks, but with case."""
    formula = "Handwritten Mathematical Expression Recognition"
    rows = [
        {"index": n, "question": "q", "answer": answer, "category": kind, "prediction": said}
        for n, (answer, kind, said) in enumerate(
            [
                ("['CENTRE']", "Regular Text Recognition", "It says\n'centre'."),
                ("['CENTRE', 'no']", "Regular Text Recognition", "It says century."),
                ("['x ^ 2']", formula, "x^2"),
                ("['X']", formula, "x"),
            ]
        )
    ]
    log = read_vlmevalkit({"1": table(tmp_path / "m_OCRBench.json", *rows)})
    assert log.scores.ravel().tolist() == [1, 0, 1, 0]
    with pytest.raises(DataError, match="only multiple choice and chartqa, .*ocrbench"):
        read_vlmevalkit({"1": table(tmp_path / "m_OCRBench_v2.json", *rows)})


def test_bad_rows_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [mcq(0, 1), mcq(1, "maybe"), mcq(2, 1), mcq(2, 0), mcq(None, 1)]  # type: ignore[arg-type]
    path = table(tmp_path / "m_X_result.tsv", *rows)
    log = read_vlmevalkit({"1": path}, skip_bad=True)
    assert len(log) == 1 and log.scores.tolist() == [[1]]
    assert "3 rows are bad and were left out (1 rows have no index, index 2 stands" in told(log)
    first = table(tmp_path / "a_X_result.tsv", mcq(0, 1), mcq(1, 1))
    second = table(tmp_path / "b_X_result.tsv", mcq(0, 1), mcq(1, 1, question="Else?"))
    log = read_vlmevalkit({"1": first, "9": second}, skip_bad=True)
    assert log.ids == ("X/0",)
    assert "1 examples are not the same in all options and were left out; first, 'X/1'" in told(log)
    with pytest.raises(DataError, match="no row is left, all are bad"):
        bad = table(tmp_path / "c_X_result.tsv", mcq(0, "maybe"))
        read_vlmevalkit({"1": bad}, skip_bad=True)


def test_pope_without_groups_brings_the_splits_warning(tmp_path: Path) -> None:
    rows = [yes_no(n, True, image_path=f"/data/POPE/{n}.jpg") for n in range(30)]
    log = read_vlmevalkit({"1": table(tmp_path / "m_POPE_auxmatch.tsv", *rows)})
    assert "POPE asks several questions about an image, but its 30 questions are in 30" in told(log)
    rows = [yes_no(n, True, image_path=f"/data/POPE/{n // 6}.jpg") for n in range(30)]
    log = read_vlmevalkit({"1": table(tmp_path / "m_POPE_auxmatch.tsv", *rows)})
    assert "asks several questions" not in told(log) and len(set(log.groups)) == 5


OBJECTS = ("apple", "bed", "car", "dog", "egg", "fork", "gun", "hat", "ice", "jar", "key", "lamp")


def pope(images: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows as VLMEvalKit's POPE.tsv has them: a question of several parts stands once."""
    rows: list[dict[str, Any]] = []
    for _ in range(images):
        names = list(rng.permutation(OBJECTS))
        parts: dict[str, list[str]] = {name: list(PARTS) for name in names[:3]}
        for part in PARTS:
            for name in rng.choice(names[3:], size=3, replace=False):
                parts.setdefault(str(name), []).append(part)
        for name in sorted(parts):
            index = len(rows)
            category = ",".join(parts[name])
            answer = "Yes" if name in names[:3] else "No"
            question = f"Is there a {name} in the image? Please answer yes or no."
            path = f"/data/LMUData/images/POPE/{index}.jpg"
            row = yes_no(index, True, question=question, answer=answer, image_path=path)
            rows.append({**row, "category": category})
    return rows


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_images_of_pope_are_found(tmp_path_factory, images: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("pope")
    rows = pope(images, np.random.default_rng(seed))
    log = read_vlmevalkit({"1": table(folder / "m_POPE_auxmatch.tsv", *rows)})
    expected: list[int] = []
    yes = 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        expected.append(yes)
        if following is None or following["question"] <= row["question"]:
            yes += 1
    if yes == images:  # questions of an image are sorted, so that most borders show
        assert list(log.groups) == [f"POPE/image {number}" for number in expected]
    assert len(set(log.groups)) == images
    assert f"{images} images are told apart by the make-up" in told(log)


def test_a_table_of_pope_that_does_not_come_out_even_is_not_grouped(tmp_path: Path) -> None:
    rows = pope(4, np.random.default_rng(0))
    for spoilt in (rows[:-1], rows[1:], [{**rows[0], "category": "odd"}, *rows[1:]]):
        log = read_vlmevalkit({"1": table(tmp_path / "m_POPE_auxmatch.tsv", *spoilt)})
        assert len(set(log.groups)) == len(spoilt)
        assert "image_path is another one in every row" in told(log)


def test_rotations_of_a_data_set_share_groups(tmp_path: Path) -> None:
    paths = [
        table(tmp_path / f"gpt_tdbench_rot{angle}_openai_result.tsv", mcq(0, 1), mcq(1, 0))
        for angle in (0, 90)
    ]
    log = read_vlmevalkit({"gpt": paths})
    assert list(log.groups) == ["tdbench/0", "tdbench/1"] * 2
    assert set(log.datasets) == {"tdbench_rot0", "tdbench_rot90"}


def test_a_log_of_rotations_says_that_the_evaluation_is_circular(tmp_path: Path) -> None:
    """Earlier versions write no ``g_index``."""
    rows = [mcq(0, 1, log="Succeed During Pre-fetching"),
            mcq(1, 0, log="Failed in Prefetching Rolling 2: Answer is C, Pred is A")]  # fmt: skip
    log = read_vlmevalkit({"1": table(tmp_path / "m_CCBench_openai_result.tsv", *rows)})
    assert log.chance.tolist() == pytest.approx([1 / 27] * 2)


def test_models_are_told_by_names(tmp_path: Path) -> None:
    names = ("a_7b_MMStar_openai_result.tsv", "a_7b_POPE.tsv", "b_MMStar_openai_result.tsv")
    found = by_model([tmp_path / name for name in names])
    assert {model: [path.name for path in paths] for model, paths in found.items()} == {
        "a_7b": list(names[:2]),
        "b": [names[2]],
    }
    for name in ("a_own_result.tsv", "MMStar_result.tsv"):
        with pytest.raises(DataError, match=f"{name} does not tell its model.*Give OPTION=PATH"):
            by_model([tmp_path / name])


def test_a_column_is_the_cost_of_every_row(tmp_path: Path) -> None:
    small = table(tmp_path / "a_MMStar_result.tsv", mcq(0, 1, Paid=3), mcq(1, 0, Paid=5))
    large = table(
        tmp_path / "b_MMStar_result.tsv",
        mcq(0, 1, Paid="0.5", prompt_tokens=700, completion_tokens=2),
        mcq(1, 1, Paid=1),
    )
    log = read_vlmevalkit({"a": small, "b": large}, costs="Paid", cost_unit="EUR")
    assert log.options == ("b", "a") and log.cost_unit == "EUR"
    assert log.costs.tolist() == [[0.5, 3], [1, 5]]
    np.testing.assert_array_equal(log.laid_out("answer_tokens"), [[2, np.nan], [np.nan, np.nan]])
    assert "columns not used: ['category', 'l2-category', 'log', 'split']" in told(log)
    with pytest.raises(DataError, match="no column 'nowhere' for costs.*--cost takes a column"):
        read_vlmevalkit({"a": small, "b": large}, costs="nowhere")


def test_groups_of_the_benchmarks_own_table(tmp_path: Path) -> None:
    """``image`` holds base64, or the index of the row that does (image_base.py)."""
    path = table(tmp_path / "m_MMStar_result.tsv", *(mcq(n, 1) for n in range(3)))
    images = tmp_path / "MMStar.tsv"
    images.write_text(f"index\timage\n0\t{'x' * 300_000}\n1\t0\n2\t{'y' * 100}\n")
    groups = list(read_vlmevalkit({"1": path}, groups={"MMStar": images}).groups)
    assert groups[0] == groups[1] != groups[2]
