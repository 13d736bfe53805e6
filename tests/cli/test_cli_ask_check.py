from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from m3router.router.cli.docs import PAGE, markdown
from m3router.router.cli.main import COMMANDS


def test_ask_shows_answer_scale_reasons_tokens_and_time(invoke, finished, small_world):
    image = small_world.images / "30.png"
    result = invoke("ask", finished, image, "Is the number on the tag below seven?")
    assert result.exit_code == 0, result.output
    assert re.search(r"^answer +(yes|no)", result.stdout, re.MULTILINE)
    chosen = re.search(r"^scale +(\d+), chosen by the router", result.stdout, re.M)
    assert chosen
    for scale in (1, 9, 36, 144, 576):
        assert re.search(rf"^ +{scale} .*likely to suffice", result.stdout, re.MULTILINE)
    assert result.stdout.count("◀") == 1
    assert f"tokens  {chosen.group(1)} visual" in result.stdout
    assert re.search(r"^time .*vision.*route.*language", result.stdout, re.MULTILINE)


def test_ask_takes_a_scale_of_the_grid_only(invoke, finished, small_world):
    image = small_world.images / "1.png"
    fixed = invoke("ask", finished, image, "Is it?", "--scale", 36)
    assert fixed.exit_code == 0, fixed.output
    assert "scale   36, asked for" in fixed.stdout
    wrong = invoke("ask", finished, image, "Is it?", "--scale", 100)
    assert wrong.exit_code == 2
    assert "1, 9, 36, 144, 576" in wrong.stderr


def test_ask_says_what_is_wrong_with_image_question_and_policy(
    invoke, finished, small_world, tmp_path
):
    good = small_world.images / "1.png"
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    for image, question, extra, message in (
        (empty, "Is it?", [], "empty.png"),
        (tmp_path / "none.png", "Is it?", [], "none.png"),
        (good, " word" * 2000, [], "does not fit"),
        (good, "Is it?", ["--policy", "unknown"], "Unknown policy 'unknown'"),
    ):
        result = invoke("ask", finished, image, question, *extra)
        assert result.exit_code == 2, result.output
        assert message in result.stderr.replace("\n", " ")
        assert "Traceback" not in result.output


def test_check_passes_on_a_finished_run(invoke, finished):
    result = invoke("check", finished, "--model", "fake")
    for part in ("log", "features", "router-image", "policy default", "evaluation", "report"):
        assert re.search(rf"^OK +{part}\b", result.stdout, re.MULTILINE), result.stdout
    assert re.search(r"^OK +torch", result.stdout, re.MULTILINE)
    assert result.exit_code == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("log/oracle.parquet", "log"),
        ("features/features.parquet", "features"),
        ("router/router.json", "router"),
        ("policies/default.json", "policy default"),
        ("evaluation/evaluation.json", "evaluation"),
        ("report/report.html", "report"),
        ("report/tables/headline.csv", "report"),
    ],
)
def test_check_finds_every_damaged_file(invoke, finished, file, part):
    path = finished / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = invoke("check", finished, "--model", "fake")
    assert result.exit_code == 1
    assert re.search(rf"^not OK +{part}\b", result.stdout, re.MULTILINE), result.stdout


def test_check_looks_at_studies_and_tuning_too(invoke, finished):
    for command in (
        ("study", "learning-curve", finished, "--share", "0.5", "--seeds", 1, "--draws", 10),
        ("study", "leave-one-out", finished, "--draws", 10),
        ("tune", finished, "--estimator", "logistic", "--trials", 2, "--folds", 1),
    ):
        assert invoke(*command).exit_code == 0, command
    files = {
        "learning-curve": "learning-curve/study.json",
        "leave-one-out": "leave-one-out/study.json",
        "importance": "importance/importance.json",
        "tuning": "tuning/study.json",
    }
    whole = invoke("check", finished, "--model", "fake").stdout
    for part, file in files.items():
        assert re.search(rf"^OK +{part}\b", whole, re.MULTILINE), whole
        path = finished / file
        path.write_text(path.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
    damaged = invoke("check", finished, "--model", "fake")
    assert damaged.exit_code == 1
    for part in files:
        assert re.search(rf"^not OK +{part}\b", damaged.stdout, re.MULTILINE), damaged.stdout


def test_check_names_a_model_that_is_none(invoke, tmp_path):
    result = invoke("check", "--model", tmp_path)
    assert result.exit_code == 1
    assert re.search(r"^not OK +model", result.stdout, re.MULTILINE)


def test_quickstart_runs_and_then_only_repeats_what_changed(invoke, tmp_path):
    out = tmp_path / "quick"
    arguments = ["quickstart", "--out", out, "--scenes", 40, "--model", "fake"]
    first = invoke(*arguments)
    assert first.exit_code == 0, first.output
    assert first.stdout.count("chosen by the router") == 3
    assert first.stdout.count("router, at most") == 3
    assert (out / "run/report/report.html").is_file()
    made = {
        stage: json.loads((out / "run" / stage / "manifest.json").read_text())["created"]
        for stage in ("router", "evaluation", "report")
    }
    modified = (out / "run/router/router.json").stat().st_mtime_ns
    (out / "run/report/pareto.png").unlink()
    second = invoke(*arguments)
    assert second.exit_code == 0, second.output
    assert (out / "run/router/router.json").stat().st_mtime_ns == modified
    assert (out / "run/report/pareto.png").is_file()
    again = json.loads((out / "run/evaluation/manifest.json").read_text())["created"]
    assert again == made["evaluation"]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_helps_with_an_example(invoke, name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert f"m3router {name}" in " ".join(result.stdout.split())


def test_the_documented_help_is_fresh():
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_help_comes_without_loading_a_model_library():
    code = (
        "import sys, m3router.router.cli.main as m; m.app(['--help'], standalone_mode=False);"
        "print([n for n in ('torch', 'transformers', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "quickstart" in done.stdout


def test_an_error_reaches_the_shell_as_exit_code_1_and_one_message(tmp_path):
    nowhere = str(tmp_path / "nowhere.jsonl")
    command = [sys.executable, "-m", "m3router", "keys", "revoke", nowhere, "alice"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
