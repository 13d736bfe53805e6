"""`m3router judge`: answers of a labelled or imported log, scored by a server in this process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from m3router.data.log.checks import JUDGE
from m3router.data.log.oracle_log import OracleLog
from tests.cli.conftest import Invoke, write_world
from tests.m3core.judge_server import Body, judge_server


def says_yes_to_yes(body: Body) -> str:
    said = body["messages"][-1]["content"].split("Predicted Answer: ")[1][:3]
    return json.dumps({"pred": "yes" if said == "yes" else "no", "score": 5})


def plain(text: str) -> str:
    return " ".join(text.split())


def test_label_then_judge_then_label_again(tmp_path: Path, invoke: Invoke) -> None:
    world = write_world(tmp_path / "world", images=3)
    text = world.examples.read_text().replace('"yes_no"', '"judge:video-qa"')
    world.examples.write_text(text)
    run = tmp_path / "run"
    label = ["label", "--examples", world.examples, "--images", world.images, "--model", "fake"]
    refused = invoke(*label, "--until-correct", "--out", tmp_path / "other")
    assert refused.exit_code == 2 and "a judge scores it when all answers" in plain(refused.output)
    labelled = invoke(*label, "--out", run)
    assert labelled.exit_code == 3
    assert "not judged yet: run `m3router judge`" in plain(labelled.output)
    waiting = OracleLog.read(run / "log")
    assert np.isnan(waiting.scores).all() and waiting.frame["answer"].notna().all()

    with judge_server(says_yes_to_yes) as server:
        judge = ["judge", run, "--judge", server.url, "--model", "j", "--price", "input=1"]
        stopped = invoke(*judge, "--max-requests", 1, "--in-flight", 1)
        assert stopped.exit_code == 0 and "--max-requests" in stopped.output
        assert OracleLog.read(run / "log").frame.equals(waiting.frame)
        judged = invoke(*judge)
        assert judged.exit_code == 0, judged.output
        asked = len(server.asked)
        assert invoke(*judge).exit_code == 0 and len(server.asked) == asked
    assert asked == len(set(zip(waiting.frame["question"], waiting.frame["answer"], strict=True)))
    assert "accuracy" in judged.output and "price" in judged.output
    log = OracleLog.read(run / "log")
    said_yes = log.laid_out("answer") == "yes"
    assert (log.scores == said_yes).all() and 0 < said_yes.mean() < 1
    assert OracleLog.read(run / "judging" / "before").frame.equals(waiting.frame)

    again = invoke(*label, "--out", run, "--retry-errors")
    assert again.exit_code == 0, again.output
    assert OracleLog.read(run / "log").metadata[JUDGE]["protocol"] == "video-qa"


def test_ctrl_c_keeps_the_verdicts_and_the_log(tmp_path: Path, invoke: Invoke) -> None:
    table = tmp_path / "answers.csv"
    rows = [f"{name},Who?,{option},0,{name}{option},1,man" for name in "abcd" for option in "xy"]
    table.write_text("\n".join(["id,question,option,correct,answer,cost,reference", *rows]))
    run = tmp_path / "run"
    assert invoke("import", "table", table, "--out", run).exit_code == 0
    before = OracleLog.read(run / "log").frame

    def reply(body: Body) -> str:
        if len(server.asked) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return says_yes_to_yes(body)

    with judge_server(reply) as server:
        judge = ["judge", run, "--judge", server.url, "--model", "j", "--protocol", "video-qa"]
        stopped = invoke(*judge, "--in-flight", 1)
        assert stopped.exit_code == 130, stopped.output
        done = len(server.asked)
        assert f"{done} of 8 verdicts are there; go on with the same command" in stopped.output
        assert 3 <= done < 8 and OracleLog.read(run / "log").frame.equals(before)
        assert invoke(*judge).exit_code == 0 and len(server.asked) == 8


def test_an_imported_log_is_judged_by_the_protocol_that_is_named(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "answers.csv"
    table.write_text("id,question,option,correct,answer,cost\na,Who?,x,0,yes,1\na,Who?,y,0,no,2\n")
    run = tmp_path / "run"
    assert invoke("import", "table", table, "--out", run).exit_code == 0
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"id": "a", "image": "a.png", "question": "Who?", "answer": "a man"}\n')
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Is it {reference}?\nPredicted Answer: {answer}")
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with judge_server(says_yes_to_yes) as server:
        judge = ["judge", run, "--judge", server.url, "--model", "j"]
        assert "must be said (--protocol)" in plain(invoke(*judge).output)
        judge += ["--protocol", "video-qa"]
        assert "no reference answers" in plain(invoke(*judge).output)
        judge += ["--examples", examples, "--prompt", prompt, "--key-env", "JUDGE_KEY"]
        judged = invoke(*judge, "--body", '{"max_tokens": 9}')
        assert judged.exit_code == 0, judged.output
        assert server.keys == ["Bearer sk-secret"] * 2
        assert {body["max_tokens"] for body in server.asked} == {9}
        assert server.asked[0]["messages"][1]["content"].startswith("Is it a man?")
    log = OracleLog.read(run / "log")
    assert log.scores.tolist() == [[1.0, 0.0]]
    assert log.metadata[JUDGE]["patch"] == {"max_tokens": 9}
    assert "source" in log.metadata  # of the import
    for wrong, message in (
        (["--body", "[]"], "an object of JSON"),
        (["--price", "tokens=1"], "Unknown price"),
        (["--protocol", "mmvet"], "Did you mean 'mm-vet'"),
        (["--judge", "http://user:pw@host"], "has a user or a password"),
    ):
        given = list(judge)
        if wrong[0] in given:
            given[given.index(wrong[0]) + 1] = wrong[1]
        else:
            given += wrong
        result = invoke(*given)
        assert result.exit_code == 2 and message in plain(result.output)
