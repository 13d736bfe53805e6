from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.log.oracle_log import OracleLog
from m3router.router.estimators import ESTIMATORS
from m3router.router.policies.policy import Policy

QUICK = ("--estimator", "knn", "--no-ablations")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_stage_leaves_its_files_and_manifest(finished):
    for name in (
        "log/oracle.parquet",
        "features/features.parquet",
        "split.json",
        "router/router.json",
        "router-image/router.json",
        "router-question/router.json",
        "policies/default.json",
        "evaluation/evaluation.json",
        "report/report.html",
        "report/pareto.png",
        "report/pareto.svg",
        "report/tables/headline.csv",
    ):
        assert (finished / name).is_file(), name
    for folder in ("log", "features", "router", "policies", "evaluation", "report"):
        manifest = json.loads((finished / folder / "manifest.json").read_text())
        assert manifest["schema"] == 2
        for source in manifest["inputs"].values():
            path = (finished / folder / source["path"]).resolve()
            assert not Path(source["path"]).is_absolute()
            assert sha256(path) == source["sha256"]


def test_evaluate_prints_every_row_of_its_table(invoke, finished):
    result = invoke("evaluate", finished, "--budget", 36, "--budget", 200, "--draws", 50)
    assert result.exit_code == 0, result.output
    for row in (
        *(f"fixed {scale}" for scale in (1, 9, 36, 144, 576)),
        "router, at most 36",
        "router, at most 200",
        "router, default",
        "best fixed (576)",
        "oracle (raw)",
    ):
        assert row in result.stdout, result.stdout
    # A verdict comes first; the corrected oracle is no better than 576 here, and left out.
    assert "images are too few to tell" in result.stdout.splitlines()[0]
    assert "chance-corrected" not in result.stdout
    document = json.loads((finished / "evaluation/evaluation.json").read_text())
    with (finished / "report/tables/headline.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 + 3 + 1 + 2  # of the earlier evaluation
    budgets = [row["name"] for row in document["rows"] if row["kind"] == "router"]
    assert budgets == ["default", "budget 36", "budget 200"]
    assert document["n"]["test"] > 0
    assert document["vision_gflops"] > 0


def test_the_router_learns_what_the_fake_model_needs(finished):
    document = json.loads((finished / "evaluation/evaluation.json").read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert rows["576"]["accuracy"]["value"] == 1.0
    assert rows["1"]["accuracy"]["value"] < 0.5
    middle = rows["default"]
    assert middle["cost"]["value"] < 200
    assert middle["accuracy"]["value"] > rows["144"]["accuracy"]["value"] - 0.1


def test_labelling_again_changes_nothing(invoke, finished, small_world):
    before = sha256(finished / "log/oracle.parquet")
    again = invoke(
        "label", "--examples", small_world.examples, "--images", small_world.images,
        "--model", "fake", "--out", finished,
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert sha256(finished / "log/oracle.parquet") == before
    assert invoke("evaluate", finished, "--draws", 20).exit_code == 0


def test_labelling_other_examples_into_a_run_is_refused(invoke, finished, small_world, tmp_path):
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(small_world.examples.read_text().splitlines(keepends=True)[:40]))
    result = invoke(
        "label", "--examples", fewer, "--images", small_world.images,
        "--model", "fake", "--out", finished,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "examples_sha256" in result.stderr
    assert "Traceback" not in result.output


def test_unusable_images_become_records_and_exit_code_3(invoke, small_world, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in small_world.images.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "3.png").write_bytes(b"")
    (images / "4.png").unlink()
    run = tmp_path / "run"
    label = [
        "label", "--examples", small_world.examples, "--images", images,
        "--model", "fake", "--out", run,
    ]  # fmt: skip
    result = invoke(*label)
    assert result.exit_code == 3, result.output
    assert "8 of 144 examples have error records" in result.stdout
    assert "3.png" in result.stdout
    log = OracleLog.read(run / "log")
    assert int((~log.complete).sum()) == 8
    assert np.isnan(log.scores[~log.complete]).all()

    refused = invoke("train", run)
    assert refused.exit_code == 2
    assert "--gaps drop" in refused.stderr
    assert invoke("train", run, "--gaps", "drop", *QUICK).exit_code == 0
    assert invoke("calibrate", run, "--budget", 100).exit_code == 0
    assert invoke("evaluate", run, "--draws", 20).exit_code == 0

    for name in ("3.png", "4.png"):
        (images / name).write_bytes((small_world.images / name).read_bytes())
    assert invoke(*label).exit_code == 3  # errors are kept until they are asked for again
    assert invoke(*label, "--retry-errors").exit_code == 0
    assert OracleLog.read(run / "log").complete.all()


def test_a_flipped_byte_is_refused_by_name(invoke, finished):
    path = finished / "log/oracle.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for command in (["train", finished], ["calibrate", finished, "--budget", 99]):
        result = invoke(*command)
        assert result.exit_code == 2
        assert "oracle.parquet" in result.stderr
        assert "Traceback" not in result.output


def test_a_router_of_another_log_is_refused_naming_both_sides(invoke, finished, tmp_path):
    old = sha256(finished / "log/oracle.parquet")
    log = OracleLog.read(finished / "log")
    log.select(range(len(log) - 4)).write(finished / "log")
    new = sha256(finished / "log/oracle.parquet")
    for command in ("calibrate", "evaluate"):
        knob = ["--budget", 99] if command == "calibrate" else []
        result = invoke(command, finished, *knob)
        assert result.exit_code == 2
        message = result.stderr.replace("\n", "")
        assert old[:12] in message
        assert new[:12] in message
        assert "m3router train" in message


def test_policies_of_an_earlier_router_are_refused(invoke, finished):
    assert invoke("train", finished, "--seed", 5, *QUICK).exit_code == 0
    result = invoke("evaluate", finished)
    assert result.exit_code == 2
    assert "default.json" in result.stderr
    assert "calibrate" in result.stderr


def test_train_into_another_folder_leaves_the_first_alone(invoke, finished, tmp_path):
    before = sha256(finished / "router/router.json")
    other = tmp_path / "other"
    result = invoke("train", finished, "--estimator", "lightgbm", "--no-ablations", "--out", other)
    assert result.exit_code == 0, result.output
    assert sha256(finished / "router/router.json") == before
    assert (other / "router/router.json").is_file()
    assert not (other / "router-image").exists()
    assert invoke("evaluate", other, "--draws", 20).exit_code == 0


def test_train_names_every_estimator_and_says_how_far_off_probabilities_are(
    invoke, finished, tmp_path
):
    said = " ".join(invoke("train", "--help").stdout.replace("│", " ").split())
    assert ", ".join(list(ESTIMATORS)[:-1]) in said
    other = tmp_path / "other"
    options = ["--no-ablations", "--estimator", "blend", "--threads", 2, "--out", other]
    result = invoke("train", finished, *options)
    assert result.exit_code == 0, result.output
    router = json.loads((other / "router/router.json").read_text())
    report = router["metadata"]["calibration"]
    assert f"Probability calibration: {report['method']}." in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    for when in ("before", "after"):
        (cells,) = [cells[1:] for cells in rows if cells[:1] == [when]]
        errors = report["ece"][when]
        expected = [errors["overall"], *errors["by_option"]]
        assert cells == [f"{100 * one:.1f}" for one in expected]


@pytest.mark.parametrize("rule", ["stable", "matches_full"])
def test_rules_are_named_in_the_evaluation(invoke, finished, tmp_path, rule):
    other = tmp_path / "other"
    result = invoke("train", finished, "--rule", rule, *QUICK, "--out", other)
    assert result.exit_code == 0, result.output
    assert invoke("evaluate", other, "--draws", 20).exit_code == 0
    document = json.loads((other / "evaluation/evaluation.json").read_text())
    assert document["rule"]["name"] == rule


def test_a_misspelt_name_gets_a_suggestion(invoke, finished):
    result = invoke("train", finished, "--rule", "stabel")
    assert result.exit_code == 2
    assert "Did you mean 'stable'?" in result.stderr
    result = invoke("train", finished, "--estimator", "logistik")
    assert result.exit_code == 2
    assert "Did you mean 'logistic'?" in result.stderr


def test_calibrate_takes_exactly_one_knob_that_can_be_met(invoke, finished):
    for knobs in (
        [],
        ["--budget", 50, "--max-loss", "1%"],
        ["--max-loss-observed", "1%", "--max-loss", "1%"],
        ["--max-regret", 0.1, "--price", 0],
    ):
        result = invoke("calibrate", finished, *knobs)
        assert result.exit_code == 2
        assert "exactly one of a budget, a maximal loss, a price and a maximal" in result.stderr
    assert "at least 1 visual tokens" in invoke("calibrate", finished, "--budget", 0.5).stderr
    assert invoke("calibrate", finished, "--budget", 50, "--policy", "../x").exit_code == 2

    result = invoke("calibrate", finished, "--max-loss-observed", "2%", "--policy", "careful")
    assert result.exit_code == 0, result.output
    policy = Policy.read(finished / "policies/careful.json")
    assert policy.knob == {"max_loss_points": 2.0}
    assert "Reference option: " in result.stdout and "Nothing is certified" in result.stdout
    result = invoke("calibrate", finished, "--max-loss-observed", "-90%", "--policy", "vain")
    assert result.exit_code == 0
    assert "Falls back to the reference option" in result.stdout


def test_stages_out_of_order_say_what_to_run(invoke, tmp_path):
    for command in (["train"], ["calibrate", "--budget", 9], ["evaluate"], ["report"]):
        result = invoke(command[0], tmp_path, *command[1:])
        assert result.exit_code == 2
        assert "it has no log. `m3router label`" in result.stderr


def test_a_table_of_another_tool_becomes_a_report(invoke, small_world, tmp_path):
    lines = [json.loads(line) for line in small_world.examples.read_text().splitlines()]
    generator = np.random.default_rng(0)
    path = tmp_path / "answers.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "image", "option", "correct", "cost"])
        for line in lines:
            need = int(line["image"].removesuffix(".png")) / 36
            for option, cost in (("small", 1), ("medium", 5), ("large", 25)):
                chance = {"small": 1 - need, "medium": 1 - need / 2, "large": 0.95}[option]
                right = int(generator.random() < chance)
                row = [line["id"], line["question"], line["image"], option, right, cost]
                writer.writerow(row)
    run = tmp_path / "run"
    for command in (
        ["import", "table", path, "--out", run],
        ["featurize", run, "--images", small_world.images, "--encoder", "fake"],
        ["train", run, "--estimator", "knn"],
        ["evaluate", run, "--draws", 20],
        ["report", run],
    ):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    document = json.loads((run / "evaluation/evaluation.json").read_text())
    assert document["options"] == ["small", "medium", "large"]
    assert document["vision_gflops"] is None
    assert all(row["gflops"] is None for row in document["rows"])
    page = (run / "report/report.html").read_text()
    assert "cost is not known" in page


def test_a_training_that_fails_leaves_the_old_router_usable(invoke, finished):
    assert invoke("train", finished, "--seed", 3, "--estimator", "nothing").exit_code == 2
    assert invoke("evaluate", finished, "--draws", 20).exit_code == 0


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"schema": 1, "stage": "train"}'])
def test_a_damaged_manifest_is_one_clean_error(invoke, finished, content):
    (finished / "router/manifest.json").write_text(content)
    result = invoke("evaluate", finished)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("answer", "said"), [("yes", "is right"), ("no", "is wrong")])
def test_a_log_without_a_choice_to_make_cannot_be_learned(invoke, tmp_path, answer, said):
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for number in range(12):
        Image.new("RGB", (24, 24), (90, 90, 90)).save(images / f"{number}.png")
        line = {"id": str(number), "image": f"{number}.png", "question": "Is it?"}
        lines.append(json.dumps(line | {"answers": [answer], "metric": "yes_no"}))
    examples = tmp_path / "examples.jsonl"
    examples.write_text("\n".join(lines))
    run = tmp_path / "run"
    label = ["label", "--examples", examples, "--images", images, "--model", "fake"]
    assert invoke(*label, "--out", run).exit_code == 0
    result = invoke("train", run)
    assert result.exit_code == 2
    assert "cannot be learned" in result.stderr
    assert said in result.stderr
    assert not (run / "router").exists()


def test_a_router_for_texts_from_a_plain_table(invoke, tmp_path):
    """No images, no model: import, featurize, train, calibrate, evaluate."""
    rows = ["id,question,option,cost,correct"]
    for number in range(160):
        hard = number % 3 == 0
        asked = f"Which of {number} {'long and winding ' * 3 if hard else ''}words fits?"
        rows += [
            f"{number},{asked},small,1,{int(not hard or number % 9 == 0)}",
            f"{number},{asked},large,20,{int(number % 7 > 0)}",
        ]
    table, run = tmp_path / "answers.csv", tmp_path / "run"
    table.write_text("\n".join(rows) + "\n")
    for command in (
        ["import", "table", table, "--cost-unit", "USD", "--out", run],
        [
            "featurize",
            run,
            "--feature-group",
            "question",
            "--feature-group",
            "cheap",
            "--questions",
            "hashed",
        ],
        ["train", run, "--feature-group", "cheap", "--estimator", "knn"],
        ["calibrate", run, "--budget", 10],
        ["evaluate", run, "--draws", 50],
    ):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    assert (run / "router-question").is_dir() and not (run / "router-image").exists()
    refused = invoke("featurize", run, "--feature-group", "peek")
    assert refused.exit_code == 2 and "--images" in refused.output
    unknown = invoke("featurize", run, "--feature-group", "quick")
    assert unknown.exit_code == 2 and "Unknown feature group 'quick'" in unknown.output


def groups(*names: str) -> list[str]:
    return [word for name in names for word in ("--feature-group", name)]


def test_lists_are_repeated_options(invoke, finished):
    for command, option in (
        ("featurize", "--feature-group"),
        ("train", "--feature-group"),
        ("tune", "--estimator"),
    ):
        refused = invoke(command, finished, option, "image,question")
        assert refused.exit_code == 2
        said = " ".join(refused.output.replace("│", " ").split())
        assert "give the option once for each name" in said


def test_tiers_are_chosen_by_the_command_line(invoke, finished, small_world):
    images = ("--images", small_world.images, "--encoder", "fake")
    result = invoke("featurize", finished, *images, *groups("image", "question", "cheap", "peek"))
    assert result.exit_code == 0, result.output
    assert "image (48), question (17), cheap (39), peek (22)" in result.output
    result = invoke("train", finished, *groups("image", "question"), *QUICK)
    assert result.exit_code == 0, result.output
    result = invoke("train", finished, *groups("image", "sound"))
    assert result.exit_code == 2 and "Unknown feature group 'sound'" in result.output
