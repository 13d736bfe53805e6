"""Judging a log by a real server in this process: once each, resumable, never a wrong score."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m3router.data.errors import DataError, ModelError
from m3router.data.example import Example
from m3router.data.log.checks import JUDGE
from m3router.data.log.oracle_log import OracleLog
from m3router.data.prices import Prices
from m3router.data.scoring.judged import WAITING
from m3router.data.sources.benchmarks.base import SHORT
from m3router.m3core.endpoint.keys import Key
from m3router.m3core.endpoint.meter import RequestLimitError
from m3router.m3core.endpoint.retries import RetryPolicy
from m3router.m3core.judging import JudgingStopped, connect_judge, judge_log, protocol
from tests.m3core.judge_server import Body, judge_server

OPTIONS = ("low", "high")
ANSWERS = {"a": ("a man", "A man singing"), "b": ("dog", "dog"), "c": ("cat", None)}
AT_ONCE = RetryPolicy(attempts=3, wait=lambda seconds: None)


def log_of(*, metric: str = "exact", dataset: str = "msvdqa", **more: Any) -> OracleLog:
    """Three questions at two options; one generation failed, two answers are equal."""
    rows = []
    for name, answers in ANSWERS.items():
        for option, cost, answer in zip(OPTIONS, (1.0, 9.0), answers, strict=True):
            waiting = metric.startswith("judge:") and answer is not None
            failed = "out of memory" if answer is None else None
            rows.append(
                {
                    "example_id": name,
                    "group": f"{name}.png",
                    "dataset": dataset,
                    "question": f"Who is {name}? {SHORT.strip()}",
                    "image": f"{name}.png",
                    "scale": option,
                    "cost": cost,
                    "answer": answer,
                    "score": None if waiting or failed else 0.0,
                    "error": WAITING if waiting else failed,
                    "chance": 0.0,
                    "references": (f"reference {name}",),
                    "metric": metric,
                    **more,
                }
            )
    return OracleLog(pd.DataFrame(rows), options=OPTIONS, cost_unit="visual tokens")


def says_yes_to_men(body: Body) -> str:
    asked = body["messages"][-1]["content"]
    return str({"pred": "yes" if "man" in asked.split("Predicted Answer:")[1][:20] else "no",
                "score": 4})  # fmt: skip


def test_equal_answers_are_judged_once_and_what_failed_stays_a_failure(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    with (
        judge_server(says_yes_to_men) as server,
        connect_judge(
            server.url,
            model="judge",
            protocol=protocol("video-qa"),
            key=Key("sk-secret"),
            prices=Prices(input=1.0, output=10.0),
            retry=AT_ONCE,
        ) as judge,
    ):
        judged = judge_log(
            log_of(), judge, folder=tmp_path, progress=lambda *state: progress.append(state)
        )
    assert len(server.asked) == 4  # "dog" at both options is one request
    assert judged.scores.tolist()[:2] == [[1.0, 1.0], [0.0, 0.0]]
    assert judged.scores[2][0] == 0.0 and np.isnan(judged.scores[2][1])
    assert judged.errors()["error"].tolist() == ["out of memory"]
    assert set(judged.metrics) == {"judge:video-qa"}
    assert progress[0] == (0, 4) and progress[-1] == (4, 4)
    body = server.asked[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0, 256)
    assert "using a single word" not in body["messages"][1]["content"]
    assert set(server.keys) == {"Bearer sk-secret"}
    told = judged.metadata[JUDGE]
    assert told["name"] == "judge" and told["models"] == ["judge-2026-01"]
    assert told["url"] == server.url and told["protocol"] == "video-qa"
    assert told["prompt_sha256"] == protocol("video-qa").prompt_sha256
    assert "Video-ChatGPT" in told["source"] and "Predicted Answer: {answer}" in told["prompt"]
    assert told["before"] == {"exact": {"low": 0.0, "high": 0.0}}
    assert told["published"]["high"] == {"accuracy": 50.0, "score": 4.0}
    assert told["usage"]["verdicts"] == told["usage"]["attempts"] == 4
    assert told["usage"]["price"] == pytest.approx(4 * (100 * 1.0 + 4 * 10.0) / 1e6)
    written = "".join(path.read_text() for path in tmp_path.glob("journal*.jsonl"))
    assert "sk-secret" not in written + json.dumps(judged.metadata)


def test_verdicts_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    replies = Counter[str]()

    def reply(body: Body) -> str | int:
        asked = body["messages"][-1]["content"]
        replies[asked] += 1
        return (
            500
            if "Predicted Answer: dog" in asked and replies[asked] <= 3
            else says_yes_to_men(body)
        )

    with judge_server(reply) as server:
        for count, errors in ((6, 2), (7, 0), (7, 0)):
            with connect_judge(
                server.url, model="judge", protocol=protocol("video-qa"), retry=AT_ONCE
            ) as judge:
                judged = judge_log(log_of(), judge, folder=tmp_path)
            found = judged.frame["error"].fillna("")
            assert len(server.asked) == count
            assert found.str.startswith("not judged: ").sum() == errors
    assert judged.scores[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("how", ["stopped", "limit", "refused"])
def test_a_run_that_ends_early_keeps_its_verdicts(how: str, tmp_path: Path) -> None:
    def reply(body: Body) -> str | int:
        return 401 if how == "refused" and len(server.asked) > 2 else says_yes_to_men(body)

    raised = {"stopped": JudgingStopped, "limit": RequestLimitError, "refused": ModelError}[how]
    with judge_server(reply) as server:
        asked = {"model": "judge", "protocol": protocol("video-qa"), "retry": AT_ONCE}
        with (
            connect_judge(server.url, max_requests=2 if how == "limit" else None, **asked) as judge,
            pytest.raises(raised),
        ):
            judge_log(
                log_of(),
                judge,
                folder=tmp_path,
                in_flight=1,
                stopped=lambda: how == "stopped" and len(server.asked) >= 2,
            )
        how = "finish"
        before = len(server.asked)
        with connect_judge(server.url, **asked) as judge:
            judged = judge_log(log_of(), judge, folder=tmp_path)
        assert len(server.asked) - before == 2
    assert judged.scores[0].tolist() == [1.0, 1.0]


def test_what_cannot_be_read_is_asked_for_once_more_and_is_no_score(tmp_path: Path) -> None:
    def reply(body: Body) -> str:
        asked = body["messages"][-1]["content"]
        if asked.endswith("Predict the correctness of the answer (digit): "):
            return "0.3" if "| a man |" in asked else "I cannot say"
        return "0.9" if "| cat |" in asked else "Correctness"

    log = log_of(metric="judge:mm-vet", dataset="mmvet/ocr")
    assert np.isnan(log.scores).all()
    with (
        judge_server(reply) as server,
        connect_judge(server.url, model="judge", protocol=protocol("mm-vet")) as judge,
    ):
        judged = judge_log(log, judge, folder=tmp_path)
        assert {body["max_tokens"] for body in server.asked} == {3}
    frame = judged.frame.set_index(["example_id", "scale"])
    assert frame["score"]["a", "low"] == 0.3 and frame["score"]["c", "low"] == 0.9
    assert "not as mm-vet asks for: 'I cannot say'" in frame["error"]["b", "high"]
    assert frame["error"]["c", "high"] == "out of memory"
    assert judged.metadata[JUDGE]["published"]["low"] == {
        "total": pytest.approx(60.0),
        "ocr": pytest.approx(60.0),
    }


def test_a_judge_that_only_fails_is_an_error_and_not_a_log(tmp_path: Path) -> None:
    with (
        judge_server(lambda body: "Certainly!") as server,
        connect_judge(server.url, model="judge", protocol=protocol("video-qa")) as judge,
        pytest.raises(ModelError, match="none of the first 4 verdicts .*'Certainly!'.*--body"),
    ):
        judge_log(log_of(), judge, folder=tmp_path)


def test_llava_bench_needs_to_be_told_what_the_images_show(tmp_path: Path) -> None:
    log = log_of(metric="judge:llava-bench", dataset="llava-bench/conv")
    with (
        judge_server(lambda body: "8 6\nThe first is better.") as server,
        connect_judge(server.url, model="judge", protocol=protocol("llava-bench")) as judge,
    ):
        with pytest.raises(DataError, match=r"3 examples, first 'a', have no context .*--examples"):
            judge_log(log, judge, folder=tmp_path)
        known = [
            Example(
                id=name,
                image=f"{name}.png",
                question="?",
                answers=("x",),
                metric="judge:llava-bench",
                context=f"A picture of {name}.",
            )
            for name in ANSWERS
        ]
        judged = judge_log(log, judge, folder=tmp_path, examples=known)
    assert judged.scores[0].tolist() == [0.6, 0.6]
    assert judged.metadata[JUDGE]["published"]["low"] == {"all": 75.0, "conv": 75.0}
    assert any("[Context]\nA picture of a.\n" in b["messages"][1]["content"] for b in server.asked)


def test_logs_that_cannot_be_judged_say_why(tmp_path: Path) -> None:
    with connect_judge("http://localhost:1", model="j", protocol=protocol("video-qa")) as judge:
        cases = {
            "no reference answers": log_of(references=()),
            "has no answers that could be judged": log_of(answer=None, error="x", score=None),
            "Did you mean 'msvdqa'": log_of(),
            "judged as 'judge:mm-vet', not by 'video-qa'": log_of(metric="judge:mm-vet"),
        }
        for message, log in cases.items():
            datasets = ("msvdqaa",) if "mean" in message else ()
            with pytest.raises(DataError, match=message):
                judge_log(log, judge, folder=tmp_path, datasets=datasets)


def test_another_protocol_judges_other_examples_of_the_same_log(tmp_path: Path) -> None:
    both = pd.concat(
        [
            log_of().frame,
            log_of(metric="judge:mm-vet", dataset="mmvet").frame.assign(
                example_id=lambda rows: "v" + rows["example_id"]
            ),
        ]
    )
    log = OracleLog(both, options=OPTIONS, cost_unit="visual tokens")

    def reply(body: Body) -> str:
        return "0.5" if "Ground truth" in body["messages"][0]["content"] else says_yes_to_men(body)

    with judge_server(reply) as server:
        for name, datasets in (("mm-vet", ()), ("video-qa", ("msvdqa",)), ("mm-vet", ())):
            with connect_judge(
                server.url, model="judge", protocol=protocol(name), patch={"max_tokens": None}
            ) as judge:
                log = judge_log(log, judge, folder=tmp_path / name, datasets=datasets)
    assert Counter(log.metrics) == {"judge:mm-vet": 3, "judge:video-qa": 3}
    assert log.scores[[0, 3]].tolist() == [[1.0, 1.0], [0.5, 0.5]]
    told = log.metadata[JUDGE]
    assert told["protocol"] == "mm-vet" and list(told["others"]) == ["video-qa"]
    assert told["others"]["video-qa"]["before"] == {"exact": {"low": 0.0, "high": 0.0}}
    assert told["before"] == {} and all("max_tokens" not in body for body in server.asked)
