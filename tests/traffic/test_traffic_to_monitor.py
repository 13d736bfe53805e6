"""From served answers to a verdict: recorded, written out, labelled, featurized, monitored."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.query import Query
from m3router.router.runs.run import Run
from m3router.router.serve.http.recording import served_request
from m3router.router.traffic import Feedback, MadeBy, Recorder, TrafficFolder, read_traffic
from m3router.router.traffic.answers import read_sheet, write_sheet
from tests.cli.conftest import invoke_app, write_world
from tests.traffic.made import filled, new_image, record


def done(*arguments: object, code: int = 0) -> str:
    result = invoke_app(*arguments)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A calibrated run, and recorded answers of its pipeline about other images."""
    root = tmp_path_factory.mktemp("served")
    old, new = write_world(root / "old"), write_world(root / "new", images=30, seed=1)
    label = ["label", "--examples", old.examples, "--images", old.images, "--model", "fake"]
    done(*label, "--out", root / "run")
    done("train", root / "run", "--no-ablations")
    # Every question counts, so that shares can be compared with those by hand.
    done("calibrate", root / "run", "--max-regret", 0.4, "--most", 4, "--policy", "safe")
    pipeline = AutoScalePipeline.load(root / "run", model=FakeModel(), policy="safe")
    examples = load_jsonl(new.examples, images=new.images)
    images = [Image.open(new.images / one.image).convert("RGB") for one in examples]
    routed = pipeline.answer(images, [one.question for one in examples])
    recorder = Recorder(root / "traffic", share=1.0)
    recorder.start(
        MadeBy(
            model="fake",
            revision=pipeline.model.revision,
            options=tuple(map(str, pipeline.model.grid.scales)),
            router=pipeline.router.fingerprint,
            policy="safe",
        )
    )
    for one, image, answer in zip(examples, images, routed, strict=True):
        ask = Query(id=one.id, image=image, question=one.question)
        while not recorder.offer(served_request(ask, answer)):
            pass  # the queue is full for a moment; this server has time
    recorder.stop(seconds=60)
    traffic = root / "traffic"
    done("traffic", "write", traffic, "week-34")
    images_of = ["--images", traffic / "images"]
    week = ["--examples", traffic / "sets" / "week-34.jsonl", *images_of, "--out", root / "fresh"]
    done("label", *week, "--model", "fake")
    done("featurize", root / "fresh", *images_of, "--encoder", "fake")
    return {"root": root, "examples": examples, "images": images, "routed": routed}


def by_hand(world) -> np.ndarray:
    """What the finest scale says to each question."""
    model = FakeModel()
    encodings = model.encode(world["images"])
    asked = zip(encodings, world["examples"], strict=True)
    requests = [Request(encoding=e, question=one.question, scale=576) for e, one in asked]
    return np.array([answer.text for answer in model.answer(requests)])


def monitored(world, *arguments: object) -> dict:
    root = world["root"]
    asked = ["--traffic", root / "fresh", "--policy", "safe", "--json", *arguments]
    result = invoke_app("monitor", root / "run", *asked)
    assert result.exit_code in (0, 4, 5), result.output
    return json.loads(result.stdout)


def test_the_log_of_the_traffic_holds_what_was_served(world):
    log = Run(world["root"] / "fresh").log()
    assert list(log.ids) == [one.id for one in world["examples"]]
    answers, options = log.laid_out("answer"), [int(option) for option in log.options]
    for row, routed in enumerate(world["routed"]):
        assert answers[row, options.index(routed.scale)] == routed.answer.text
    assert (answers[:, -1] == by_hand(world)).all()
    assert len(set(log.groups)) == 30  # one for each image


def test_monitor_without_references_agrees_with_the_hand(world):
    said = np.array([routed.answer.text for routed in world["routed"]])
    differs = said != by_hand(world)
    assert 0 < differs.mean() < 0.5
    found = monitored(world)
    assert found["regret"]["regret"] == pytest.approx(differs.mean())
    assert found["regret"]["regret_at_least"] == 0
    assert found["regret"]["unjudged"] == differs.sum()
    assert found["agreement"]["fresh"] == pytest.approx(1 - differs.mean())
    assert found["accuracy"]["fresh"] is None
    assert found["regret"]["verdict"] != "violated"
    spent = np.mean([routed.spent_tokens for routed in world["routed"]])
    assert found["cost"]["fresh"] == pytest.approx(spent)
    assert set(found["drift"]) == {"all blocks together", "image", "question"}


def test_what_is_disputed_is_so_against_the_reference_that_is_named(world, tmp_path):
    root = world["root"]
    log = Run(root / "fresh").log()
    answers = log.laid_out("answer")
    said = {
        one.id: r.answer.text for one, r in zip(world["examples"], world["routed"], strict=True)
    }
    for name in log.options:
        place = log.options.index(name)
        there = dict(zip(log.ids, answers[:, place], strict=True))
        wanted = {one for one, text in said.items() if text != there[one]}
        sheet = tmp_path / f"todo-{name}.csv"
        options = ["--disputed", root / "fresh", "--reference", name]
        told = done("traffic", "sheet", root / "traffic", sheet, *options)
        assert told.startswith(f"{len(wanted)} questions in")
    ask = ["traffic", "sheet", root / "traffic", tmp_path / "another.csv"]
    wrong = invoke_app(*ask, *options[:-1], "57")
    assert wrong.exit_code == 2 and "Unknown reference option '57'" in wrong.stderr
    assert invoke_app(*ask, "--reference", "576").exit_code == 2


def test_right_answers_to_what_differs_give_the_regret_itself(world, tmp_path):
    root, sheet = world["root"], tmp_path / "todo.csv"
    told = done("traffic", "sheet", root / "traffic", sheet, "--disputed", root / "fresh")
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    said = np.array([routed.answer.text for routed in world["routed"]])
    differs = said != by_hand(world)
    wanted = [one.id for one, other in zip(world["examples"], differs, strict=True) if other]
    assert [row["id"] for row in rows] == wanted
    assert f"{len(wanted)} questions in" in told
    for row in rows:
        row |= {"answers": "yes", "metric": "yes_no"}
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert f"{len(wanted)} right answers taken" in done(
        "traffic", "answers", root / "traffic", sheet
    )
    found = monitored(world, "--answers", root / "traffic" / "answered.jsonl")
    lost = (by_hand(world) == "yes") & (said != "yes")
    assert found["regret"]["regret"] == found["regret"]["regret_at_least"]
    assert found["regret"]["regret"] == pytest.approx(lost.mean())
    assert found["regret"]["unjudged"] == 0
    assert invoke_app("traffic", "sheet", root / "traffic", sheet).exit_code == 2  # is there


def test_feedback_tells_what_was_served_and_all_that_say_the_same(world, tmp_path):
    """Right is "yes": what loses to the finest answer by it is known to lose, other words not."""
    root = world["root"]
    traffic = tmp_path / "traffic"
    shutil.copytree(root / "traffic", traffic)
    said = np.array([routed.answer.text for routed in world["routed"]])
    finest = by_hand(world)
    with TrafficFolder.open(traffic) as folder:
        for one, text in zip(world["examples"], said, strict=True):
            answer = "" if text == "yes" else "yes"
            folder.add_feedback(one.id, Feedback(score=float(text == "yes"), answer=answer))
    found = monitored(world, "--feedback", traffic)["regret"]
    lost = (finest == "yes") & (said != "yes")
    open_ = (finest != said) & (said != "yes") & (finest != "yes")  # neither is what was told
    assert found["regret_at_least"] == pytest.approx(lost.mean())
    assert found["regret"] == pytest.approx((lost | open_).mean())
    assert found["unjudged"] == open_.sum()
    assert "with feedback" in done("traffic", "list", traffic, "--top", 0)
    told = done("traffic", "write", traffic, "right", "--feedback")
    examples = load_jsonl(traffic / "sets" / "right.jsonl", images=traffic / "images")
    assert {(one.answers, one.metric) for one in examples} == {(("yes",), "exact")}
    assert f"{len(said)} requests in" in told and len(examples) == len(said)
    labelled = ["--examples", traffic / "sets" / "right.jsonl", "--images", traffic / "images"]
    done("label", *labelled, "--model", "fake", "--out", tmp_path / "log")


def test_feedback_that_tells_no_right_answer_is_no_reference(tmp_path):
    root = filled(tmp_path / "traffic")
    with TrafficFolder.open(root) as folder:
        folder.add_feedback("one", Feedback(score=0.0))
        folder.add_feedback("other", Feedback(score=0.5))
    refused = invoke_app("traffic", "write", root, "right", "--feedback")
    assert refused.exit_code == 2 and "no feedback that tells a right answer" in refused.stderr
    with TrafficFolder.open(root) as folder:
        folder.add_feedback("one", Feedback(score=1.0, answer="one cat"))
        folder.add_feedback("other", Feedback(score=0.0, answer="two cats"))
    done("traffic", "write", root, "right", "--feedback")
    examples = load_jsonl(root / "sets" / "right.jsonl", images=root / "images")
    assert [one.answers for one in examples] == [("a cat", "one cat"), ("two cats",)]


def test_feedback_on_other_traffic_is_refused(world, tmp_path):
    root = filled(tmp_path / "traffic")
    command = ["monitor", world["root"] / "run", "--traffic", world["root"] / "fresh"]
    for folder in (root, tmp_path):
        result = invoke_app(*command, "--policy", "safe", "--feedback", folder)
        assert result.exit_code == 2
        said = " ".join(result.stderr.split())
        assert "None of the 0 requests with feedback" in said or "not a folder of recorded" in said


def test_answers_that_do_not_belong_are_refused(world, tmp_path):
    root, other = world["root"], tmp_path / "other.jsonl"
    line = {"id": world["examples"][0].id, "image": "a.png", "question": "?", "answers": ["yes"]}
    run, fresh = root / "run", root / "fresh"
    for lines, traffic, message in (
        ([line], fresh, "is for the question '?'"),
        ([{**line, "id": "never"}], fresh, "None of the 1 examples"),
        ([line], run, "was labelled with reference answers"),
    ):
        other.write_text("".join(json.dumps(one) + "\n" for one in lines))
        command = ["monitor", run, "--traffic", traffic, "--policy", "safe", "--answers", other]
        result = invoke_app(*command)
        assert result.exit_code == 2
        said = result.stderr.replace("\n", " ")
        assert message in said or (traffic == run and "shares" in said)


def test_a_router_learns_from_traffic_alone(world, tmp_path):
    root = world["root"]
    run = Run(root / "fresh").copy_data(tmp_path / "again")
    done("train", run.root, "--estimator", "logistic", "--no-ablations")
    done("calibrate", run.root, "--budget", 200)
    assert "There are no reference answers" in done("evaluate", run.root, "--draws", 5)


def test_the_command_lists_forgets_and_purges(tmp_path):
    root = filled(tmp_path / "traffic")
    listed = done("traffic", "list", root)
    assert "3 requests about 2 images" in listed
    assert "2 with right answers" in listed
    assert listed.index("alone") < listed.index("other")  # the newest first
    assert "what is" not in done("traffic", "list", root, "--top", 0)
    assert "what is other?" not in done("traffic", "list", root, "--top", 1)
    gone = done("traffic", "forget", root, "one", "never")
    assert gone.splitlines() == ["one: deleted", "never: nothing there"]
    assert [line["id"] for line in read_traffic(root)] == ["other", "alone"]
    assert "2 requests older than 0 days deleted" in done(
        "traffic", "purge", root, "--keep-days", 0
    )
    assert "0 requests" in done("traffic", "list", root)


def test_what_a_stranger_asked_does_not_reach_the_terminal(tmp_path):
    from m3router.router.traffic import TrafficFolder

    with TrafficFolder.open(tmp_path / "traffic", make=True) as folder:
        evil = record("one", new_image(1), question="[red]\x1b[2Jhello\nthere")
        folder.add(evil, new_image(1))
    listed = done("traffic", "list", tmp_path / "traffic")
    assert "\x1b" not in listed
    assert "[red]·[2Jhello·there" in listed


def test_what_is_no_traffic(tmp_path):
    root = filled(tmp_path / "traffic")
    assert invoke_app("traffic", root, "--purge", "--write", "a").exit_code == 2  # as it was
    assert invoke_app("traffic", "purge", root, "--top", 1).exit_code == 2
    assert invoke_app("traffic", "list", tmp_path).exit_code == 2


def sheet_of(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "question", "answers", "metric"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_bad_row_is_named_and_nothing_is_taken(tmp_path):
    records = read_traffic(filled(tmp_path / "traffic"))
    rows = [
        {"id": "one", "answers": "yes"},
        {"id": "one", "answers": "no"},
        {"id": "never", "answers": "yes"},
        {"id": "other", "answers": "perhaps", "metric": "yes_no"},
        {"id": "alone", "answers": "  "},
    ]
    with pytest.raises(DataError) as error:
        read_sheet(sheet_of(tmp_path / "sheet.csv", rows), records)
    said = str(error.value)
    assert "3 bad rows; no answer was taken" in said
    for part in ("row 3: id 'one' is repeated", "row 4: id 'never'", "row 5", "perhaps"):
        assert part in said
    with pytest.raises(DataError, match="fill in the column 'answers'"):
        read_sheet(sheet_of(tmp_path / "sheet.csv", rows[4:]), records)
    (tmp_path / "sheet.csv").write_text("id;answers\none;yes\n")  # as Excel saves it in Europe
    assert [one.answers for one in read_sheet(tmp_path / "sheet.csv", records)] == [("yes",)]
    (tmp_path / "sheet.csv").write_text("id,answers,metrics\none,yes,yes_no\n")
    with pytest.raises(DataError, match="'metrics': did you mean 'metric'"):
        read_sheet(tmp_path / "sheet.csv", records)
    (tmp_path / "sheet.csv").write_text("id,question,answers\none,Is it, then?,yes\n")
    with pytest.raises(DataError, match="more cells than the first line"):
        read_sheet(tmp_path / "sheet.csv", records)


def test_no_question_is_a_formula_to_a_spreadsheet(tmp_path):
    evil = [
        record(f"e{n}", new_image(n), question=f"{start}cmd()") for n, start in enumerate("=+-@")
    ]
    write_sheet(tmp_path / "sheet.csv", evil, answered=(), only=None)
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        assert all(row["question"].startswith("'") for row in csv.DictReader(file))


cell = st.text(st.characters(codec="utf-8", exclude_characters="|\x00\r")).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(answers=st.lists(cell, min_size=1, max_size=3))
def test_any_answers_come_back_from_a_sheet(tmp_path_factory, answers):
    folder = tmp_path_factory.mktemp("sheet")
    records = [record("one", new_image(1))]
    path = sheet_of(folder / "sheet.csv", [{"id": "one", "answers": "|".join(answers)}])
    (found,) = read_sheet(path, records)
    assert found.answers == tuple(text.strip() for text in answers)
    assert (found.metric, found.question) == ("exact", "what is one?")
