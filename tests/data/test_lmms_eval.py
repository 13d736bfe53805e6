"""Samples files laid out as lmms-eval writes them.

Fields: lmms_eval/evaluator.py (``example``), loggers/evaluation_tracker.py
(``save_results_samples``: jsonl, ``input``, no ``doc``), __main__.py of older versions (``logs``).
Metrics: lmms_eval/tasks/{gqa,pope,mme,seedbench,mmmu,ocrbench}.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError, MismatchError
from m3router.data.importers.lmms_eval import SCORE_FIELDS, metric_of, read_lmms_eval, score_of
from m3router.data.prices import Prices

PROMPT = "\nAnswer the question using a single word or phrase."


def sample(doc_id: int, **metrics: Any) -> dict[str, Any]:
    """One line of a newer version: no doc, and resps left out as it equals filtered_resps."""
    question = f"Is it number {doc_id}?"
    return {
        "doc_id": doc_id,
        "target": "yes",
        "filtered_resps": ["yes"],
        "doc_hash": hashlib.sha256(question.encode()).hexdigest(),
        "prompt_hash": "p",
        "target_hash": "t",
        **(metrics or {"exact_match": 1.0}),
        "input": question + PROMPT,
    }


def jsonl(path: Path, *lines: Any, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    path.write_text("\n".join(texts) + end, encoding="utf-8")
    return path


def run(folder: Path, task: str, *lines: Any, date: str = "20250611_101500") -> Path:
    """A run's folder as EvaluationTracker makes it."""
    inner = folder / "liuhaotian__llava-v1.5-7b"
    jsonl(inner / f"{date}_samples_{task}.jsonl", *lines)
    results = {
        "results": {task: {"alias": task}},
        "config": {"model": "llava", "model_args": f"pretrained=m3,tokens={folder.name}"},
        "git_hash": "abc1234",
        "date": date,
    }
    (inner / f"{date}_results.json").write_text(json.dumps(results))
    return folder


def told(log: Any) -> str:
    return "\n".join(log.metadata["unmapped"])


def test_two_scales_of_one_task(tmp_path: Path) -> None:
    fine = run(tmp_path / "576", "gqa", sample(0), sample(1, exact_match=0.0))
    coarse = run(tmp_path / "36", "gqa", sample(1, exact_match=0.3), sample(0, exact_match=0))
    log = read_lmms_eval({"576": fine, "36": coarse}, cost_unit="visual tokens")
    assert log.options == ("36", "576")
    assert log.cost_unit == "visual tokens"
    assert log.ids == ("gqa/0", "gqa/1")
    assert log.costs.tolist() == [[36, 576]] * 2
    assert log.scores.tolist() == [[0, 1], [0.3, 0]]
    assert list(log.datasets) == ["gqa", "gqa"]
    assert list(log.groups) == ["gqa/0", "gqa/1"]
    assert log.questions[0] == f"Is it number 0?{PROMPT}"
    assert set(log.frame["answer"]) == {"yes"}
    assert log.metadata["runs"]["36"]["model_args"] == "pretrained=m3,tokens=36"
    assert log.metadata["runs"]["576"]["git_hash"] == "abc1234"
    assert "2 of 2 examples do not say which image they are about" in told(log)
    assert "gaps" not in told(log)


def test_targets_are_the_references(tmp_path: Path) -> None:
    def read(task: str, *lines: dict[str, Any], **options: Any) -> Any:
        path = jsonl(tmp_path / f"20250611_samples_{task}.jsonl", *lines)
        return read_lmms_eval({"576": path}, **options)

    log = read("gqa", sample(0), {**sample(1), "target": "a [red] one"})
    assert log.references.tolist() == [("yes",), ("a [red] one",)]
    assert log.metrics.tolist() == ["exact_match"] * 2
    # Newer versions write a list as one text.
    log = read("docvqa_val", {**sample(0, anls=1.0), "target": "['1/8/93', \"Jan '93\"]"})
    assert log.references.tolist() == [("1/8/93", "Jan '93")] and log.metrics.tolist() == ["anls"]
    log = read("egoschema", {**sample(0, score={"pred": 1, "ground_truth": "1"}), "target": 1})
    assert log.references.tolist() == [("1",)]
    # A field that the data do not have: the target is the field's name.
    said = [{"answer": "net", "answer_id": 1}, {"answer": "a net", "answer_id": 2}]
    lines = [{**sample(n), "target": "answer", "doc": doc} for n, doc in enumerate(
        ({"answers": said}, {"answers": ["x", "y"]}, {})
    )]  # fmt: skip
    log = read("vqav2_val", *lines)
    assert log.references.tolist() == [("net", "a net"), ("x", "y"), None]
    bare = sample(0)
    del bare["target"]
    assert read("gqa", bare).references.tolist() == [None]


def test_older_versions_with_logs_and_docs(tmp_path: Path) -> None:
    def old(doc_id: int) -> dict[str, Any]:
        return {
            "doc_id": doc_id,
            "doc": {"question": f"What is {doc_id}?", "imageId": "n7", "id": doc_id},
            "target": "cat",
            "arguments": [["What?" + PROMPT, {"max_new_tokens": 16}, doc_id, "gqa", "testdev"]],
            "resps": [["a cat"]],
            "filtered_resps": ["cat"],
            "doc_hash": f"h{doc_id}",
            "exact_match": 1.0,
        }

    for scale in ("1", "9"):
        (tmp_path / scale).mkdir()
        dumped = {"args": {}, "model_configs": {"task": "gqa"}, "logs": [old(0), old(1)]}
        (tmp_path / scale / "gqa.json").write_text(json.dumps(dumped, indent=4))
        (tmp_path / scale / "results.json").write_text("{}")
    log = read_lmms_eval({"1": tmp_path / "1", "9": tmp_path / "9"})
    assert list(log.groups) == ["gqa/n7", "gqa/n7"]
    assert list(log.questions) == ["What is 0?", "What is 1?"]
    assert set(log.frame["answer"]) == {"cat"}
    assert told(log).startswith("2 of 2 examples name no image file")
    named = read_lmms_eval({"1": tmp_path / "1"}, images="{dataset}/{id}.png")
    assert list(named.images) == ["gqa/0.png", "gqa/1.png"]
    assert told(named) == ""
    with pytest.raises(DataError, match=r"'/gqa/0' of the example 'gqa/0' is absolute"):
        read_lmms_eval({"1": tmp_path / "1"}, images="/{dataset}/{id}")


def test_flattened_responses_and_unused_fields(tmp_path: Path) -> None:
    """Pull requests 1103 (one nesting less) and 1108 (token_counts)."""
    line = sample(0) | {"filtered_resps": "yes", "token_counts": [{"output_tokens": 1}]}
    log = read_lmms_eval({"7b": jsonl(tmp_path / "x_samples_gqa.jsonl", line)}, costs={"7b": 7})
    assert log.frame["answer"].tolist() == ["yes"]
    assert log.frame["answer_tokens"].tolist() == [1]
    assert log.metadata["runs"]["7b"]["mean_answer_tokens"] == 1
    assert "token_counts" not in told(log)


def test_several_tasks_each_with_its_own_metric(tmp_path: Path) -> None:
    verdict = {"question_id": "1", "score": 1.0, "prediction": "yes", "ground_truth": "yes"}
    pope = {name: verdict for name in ("pope_accuracy", "pope_precision", "pope_f1_score")}
    pair = [
        {"question_id": "OCR/3.jpg", "category": "OCR", "score": 1.0},
        {"question_id": "OCR/3.jpg", "category": "OCR", "score": 0.0},
    ]
    think = {"question_id": "code/1.png", "category": "code_reasoning", "score": 1.0}
    for scale in ("9", "36"):
        folder = tmp_path / scale
        run(folder, "gqa", sample(0))
        run(folder, "pope_adv", sample(0, **pope))
        run(
            folder,
            "mme",
            *(sample(n, mme_percetion_score=one) for n, one in enumerate(pair)),
            sample(2, mme_cognition_score=think),
        )
    log = read_lmms_eval({"9": tmp_path / "9", "36": tmp_path / "36"})
    scores = dict(zip(log.ids, log.scores[:, 0], strict=True))
    assert scores == {"gqa/0": 1, "mme/0": 1, "mme/1": 0, "mme/2": 1, "pope_adv/0": 1}
    groups = dict(zip(log.ids, log.groups, strict=True))
    assert groups["mme/0"] == groups["mme/1"] == "mme/OCR/3.jpg" != groups["mme/2"]
    assert ("options 9, 36: task pope_adv: fields not used: pope_f1_score, pope_precision") in told(
        log
    )


def test_missing_in_one_option_is_a_gap(tmp_path: Path) -> None:
    log = read_lmms_eval(
        {
            "576": jsonl(tmp_path / "a_samples_gqa.jsonl", sample(0), sample(1)),
            "1": jsonl(tmp_path / "b_samples_gqa.jsonl", sample(1), sample(2)),
        }
    )
    assert log.ids == ("gqa/0", "gqa/1", "gqa/2")
    assert np.isnan(log.scores).tolist() == [[True, False], [False, False], [False, True]]
    assert log.errors()["error"].tolist() == [
        "not in the run of option '1'",
        "not in the run of option '576'",
    ]
    assert "option 1: 1 of 3 examples are not in its run; they are gaps (gqa/0)" in told(log)


def test_no_score_is_a_gap_and_an_empty_answer_is_told(tmp_path: Path) -> None:
    open_question = {
        "id": "validation_Math_1",
        "question_type": "open",
        "answer": "3",
        "parsed_pred": [["3"]],
    }
    lines = [
        sample(0, mmmu_acc=open_question),
        sample(1, mmmu_acc=open_question | {"question_type": "multiple-choice"}),
        sample(2, mmmu_acc=float("nan")),
        sample(3, mmmu_acc={"score": 0.0}) | {"filtered_resps": [""]},
    ]
    log = read_lmms_eval({"1": jsonl(tmp_path / "x_samples_mmmu_val.jsonl", *lines)})
    assert np.isnan(log.scores[:, 0]).tolist() == [True, False, True, False]
    assert log.errors()["error"].unique().tolist() == ["the field 'mmmu_acc' holds no score"]
    assert "2 samples have no score; they are gaps (mmmu_val/0, mmmu_val/2" in told(log)
    assert "1 answers are empty, which may be failed generations" in told(log)


def test_a_torn_last_line_is_told_and_a_torn_middle_refused(tmp_path: Path) -> None:
    torn = json.dumps(sample(1))[:40]
    path = jsonl(tmp_path / "x_samples_gqa.jsonl", sample(0), torn, end="")
    log = read_lmms_eval({"1": path})
    assert log.ids == ("gqa/0",)
    assert "option 1: x_samples_gqa.jsonl: its last line 2 is torn and was left out" in told(log)
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_lmms_eval({"1": jsonl(path, sample(0), torn, sample(2))})
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read_lmms_eval({"1": jsonl(path, torn)})


@pytest.mark.parametrize("field", ["doc_hash", "target"])
def test_different_documents_are_refused(tmp_path: Path, field: str) -> None:
    first = jsonl(tmp_path / "a_samples_gqa.jsonl", sample(0), sample(1))
    second = jsonl(tmp_path / "b_samples_gqa.jsonl", sample(0), sample(1) | {field: "other"})
    with pytest.raises(MismatchError) as error:
        read_lmms_eval({"1": first, "9": second})
    assert (
        f"1 of 2 examples are not the same in all options; first, 'gqa/1' has the {field}"
        in str(error.value)
    )
    assert "'other' at '9'" in str(error.value)


def test_runs_of_different_tasks_are_refused(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "a_samples_gqa.jsonl", sample(0))
    second = jsonl(tmp_path / "b_samples_textvqa_val.jsonl", sample(0))
    with pytest.raises(DataError, match="no example in common"):
        read_lmms_eval({"1": first, "9": second})


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x_samples_gqa.jsonl"
    with pytest.raises(DataError, match="does not exist"):
        read_lmms_eval({"1": path})
    with pytest.raises(DataError, match="holds no samples of lmms-eval"):
        read_lmms_eval({"1": tmp_path})
    path.write_text(" \n")
    with pytest.raises(DataError, match="is empty"):
        read_lmms_eval({"1": path})
    with pytest.raises(
        DataError, match="sample 2, is not a sample of lmms-eval: it has no 'doc_id'"
    ):
        read_lmms_eval({"1": jsonl(path, sample(0), {"target": "x"})})
    with pytest.raises(DataError, match=r"has 1 samples twice \(gqa/0\)"):
        read_lmms_eval({"1": jsonl(path, sample(0), sample(1), sample(0))})
    jsonl(tmp_path / "y_samples_gqa.jsonl", sample(0))
    with pytest.raises(DataError, match="holds the task 'gqa' twice"):
        read_lmms_eval({"1": tmp_path})
    old = tmp_path / "gqa.json"
    old.write_text('{"results": {}}')
    with pytest.raises(DataError, match="is not a samples file of lmms-eval"):
        read_lmms_eval({"1": old})


def test_results_beside_the_samples_that_do_not_fit(tmp_path: Path) -> None:
    folder = run(tmp_path / "1", "gqa", sample(0) | {"input": {"messages": []}})
    assert "1 of 1 samples hold no prompt; their id" in told(read_lmms_eval({"1": folder}))
    (results,) = folder.rglob("*results.json")
    for text, message in (("[]", "is not a results file"), ("{", "cannot be read")):
        results.write_text(text)
        with pytest.raises(DataError, match=message):
            read_lmms_eval({"1": folder})
    results.unlink()
    assert read_lmms_eval({"1": folder}).metadata["runs"] == {"1": {"path": "1"}}


def test_unknown_metrics_name_the_fields(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x_samples_mybench.jsonl", sample(0, my_acc=1, other=[0, 1]))
    with pytest.raises(DataError) as error:
        read_lmms_eval({"1": path})
    assert (
        "The metric of the task 'mybench' is not known; its samples have ['my_acc', 'other']"
        in (str(error.value))
    )
    assert "--metric mybench=FIELD" in str(error.value)
    assert read_lmms_eval({"1": path}, metric={"mybench": "my_acc"}).scores[0, 0] == 1
    assert read_lmms_eval({"1": path}, metric={"*": "my_acc"}).scores[0, 0] == 1
    with pytest.raises(DataError, match="doc_id 0, field 'other': no score can be read from list"):
        read_lmms_eval({"1": path}, metric={"*": "other"})
    with pytest.raises(DataError, match="has no field 'none'"):
        read_lmms_eval({"1": path}, metric={"*": "none"})


def test_a_submission_without_a_score_is_refused(tmp_path: Path) -> None:
    """docvqa_test logs ``anls`` as an answer to be submitted."""
    line = sample(0, anls={"questionId": 4, "answer": "x"})
    path = jsonl(tmp_path / "x_samples_docvqa_test.jsonl", line)
    with pytest.raises(DataError, match=r"no score can be read from the fields answer"):
        read_lmms_eval({"1": path})


def test_costs(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x_samples_gqa.jsonl", sample(0))
    small_large = {"large": path, "small": path}
    ranked = read_lmms_eval(small_large)
    assert (ranked.options, ranked.cost_unit) == (("large", "small"), "rank")
    priced = read_lmms_eval(small_large, costs={"large": 9, "small": 0.5}, cost_unit="USD")
    assert (priced.options, priced.costs.tolist()) == (("small", "large"), [[0.5, 9]])
    for costs, message in (
        ({"large": 9.0}, r"No cost was given for small"),
        ({"large": 1.0, "tiny": 2.0}, r"Costs were given for tiny"),
        ({"large": 1.0, "small": -2.0}, "at least 0"),
    ):
        with pytest.raises(DataError, match=message):
            read_lmms_eval(small_large, costs=costs)
    with pytest.raises(DataError, match=r"No cost was given for small"):
        read_lmms_eval({"36": path, "small": path})
    with pytest.raises(DataError, match="at least one OPTION=PATH"):
        read_lmms_eval({})


# --- scores ----------------------------------------------------------------------------------


MMBENCH = {
    "index": 241,
    "question": "What is it?",
    "answer": "B",
    "prediction": "B. dog",
    "hint": "nan",
    "A": "cat",
    "B": "dog",
    "C": "nan",
    "D": float("nan"),
    "E": "nan",
}


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (1.0, 1.0),
        (True, 1.0),
        (0, 0.0),
        (0.6, 0.6),
        ([0.5], 0.5),
        ({"question_type": "Doc-oriented VQA", "score": 1, "prediction": "x"}, 1.0),
        ({"pred": "A", "answer": "A", "question_id": "1"}, 1.0),
        ({"pred": "C", "answer": "A", "question_id": "1"}, 0.0),
        ({"pred": "a", "answer": "A", "question_id": "1"}, 1.0),
        ({"pred": 3, "ground_truth": "3"}, 1.0),
        ({"pred": -1, "ground_truth": "3"}, 0.0),
        (MMBENCH, 1.0),
        (MMBENCH | {"prediction": "It is a dog."}, 1.0),
        (MMBENCH | {"prediction": "A banana"}, 0.0),
        (MMBENCH | {"prediction": "neither"}, 0.0),
        (MMBENCH | {"answer": "nan"}, None),
        ({"parsed_pred": ["B"], "answer": "B", "question_type": "multiple-choice"}, 1.0),
        ({"parsed_pred": ["B", "A"], "answer": ["A"], "question_type": "multiple-choice"}, 1.0),
        ({"parsed_pred": ["B"], "answer": "BC", "question_type": "multiple-choice"}, 0.0),
        ({"id": "x", "score": ["1"]}, 1.0),
        ({"parsed_pred": ["3"], "answer": "3", "question_type": "open"}, None),
        (None, None),
        (float("nan"), None),
    ],
)
def test_published_forms(value: Any, score: float | None) -> None:
    assert score_of(value) == score


@pytest.mark.parametrize(
    "value", [1.5, -1, 100.0, "yes", [], [1, 0], {"index": 1, "prediction": "A"}, {"score": 7}]
)
def test_other_forms_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match="no score can be read|is not in"):
        score_of(value)


def test_the_longest_known_start_of_a_task_counts() -> None:
    assert set(SCORE_FIELDS) >= {"gqa", "pope", "mme", "vizwiz_vqa"}
    assert metric_of("vqav2_val", {"exact_match": 1}, {}) == "exact_match"
    assert metric_of("vqav2_val", {"exact_match": 1, "b": 0}, {"vqav2_val": "b"}) == "b"
    with pytest.raises(DataError, match="'gqax' is not known"):
        metric_of("gqax", {"exact_match": 1}, {})


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 6), st.sampled_from(["1", "9", "36"])),
        st.integers(0, 4).map(lambda quarter: quarter / 4),
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_cells_land_where_they_belong(tmp_path_factory, cells, random) -> None:
    """In any order of lines and options, every score stands at its example and option."""
    folder = tmp_path_factory.mktemp("runs")
    options = sorted({option for _, option in cells}, key=lambda _: random.random())
    for option in options:
        lines = [sample(i, exact_match=s) for (i, o), s in cells.items() if o == option]
        random.shuffle(lines)
        jsonl(folder / f"{option}_samples_gqa.jsonl", *lines)
    shared = len(options) == 1 or len({i for i, _ in cells}) < len(cells)
    runs = {option: folder / f"{option}_samples_gqa.jsonl" for option in options}
    if not shared:
        with pytest.raises(DataError, match="no example in common"):
            read_lmms_eval(runs)
        return
    log = read_lmms_eval(runs)
    assert list(log.options) == sorted(options, key=int)
    found = {
        (int(name.removeprefix("gqa/")), option): log.scores[row, column]
        for row, name in enumerate(log.ids)
        for column, option in enumerate(log.options)
        if np.isfinite(log.scores[row, column])
    }
    assert found == cells


def test_letters_of_mmbench_keep_their_places() -> None:
    """A choice that is missing, and one whose text is the word None."""
    sample = {"prediction": "a dog", "answer": "D", "A": "None", "B": "nan", "C": "cat", "D": "dog"}
    assert score_of(sample) == 1.0
    assert score_of({**sample, "prediction": "a banana", "answer": "B", "B": "banana"}) == 1.0
    assert score_of({**sample, "prediction": "a banana"}) == 0.0  # 'nan' is not a choice


def test_addresses_and_long_names_are_no_images(tmp_path: Path) -> None:
    for name in ("https://example.org/a.png", "a" * 300 + ".png", "a\0.png"):
        path = tmp_path / "x_samples_gqa.jsonl"
        doc = {"question": "q", "image": name}
        path.write_text(json.dumps({"doc_id": 0, "doc": doc, "exact_match": 1.0}) + "\n")
        log = read_lmms_eval({"1": path})
        assert list(log.images) == [""]
        assert list(log.groups) == [f"gqa/{name}"]


def test_several_runs_of_an_option(tmp_path: Path) -> None:
    gqa = run(tmp_path / "a", "gqa", sample(0))
    mine = run(tmp_path / "b", "vqav2_val", sample(0), sample(1))
    log = read_lmms_eval({"576": [gqa, mine]})
    assert log.ids == ("gqa/0", "vqav2_val/0", "vqav2_val/1")
    assert [one["path"] for one in log.metadata["runs"]["576"]["runs"]] == ["a", "b"]
    with pytest.raises(DataError, match="Option '576' has the task 'gqa' twice"):
        read_lmms_eval({"576": [gqa, run(tmp_path / "c", "gqa", sample(0))]})


def test_seconds_and_tokens_are_in_the_metadata(tmp_path: Path) -> None:
    counts = [{"input_tokens": 600, "output_tokens": n, "reasoning_tokens": 0} for n in (2, 4)]
    lines = [sample(n) | {"token_counts": [one]} for n, one in enumerate(counts)]
    folder = run(tmp_path / "576", "gqa", *lines, sample(2))
    (results,) = folder.rglob("*results.json")
    about = json.loads(results.read_text())
    about |= {"total_evaluation_time_seconds": "12.5", "model_name": "org/m",
              "n-samples": {"gqa": {"original": 9, "effective": 3}}}  # fmt: skip
    results.write_text(json.dumps(about))
    log = read_lmms_eval({"576": folder})
    found = log.metadata["runs"]["576"]
    assert (found["seconds"], found["model_name"]) == (12.5, "org/m")
    assert found["samples"] == {"gqa": 3}
    assert (found["answer_tokens"], found["mean_answer_tokens"]) == (6, 3)
    np.testing.assert_array_equal(log.laid_out("answer_tokens").ravel(), [2, 4, np.nan])


@pytest.mark.parametrize(
    "counts",
    [None, [], [None], [{}], "3", *([{"output_tokens": one}] for one in (-1, 1.5, True, "2"))],
)
def test_odd_token_counts_are_none(tmp_path: Path, counts: Any) -> None:
    path = jsonl(tmp_path / "x_samples_gqa.jsonl", sample(0) | {"token_counts": counts})
    log = read_lmms_eval({"576": path})
    assert np.isnan(log.laid_out("answer_tokens")).all()
    assert "mean_answer_tokens" not in log.metadata["runs"]["576"]


def test_bad_samples_are_left_out_and_told(tmp_path: Path) -> None:
    lines = [sample(0), '{"doc_id": 1, "tar', {"target": "yes"}, sample(3, exact_match=7),
             sample(4), sample(4), sample(5)]  # fmt: skip
    path = jsonl(tmp_path / "x_samples_gqa.jsonl", *lines)
    with pytest.raises(DataError, match="line 2 is not JSON.*--skip-bad"):
        read_lmms_eval({"576": path})
    log = read_lmms_eval({"576": path}, skip_bad=True)
    assert log.ids == ("gqa/0", "gqa/5")
    for part in ("line 2 is not JSON and was left out", "sample 2 has no 'doc_id'",
                 "doc_id 3: the score 7 is not in [0, 1]", "gqa/4 more than once"):  # fmt: skip
        assert part in told(log), part


def counted(doc_id: int, prompt: int | None, answer: int | None, **more: Any) -> dict[str, Any]:
    """A sample of a version that counts tokens (lmms_eval/api/instance.py, ``TokenCounts``)."""
    told = {"input_tokens": prompt, "output_tokens": answer, "reasoning_tokens": 0}
    counts = {name: value for name, value in told.items() if value is not None}
    return sample(doc_id, exact_match=1.0, **more) | {"token_counts": [counts or None]}


def test_tokens_of_every_answer_are_its_cost(tmp_path: Path) -> None:
    runs = {
        "small": jsonl(tmp_path / "s_samples_gqa.jsonl", counted(0, 600, 30), counted(1, 400, 20)),
        "large": jsonl(tmp_path / "l_samples_gqa.jsonl", counted(0, 600, 3), counted(1, 400, 2)),
    }
    log = read_lmms_eval(runs, costs="tokens")
    assert log.options == ("large", "small") and log.cost_unit == "tokens"
    assert log.costs.tolist() == [[603, 630], [402, 420]]
    assert log.laid_out("answer_tokens").tolist() == [[3, 30], [2, 20]]
    assert "by the order given they would be small, large" in told(log)
    assert log.metadata["runs"]["small"]["prompt_tokens"] == 1000
    log = read_lmms_eval(runs, prices={"small": Prices(input=0.1, output=0.4),
                                       "large": Prices(input=2.5, output=10.0)})  # fmt: skip
    assert log.options == ("small", "large") and log.cost_unit == "USD"
    expected = [[(600 * 0.1 + 30 * 0.4) / 1e6, (600 * 2.5 + 3 * 10) / 1e6],
                [(400 * 0.1 + 20 * 0.4) / 1e6, (400 * 2.5 + 2 * 10) / 1e6]]  # fmt: skip
    np.testing.assert_allclose(log.costs, expected)
    np.testing.assert_allclose(log.laid_out("price"), expected)
    assert "order given" not in told(log)
    assert "--price counts what every answer took" in told(read_lmms_eval(runs))
    log = read_lmms_eval(runs, costs={"small": 1, "large": 7}, cost_unit="GB")
    assert log.costs.tolist() == [[1, 7]] * 2 and log.cost_unit == "GB"


def test_answers_without_a_cost_are_named(tmp_path: Path) -> None:
    whole = jsonl(tmp_path / "s_samples_gqa.jsonl", counted(0, 600, 30), counted(1, 400, 20))
    half = jsonl(tmp_path / "l_samples_gqa.jsonl", counted(0, 600, 3), counted(1, 400, None))
    runs = {"small": whole, "large": half}
    with pytest.raises(DataError, match=r"large: 1 of 2 answers have no 'tokens'.*gqa/1.*--skip"):
        read_lmms_eval(runs, costs="tokens")
    log = read_lmms_eval(runs, costs="tokens", skip_bad=True)
    assert log.options == ("small", "large")
    assert np.isnan(log.scores).tolist() == [[False, False], [False, True]]
    assert log.errors()["error"].tolist() == ["no cost: the answer has no 'tokens'"]
    assert "1 of 2 answers have no 'tokens'" in told(log)
    with pytest.raises(DataError, match="2 of 2 answers have no 'seconds'"):
        read_lmms_eval(runs, costs="seconds", skip_bad=True)
    with pytest.raises(DataError, match=r"No price was given for large"):
        read_lmms_eval(runs, prices={"small": Prices(input=1.0)})


def test_a_field_of_the_samples_is_the_cost(tmp_path: Path) -> None:
    lines = [sample(n) | {"latency": 0.5 + n} for n in range(2)]
    path = jsonl(tmp_path / "s_samples_gqa.jsonl", *lines)
    log = read_lmms_eval({"a": path}, costs="latency", cost_unit="seconds")
    assert log.costs.tolist() == [[0.5], [1.5]] and log.cost_unit == "seconds"
    assert "latency" not in told(log)


def test_groups_of_a_table(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s_samples_gqa.jsonl", *(sample(n) for n in range(3)))
    table = tmp_path / "gqa.csv"
    table.write_text("doc_id,image_id\n0,n7\n1,n8\n2,n7\n")
    log = read_lmms_eval({"1": path}, groups={"gqa": table})
    assert list(log.groups) == ["gqa/n7", "gqa/n8", "gqa/n7"]
    assert "do not say which image" not in told(log)
    table.write_text("doc_id,image_id\n0,n7\n1,n8\n")
    with pytest.raises(MismatchError, match=r"image of 1 of 3 examples of '\*' \(gqa/2\)"):
        read_lmms_eval({"1": path}, groups={"*": table})
    table.write_text("doc_id,name\n0,n7\n")
    with pytest.raises(DataError, match="does not tell which questions share an image"):
        read_lmms_eval({"1": path}, groups={"gqa": table})
