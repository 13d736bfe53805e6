"""Training in processes of its own: killed for real, and several at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from experiments.embedded_model.curriculum import FreshScenes, SceneText
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.families.table import trainable_of
from m3router.m3core.training.loop import train
from m3router.m3core.training.recipe import TrainingRecipe
from tests.children import child

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "periods": {"scales": (1, 9), "periods": (1, 2)},
    "random": {"scales": (1, 9, 36, 144), "choice": "random"},
    "lora": {"scales": (1, 9), "lora_rank": 2, "lora_dropout": 0.3, "tower_learning_rate": 1e-3},
}
STEPS, STOP = 5, 3


def recipe(kind: str) -> TrainingRecipe:
    common = {"steps": STEPS, "learning_rate": 2e-3, "warmup": 2, "save_every": 2}
    return TrainingRecipe(**(common | SETTINGS[kind]))


def run(checkpoint: str, kind: str, folder: Path, *, die: bool = False) -> dict:
    """Train; with ``die`` this process is killed in the middle of the run."""
    model = load_model(checkpoint, device="cpu")
    batches = FreshScenes(0, SceneText(model.tokenizer, model.template, questions=2), batch=2)

    def batch_at(number: int):
        if die and number == STOP:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(number)

    return train(trainable_of(model), batch_at, recipe=recipe(kind), folder=folder)


def killed(checkpoint: str, kinds: Sequence[str], folder: Path) -> None:
    """Train each kind into its folder, in a process forked from this one that is killed."""
    for kind in kinds:
        forked = os.fork()
        if forked == 0:
            run(checkpoint, kind, folder / kind, die=True)
            os._exit(0)
        _, status = os.waitpid(forked, 0)
        print(kind, -os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


@pytest.mark.parametrize(
    "kinds", [pytest.param(("periods",), marks=pytest.mark.slow), ("random", "lora")]
)
def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(
    random_checkpoint, tmp_path, kinds
):
    source, folder = str(random_checkpoint), tmp_path / "killed"
    code = (
        "from pathlib import Path\n"
        "from tests.m3core.test_training_processes import killed\n"
        f"killed({source!r}, {kinds!r}, Path({str(folder)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child([sys.executable, "-c", code], cwd=ROOT, env=environment, **pipes) as program:
        said, complaints = program.communicate(timeout=300)
    assert said.splitlines() == [f"{kind} {signal.SIGKILL.value}" for kind in kinds], complaints
    for kind in kinds:
        progress = json.loads((folder / kind / "state" / "progress.json").read_text())
        assert progress["step"] == 2
        resumed = run(source, kind, folder / kind)
        undisturbed = run(source, kind, tmp_path / kind)
        assert resumed.keys() == undisturbed.keys()
        assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


@pytest.fixture(scope="module")
def finished(random_checkpoint, tmp_path_factory):
    """A folder in which a run has ended, and its weights."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(str(random_checkpoint), "random", folder)


@pytest.mark.parametrize("moment", ["before the swap", "in the swap", "after the swap"])
def test_a_kill_while_saving_leaves_a_usable_state(random_checkpoint, finished, tmp_path, moment):
    """The folders as a kill leaves them at each point between two renames."""
    folder, undisturbed = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "state"
    if moment == "before the swap":  # half of the next state is written
        (tmp_path / "state.new").mkdir()
        (tmp_path / "state.new" / "model.safetensors").write_bytes(b"torn")
    elif moment == "in the swap":
        state.rename(tmp_path / "state.new")
        (tmp_path / "state.old").mkdir()
    else:
        (tmp_path / "state.old").mkdir()
        (tmp_path / "state.old" / "progress.json").write_text("torn")
    again = run(str(random_checkpoint), "random", tmp_path)
    assert all(torch.equal(again[name], undisturbed[name]) for name in again)


@pytest.mark.slow
def test_two_processes_train_as_one_with_their_batches_together(random_checkpoint, tmp_path):
    """Equal numbers of answer tokens, so that the mean of means is the mean."""
    source, folder = str(random_checkpoint), tmp_path / "two"
    code = (
        "import sys; from tests.m3core.test_training_processes import run_equal\n"
        "run_equal(sys.argv[1], sys.argv[2])\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [sys.executable, *words, str(script), source, str(folder)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    progress = json.loads((folder / "state" / "progress.json").read_text())
    assert progress["processes"] == 2
    one = run_equal(source, str(tmp_path / "one"), together=2)
    two = torch.load(folder / "weights.pt")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=1e-2)


def run_equal(source: str, folder: str, *, together: int = 1) -> dict:
    """Train on images whose only answer has three tokens; ``together`` batches at a time."""
    from accelerate import PartialState

    from experiments.embedded_model.curriculum import scene_pixels
    from m3router.m3core.training.objective import MatryoshkaBatch, pack

    model = load_model(source, device="cpu")

    def batch_at(number: int):
        rows = range(number * 2 * together, (number + 1) * 2 * together)
        turns = [[([5, 6 + row], [7, 8 + row, 2])] for row in rows]
        return MatryoshkaBatch(images=scene_pixels(rows), text=pack(turns, before=[1], pad=0))

    values = {"steps": 3, "learning_rate": 1e-3, "warmup": 1, "save_every": 3}
    wanted = TrainingRecipe(scales=(1, 9), tower_learning_rate=1e-3, **values)
    weights = train(trainable_of(model), batch_at, recipe=wanted, folder=Path(folder))
    if PartialState().is_main_process:
        torch.save(weights, Path(folder) / "weights.pt")
    return weights
