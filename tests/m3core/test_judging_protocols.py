"""Protocols of judged benchmarks: prompts as published, replies as published scripts read them."""

from __future__ import annotations

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.scoring.metrics import JUDGED, JUDGED_METRICS
from m3router.data.sources.benchmarks.table import BENCHMARKS, benchmark
from m3router.m3core.judging.protocols.base import JudgeRequest
from m3router.m3core.judging.protocols.llava_bench import parse_pair
from m3router.m3core.judging.protocols.llava_bench import summarize as relative_scores
from m3router.m3core.judging.protocols.mm_vet import parse_correctness
from m3router.m3core.judging.protocols.mm_vet import summarize as capabilities
from m3router.m3core.judging.protocols.table import PROTOCOLS, protocol
from m3router.m3core.judging.protocols.video_qa import parse_dictionary

REQUEST = JudgeRequest(
    question="What is x?", references=("-1<AND>-5",), answer="x = {reference}", context="A board."
)
REPLIES = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789.,-+ \n\teE_", max_size=12),
    st.text(alphabet="{}'\":predscoreysno0123456789., \n", max_size=60),
)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_a_metric_and_a_benchmark_that_names_it(name: str) -> None:
    assert f"{JUDGED}{name}" in JUDGED_METRICS
    assert name in {benchmark(one).judge for one in BENCHMARKS}
    found = protocol(name)
    assert found.name == name and re.search("commit [0-9a-f]{7}", found.source)


def test_mm_vet_s_prompt_is_the_published_one() -> None:
    (message,) = protocol("mm-vet").messages(REQUEST)
    text = message["content"]
    assert text.endswith(
        "actual physical characteristics. | 1.0\n\nWhat is x? | -1 <AND> -5 | x = {reference} | "
    )
    assert "\n\nQuestion | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n" in text
    again = protocol("mm-vet").messages(REQUEST, again=True)[0]["content"]
    assert again == text + "\nPredict the correctness of the answer (digit): "


def test_llava_bench_s_prompt_is_the_published_one() -> None:
    system, user = protocol("llava-bench").messages(REQUEST)
    assert system["content"].startswith("You are a helpful and precise assistant for checking")
    assert user["content"].startswith(
        "[Context]\nA board.\n\n[Question]\nWhat is x?\n\n"
        "[Assistant 1]\n-1<AND>-5\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nx = {reference}\n\n[End of Assistant 2]\n\n[System]\nWe would like"
    )
    assert user["content"].endswith("does not affect your judgment.\n\n")


def test_video_qa_s_prompt_is_the_published_one() -> None:
    asked = JudgeRequest(
        question="who sings? Answer the question using a single word or phrase.",
        references=("man",),
        answer="a man",
    )
    system, user = protocol("video-qa").messages(asked)
    assert "the task:------##INSTRUCTIONS: - Focus on" in system["content"]
    assert user["content"].startswith(
        "Please evaluate the following video-based question-answer pair:\n\n"
        "Question: who sings?\nCorrect Answer: man\nPredicted Answer: a man\n\nProvide"
    )
    assert user["content"].endswith("look like this: {'pred': 'yes', 'score': 4.8}.")


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("mm-vet", "99a9b72effcbed72"),
        ("llava-bench", "4036c4897a8047d0"),
        ("video-qa", "db1c6a7f16532a92"),
    ],
)
def test_prompts_are_those_that_were_compared_with_the_published_files(
    name: str, sha256: str
) -> None:
    assert protocol(name).prompt_sha256[:16] == sha256


def test_another_prompt_is_said_to_be_another_one() -> None:
    other = protocol("mm-vet").with_prompt("Is {answer} the same as {reference}?")
    assert other.messages(REQUEST)[0]["content"] == "Is x = {reference} the same as -1 <AND> -5?"
    assert other.prompt_sha256 != protocol("mm-vet").prompt_sha256
    assert "another" in other.deviations[-1]
    with pytest.raises(DataError, match=r"needs \{answer\}"):
        protocol("mm-vet").with_prompt("Is {reference} right?")


@given(reply=REPLIES)
def test_replies_are_read_or_refused_but_never_break(reply: str) -> None:
    for name in PROTOCOLS:
        grade = protocol(name).parse(reply)
        assert grade is None or 0 <= grade.score <= 1


@given(reply=REPLIES)
def test_mm_vet_reads_what_the_published_script_reads(reply: str) -> None:
    try:  # the published rule, of a reply whose outer white space was taken off
        published = float(reply.strip().split(" ")[0].strip())
        assert 0 <= published <= 1
    except (ValueError, AssertionError):
        return
    plain = re.fullmatch(r"[+-]?[0-9.]+", reply.strip().split(" ")[0])
    grade = parse_correctness(reply)
    assert grade is not None and grade.score == published if plain else True


@given(one=st.floats(0, 10), two=st.floats(0, 10), more=st.text(max_size=20))
def test_llava_bench_reads_what_the_published_script_reads(
    one: float, two: float, more: str
) -> None:
    grade = parse_pair(f"{one:.2f} {two:.2f}\n{more}")
    assert grade is not None
    assert grade.numbers == {"reference": float(f"{one:.2f}"), "answer": float(f"{two:.2f}")}


@given(
    pred=st.sampled_from(["yes", "no", "Yes.", "NO"]),
    score=st.one_of(st.integers(0, 5), st.sampled_from([4.8, 0.5])),
    double=st.booleans(),
    turned=st.booleans(),
)
def test_video_qa_reads_what_the_published_script_reads(
    pred: str, score: float, double: bool, turned: bool
) -> None:
    said = {"score": score, "pred": pred} if turned else {"pred": pred, "score": score}
    reply = str(said).replace("'", '"') if double else str(said)
    published = ast.literal_eval(reply)
    grade = parse_dictionary(reply)
    assert grade is not None
    assert grade.score == float("yes" in published["pred"].lower())
    assert grade.numbers["score"] == int(published["score"])
    assert parse_dictionary(f"```python\n{reply}\n```") == grade


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("mm-vet", "1.5"),
        ("mm-vet", "nan"),
        ("mm-vet", "Correct: 0.5"),
        ("mm-vet", ""),
        ("llava-bench", "8"),
        ("llava-bench", "8 7 6"),
        ("llava-bench", "85 90"),
        ("llava-bench", "Assistant 1: 8\nAssistant 2: 7"),
        ("video-qa", "yes"),
        ("video-qa", "{'pred': 'maybe', 'score': 3}"),
        ("video-qa", "{'pred': 'yes', 'score': 9}"),
        ("video-qa", "{'pred': 'yes'}"),
        ("video-qa", "{'pred': 'yes', 'score': 4} {'pred': 'no', 'score': 1}"),
    ],
)
def test_what_cannot_be_read_has_no_score(name: str, reply: str) -> None:
    assert protocol(name).parse(reply) is None


def test_published_numbers_are_computed_as_published() -> None:
    pairs = [("llava-bench/conv", 9.0, 6.0), ("llava-bench/conv", 8.0, 8.0), ("llava-bench", 7, 4)]
    verdicts = [(name, {"reference": ref, "answer": own}) for name, ref, own in pairs]
    # summarize_gpt_review.py: means rounded to three places, then their ratio to one
    assert relative_scores(verdicts) == {"all": round(6.0 / 8.0 * 100, 1), "conv": 82.4}
    graded = [("mmvet/rec,ocr", {"correctness": 1.0}), ("mmvet/ocr", {"correctness": 0.5})]
    assert capabilities(graded) == {"total": 75.0, "rec": 100.0, "ocr": 75.0}
    said = [{"yes": 1.0, "score": 4.0}, {"yes": 0.0, "score": 1.0}]
    summary = protocol("video-qa").summary([("msvdqa", one) for one in said])
    assert summary == {"accuracy": 50.0, "score": 2.5}
