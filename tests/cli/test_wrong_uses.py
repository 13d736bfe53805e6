"""What goes wrong by a user's hand: one to three lines, exit code 2, and what mends it in them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from m3router.router.cli.main import app
from m3router.router.cli.next_steps import after_report
from m3router.router.cli.renamed import RENAMED
from m3router.router.runs.run import Run
from tests.children import child

NOISE = re.compile(r"Traceback|Errno|<class|object at 0x|\bNone\b|\w+Error\b")
ASKED = "label --examples {examples} --images {images}"
LABEL = f"{ASKED} --model fake"
TOY = "label --examples {examples} --images {images} --model embedded --out {new}"
SERVER = "label --examples {examples} --images {images} --out {new} --endpoint "
ASK = "{images}/0.png 'Is it?'"

WORDS = """
trian | Did you mean 'train'?
calibrat {run} | Did you mean 'calibrate'?
import tabel x.csv --out {new} | Did you mean 'table'?
study learning | Did you mean 'learning-curve'?
traffic lst {empty} | Did you mean 'list'?
--verbos train {run} | Did you mean '--verbose'?
train | Missing argument
train --help-me {run} | Did you mean '--help'?
train {run} {run} | unexpected extra argument
train {run} --estimater mlp | Did you mean '--estimator'?
train {run} --estimator | requires an argument
label | Missing option '--examples'
monitor {run} | Missing option '--traffic'
ask {run} {images}/0.png | Missing argument
push {run} me/name --out {new} | Missing option '--license'
fetch pope | Give a benchmark and --out, or --list
fetch --list --out {new} | give nothing else with it
fetch pope --list | give nothing else with it
calibrate {run} --budget 50 --budget 60 | --budget is given more than once
train {run} --ablations --no-ablations | --ablations is given more than once
import table {table} --out {new} --out {folder} | --out is given more than once
route {run} | Expected RUN [IMAGE] QUESTION
train {run} --tiers image | it is now --feature-group
"""
VALUES = """
calibrate {run} --budget 1,5 | write 1.5
calibrate {run} --budget 64% | write 64
calibrate {run} --budget many | is not a number, such as
calibrate {run} --budget nan | must be a finite number
calibrate {run} --price inf | must be a finite number
calibrate {run} --cap=-inf | must be a finite number
evaluate {run} --budget 9 --budget NaN | must be a finite number
calibrate {run} --budget 0 | Raise the budget
calibrate {run} --budget -5 | Raise the budget
calibrate {run} --max-loss 1%% | write it as 1% or 0.01
calibrate {run} --max-loss 1 | for per cent write 1% or 0.01
calibrate {run} --max-loss 1,5% | write it as 1% or 0.01
calibrate {run} --confidence 101% --max-loss 1% | more than 100%
calibrate {run} --max-loss 0 | must be above 0
calibrate {run} | Give exactly one of
calibrate {run} --budget 50 --price 1 | Give exactly one of
calibrate {run} --budget 50 --bound wsr | --bound is for --max-regret and --max-loss
calibrate {run} --budget 50 --policy ../x | A policy's name must be
calibrate {run} --max-loss 1% | Label more images, or ask for less
calibrate {run} --max-regret 1% | regret of at most 1 % with 95 % confidence
calibrate {run} --max-regret 1% | labelled images in all
calibrate {run} --max-regret 1% | m3router calibrate {run} --budget
calibrate {run} --max-regret 0.0000001% | `m3router calibrate {run} --max-loss-observed 1%`
calibrate {run} --max-regret 100% | --max-regret must lie between 0 % and 100 %, such as 1%
calibrate {run} --max-regret 5% --confidence 0% | --confidence must lie between
train {run} --threads 0 | must be greater than or equal to 1
train {run} --threads 1.5 | is not a whole number
train {run} --seed one | is not a whole number
train {run} --seed -1 | must be greater than or equal to 0
tune {run} --seed -1 | must be greater than or equal to 0
advise {table} --seed -1 | must be greater than or equal to 0
compare {run} {run} --seed -1 | must be greater than or equal to 0
evaluate {run} --seed 4294967296 | must be less than or equal to 4294967295
monitor {run} --traffic {folder} --seed -1 | must be greater than or equal to 0
finetune embedded --data x --images {images} --out {new} --steps 1 --seed -1 | or equal to 0
evaluate {run} --budget -5 | Raise the budget
train {run} --gaps dorp | Did you mean 'drop'?
train {run} --datasets told! | Did you mean 'told'?
train {run} --feature-group image,question | give the option once for each name
train {run} --split-share fit=20% | Give all four parts
train {run} --split-share fi=20% | Did you mean 'fit'?
train {run} --trial 2 | add --tuned
train {run} --tuned | Run `m3router tune` first
evaluate {run} --draws 1 | must be greater than or equal to 2
tune {run} --trials x | is not a whole number
tune {run} --storage nowhere | 'journal' or a database URL
serve {run} --port 99999 | must be 0 to 65535
demo {run} --port 99999 | must be less than or equal to 65535
quickstart --scenes 3 --out {new} | must be greater than or equal to 20
quickstart --scenes 1000000000000 --out {new} | must be less than or equal to 100000
quickstart --seed -1 --out {new} | must be greater than or equal to 0
look {images}/0.png --question q --model fake --out x.jpg | must end in .png
cost --model embedded --image-size big | big
study learning-curve {run} --share 150% | more than 100%
"""
NAMES = """
train {run} --estimator blen | Did you mean 'blend'?
train {run} --estimator "" | Known: blend
train {run} --rule stabel | Did you mean 'stable'?
train {run} --feature-group imag | Did you mean 'image'?
tune {run} --estimator ranks --trials 1 | Did you mean 'rank'?
featurize {run} --feature-group sizes | Did you mean 'size'?
featurize {run} --questions hasehd | Did you mean 'hashed'?
calibrate {run} --budget 50 --reference 577 | Did you mean '576'?
calibrate {run} --max-loss 1% --bound bettin | Did you mean 'betting'?
evaluate {run} --reference 14 | Did you mean '144'?
ask {run} {ask} --policy defualt | Did you mean 'default'?
route {run} {ask} --policy defualt | Did you mean 'default'?
serve {run} --policy defualt | Did you mean 'default'?
demo {run} --policy defualt | Did you mean 'default'?
compare {run} {run} --policy defualt | Did you mean 'default'?
ask {run} {ask} --option 577 | 1, 9, 36, 144, 576
label --examples {examples} --images {images} --out {new} --model os.path:nosuch | getctime and
label --examples {examples} --images {images} --out {new} --model os.path:nosuch | Known: abspath
{asked} --out {new} --model {table} | or a hub id. There are embedded
advise {folder}s | Did you mean '
inspect {run} --dataset shrt | Did you mean 'short'?
inspect {run} --rule first-correct | Did you mean 'first_correct'?
study leave-one-out {run} --by datset | Did you mean 'dataset'?
judge {run} --judge http://127.0.0.1:9/v1 --model m --protocol mmvet | Did you mean 'mm-vet'?
fetch poep --out {new} | Did you mean 'pope'?
fetch pope --out {new} | pass them with --file
import table {table} --out {new} --column idd=x | Did you mean 'id'?
{server} http://127.0.0.1:9/v1 --preset vllm-qwen | Did you mean 'vllm-qwen3-vl'?
{label} --out {new} --device gpu | Known: auto, cpu, cuda
{label} --out {new} --device "" | Known: auto, cpu, cuda
{toy} --device cuda:x | Known: auto, cpu, cuda
{asked} --out {new} --model embeded | Did you mean 'embedded'?
{asked} --out {new} --model nobody/nothing | Check the spelling or the connection
{asked} --out {new} --model nosuchmodule:fn | must be a module that Python finds
{asked} --out {new} --model "" | The model's name is empty
check --model nosuch | Check the spelling or the connection
featurize {run} --encoder nosuch | leave --encoder out
featurize {run} --images {images} --feature-group size --encoder nosuch | leave --encoder out
featurize {run} --images {images} --encoder nobody/nothing | Check the spelling or the connection
"""
PLACES = """
train "" | RUN is empty
{label} --out "" | --out is empty
{label} --out {file} | is not a folder. Give another folder
{label} --out {file}/below | is not a folder. Give another folder
{label} --out /dev/null/x | is not a folder. Give another folder
{label} --out /proc/x | Give another folder
quickstart --out {file} | Give another folder
train {run} --out {file} | Give another folder
export {run} --out {file} | Give another folder
export {run} --out {folder} | Name a new folder
import table {table} --out {file} | Give another folder
import table {table} --out {run} | import into a new folder
{asked} --model embedded --out {run} | label into another folder
look {images}/0.png --question q --model fake --out {file}/x.png | Give another place
inspect {unlabelled} --html {folder} | `m3router label`
report {run} --images {empty}/x | Give the folder of the images
route {run} --examples {folder} | Give the file of the examples
route {run} --examples nowhere.jsonl | Check the path
label --examples nowhere.jsonl --images {images} --model fake --out {new} | nowhere.jsonl
label --examples {folder} --images {images} --model fake --out {new} | folder
label --examples {empty_file} --images {images} --model fake --out {new} | holds no examples
label --examples {binary} --images {images} --model fake --out {new} | Save as UTF-8
label --examples {examples} --images {file} --model fake --out {new} | Give the folder of the images
import table nowhere.csv --out {new} | Check the path
import table {binary} --out {new} | Save as UTF-8
import table {folder} --out {new} | .csv
import lmms-eval {folder} --out {new} | write both parts
import lmms-eval a={folder} --out {new} | --log_samples
import exported {folder} --out {new} | Check the path
ask {run} nowhere.png q | nowhere.png
ask {run} "What number?" {images}/0.png | `m3router ask {run} {images}/0.png 'What number?'`
ask {images}/0.png {run} "What number?" | `m3router ask {run} {images}/0.png 'What number?'`
ask {images}/0.png "What number?" {run} | `m3router ask {run} {images}/0.png 'What number?'`
ask "What number?" {run} nowhere.png | The order is RUN IMAGE QUESTION
route {run} "What number?" {images}/0.png | `m3router route {run} {images}/0.png 'What number?'`
route {images}/0.png {run} "What number?" | `m3router route {run} {images}/0.png 'What number?'`
route "What number?" {images}/0.png {run} | `m3router route {run} {images}/0.png 'What number?'`
inspect {table} | is a file; give the folder of a run
keys add {table} bob | or the name of a new one
judge {run} --judge ftp://x --model m | must begin with http://
serve {run} --upstream nonsense | is neither an address
ask {run} {folder} q | it is a folder
ask {run} {file} q | it is not an image
keys list {folder} | Give a file, not a folder
keys revoke nowhere.jsonl alice | Check the path
traffic list {folder} | is not a folder of recorded traffic
check {file} | Give the folder of a run
check {images} | is not a run folder: it has no log
judge {run} --judge localhost --model m --protocol mm-vet | http://
{server} localhost:8000 --preset vllm-qwen3-vl | must begin with http:// or https://
{server} http://127.0.0.1:99999/v1 --preset vllm-qwen3-vl | is its port a number?
{server} http://127.0.0.1:9/v1 --options nowhere.toml | Check --options
{server} http://127.0.0.1:9/v1 --preset vllm-qwen3-vl --request-timeout 0 | --request-timeout
judge {run} --judge http://127.0.0.1:9/v1 --model m --protocol mm-vet --request-timeout 0 | above 0
{server} http://127.0.0.1:9/v1 --preset vllm-qwen3-vl | Start the server, or check its address
{server} http://127.0.0.1:9/v1 --preset vllm-qwen3-vl --key-env NOT_SET_HERE | export it
push {run} name --license mit --out {new} | must be OWNER/NAME
push {run} "me/na me" --license mit --out {new} | cannot be the name of a repository on the hub
push {run} me/name --license mit --base-model a/b/c --out {new} | cannot be the name of a base model
push {run} me/name --license mit --dataset "" --out {new} | cannot be the name of a dataset
push {run} me/name --license "" --out {new} | The licence is empty
finetune embedded --data nowhere.json --images {images} --out {new} --steps 1 | Check the path
convert {folder} {new} | config.json
"""
STAGES = """
train nowhere | `m3router label` or `m3router import` makes one
train {file} | is a file, not a run folder
train {folder} | is not a run folder: it has no log
evaluate {folder} | is not a run folder: it has no log
report {folder} | is not a run folder: it has no log
ask {folder} {ask} | is not a run folder: it has no log
serve {folder} | is not a run folder: it has no log
tune {folder} | is not a run folder: it has no log
inspect {folder} | `m3router label`
export {folder} --out {new} | `m3router label`
train {labelled} | Run `m3router featurize {labelled}` first
calibrate {labelled} --budget 9 | Run `m3router train {labelled}` first
calibrate {featurized} --budget 9 | Run `m3router train {featurized}` first
evaluate {featurized} | Run `m3router train {featurized}` first
report {featurized} | Run `m3router evaluate {featurized}` first
ask {featurized} {ask} | Run `m3router train {featurized}` first
route {featurized} {ask} | Run `m3router train {featurized}` first
serve {featurized} | Run `m3router train {featurized}` first
demo {featurized} | Run `m3router train {featurized}` first
push {featurized} me/name --license mit --out {new} | Run `m3router train {featurized}` first
study learning-curve {featurized} | Run `m3router train {featurized}` first
compare {run} {featurized} | Run `m3router train {featurized}` first
ask {trained} {ask} | m3router calibrate {trained} --budget
route {trained} {ask} | m3router calibrate {trained} --budget
serve {trained} | m3router calibrate {trained} --budget
report {trained} | Run `m3router evaluate {trained}` first
train {damaged} | damaged or was changed. Copy the folder again, or label again
train {torn} | Run `m3router label` again
calibrate {relabelled} --budget 9 | labelled or imported again after the router was trained
"""
USES = [
    tuple(part.strip() for part in line.rsplit(" | ", 1))
    for table in (WORDS, VALUES, NAMES, PLACES, STAGES)
    for line in table.strip().splitlines()
]


@pytest.fixture(scope="module")
def things(_finished, small_world, tmp_path_factory) -> dict[str, str]:
    """Runs at every stage, whole and damaged, and files that are not what is asked for."""
    root = tmp_path_factory.mktemp("wrong uses")
    for name in ("empty", "folder"):
        (root / name).mkdir()
    (root / "folder" / "something").write_text("mine")
    (root / "file").write_text("mine")
    (root / "nothing.jsonl").write_text("")
    (root / "binary.jsonl").write_bytes(bytes(range(256)) * 40)
    (root / "table.csv").write_text(
        "id,question,option,correct,cost\nq,What?,a,1,1\nq,What?,b,1,2\n"
    )
    stages = {
        "trained": ("policies", "evaluation", "report"),
        "featurized": ("router*", "split.json", "policies", "evaluation", "report", "importance"),
        "labelled": ("features", "router*", "split.json", "policies", "evaluation", "report"),
        "damaged": (),
        "torn": (),
        "relabelled": (),
    }
    for name, left_out in stages.items():
        shutil.copytree(_finished, root / name, ignore=shutil.ignore_patterns(*left_out))
    parquet = root / "damaged" / "log" / "oracle.parquet"
    parquet.write_bytes(parquet.read_bytes()[:200])
    (root / "torn" / "log" / "manifest.json").write_text("{")
    found = {
        "run": _finished,
        "images": small_world.images,
        "examples": small_world.examples,
        "new": root / "new",
        "empty_file": root / "nothing.jsonl",
        "binary": root / "binary.jsonl",
        "table": root / "table.csv",
        "unlabelled": root / "empty",
        **{name: root / name for name in ("empty", "folder", "file", *stages)},
    }
    quoted = {name: shlex.quote(str(path)) for name, path in found.items()}
    other = quoted | {"examples": shlex.quote(str(root / "other.jsonl"))}
    lines = small_world.examples.read_text().splitlines()
    (root / "other.jsonl").write_text("\n".join(lines[:40]) + "\n")
    shutil.rmtree(root / "relabelled" / "log")
    again = LABEL.format(**other) + f" --out {quoted['relabelled']}"
    assert CliRunner().invoke(app, shlex.split(again)).exit_code == 0
    shortcuts = {"asked": ASKED, "label": LABEL, "toy": TOY, "server": SERVER, "ask": ASK}
    return quoted | {name: text.format(**quoted) for name, text in shortcuts.items()}


@pytest.mark.parametrize(("use", "mend"), USES, ids=[use for use, _ in USES])
def test_a_wrong_use_is_one_message_with_its_mend(things, tmp_path, monkeypatch, use, mend):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(use.format(**things)), prog_name="m3router")
    said = result.stderr.strip().splitlines()
    lines = [one for one in said if not one.startswith("Loading weights")]  # a library's bar
    assert result.exit_code == 2, (result.output, repr(result.exception))
    assert isinstance(result.exception, SystemExit)
    assert 1 <= len(lines) <= 3, result.stderr
    assert mend.format(**things) in result.stderr, result.stderr
    assert not NOISE.search(result.output), result.stderr


def test_what_comes_after_a_report_can_be_done(_finished, tmp_path, capsys):
    run = Run(shutil.copytree(_finished, tmp_path / "run"))
    after_report(run)
    assert f"next: m3router ask {run.root} IMAGE QUESTION\n" in capsys.readouterr().err
    for file in run.policies_folder.glob("*.json"):
        file.unlink()
    after_report(run)
    assert f"next: m3router calibrate {run.root} --budget" in capsys.readouterr().err


def test_there_are_enough_of_them():
    assert len({use for use, _ in USES}) >= 90
    assert {use.split()[0] for use, _ in USES} >= set(RENAMED) - {"cost", "import", "traffic"}


PROGRAM = [sys.executable, "-m", "m3router"]


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "400", "HF_HUB_OFFLINE": "1"}


def stopped(
    words: list[str],
    environment: dict[str, str],
    *,
    when: str,
    number: signal.Signals = signal.SIGINT,
) -> tuple[int, str]:
    """What a command says that gets a signal as soon as it has said something."""
    said, until = "", time.monotonic() + 120
    with child(
        [*PROGRAM, *words], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        while when not in said and time.monotonic() < until and process.poll() is None:
            said += process.stderr.readline()
        process.send_signal(number)
        shown, rest = process.communicate(timeout=120)
    return process.returncode, said + rest + shown


@pytest.mark.parametrize(
    ("words", "when", "told"),
    [
        ("tune {featurized} --trials 500", "tuning", "same command"),
    ],
)
def test_ctrl_c_says_what_is_kept(things, environment, tmp_path, words, when, told):
    line = shlex.split(words.format(**things))
    copied = shutil.copytree(line[1], tmp_path / "run")
    code, said = stopped([line[0], str(copied), *line[2:]], environment, when=when)
    assert code == 130, said
    assert told in said and "Traceback" not in said


def test_a_quickstart_that_is_terminated_says_how_to_go_on(environment, tmp_path):
    words = ["quickstart", "--scenes", "200", "--model", "fake", "--out", str(tmp_path / "quick")]
    code, said = stopped(words, environment, when="labelling", number=signal.SIGTERM)
    assert code == 130, said
    assert "go on with the same command" in said and "Traceback" not in said


def test_a_reader_that_goes_away_is_no_error(environment):
    line = f"{shlex.join(PROGRAM)} fetch --list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "141"
    assert "Traceback" not in done.stderr and "Error" not in done.stderr


def test_a_full_disk_is_one_message(environment):
    words = [*PROGRAM, "fetch", "--list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words, env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "The disk is full. Make room and run the same command again." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_is_told_as_one(environment, tmp_path):
    (tmp_path / "broken.py").write_text("def broken():\n    'Break.'\n    raise KeyError('x')\n")
    code = (
        "import sys; from m3router.router.cli import main; "
        "main.COMMANDS['broken'] = 'broken:broken'; main.app(sys.argv[1:])"
    )
    for verbose in ([], ["--verbose"]):
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", code, *verbose, "broken"],
            env=environment | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == bool(verbose)
        assert verbose or "This is a defect of m3router. `m3router --verbose" in done.stderr


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_in_use(invoke, _finished, busy_port, command):
    pytest.importorskip("gradio" if command == "demo" else "starlette")
    got = invoke(command, _finished, "--port", busy_port)
    assert got.exit_code == 2, (got.output, got.exception)
    assert str(busy_port) in got.stderr and "Errno" not in got.stderr
