"""Training in processes of its own: killed for real, and several at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
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


def run(checkpoint: str, kind: str, folder: Path, *, stop: Path | None = None) -> dict:
    """Train; with ``stop`` a mark is set in the middle of the run, and nothing more is done."""
    model = load_model(checkpoint, device="cpu")
    batches = FreshScenes(0, SceneText(model.tokenizer, model.template, questions=2), batch=2)

    def batch_at(number: int):
        if stop is not None and number == STOP:
            stop.touch()
            time.sleep(600)
        return batches(number)

    return train(trainable_of(model), batch_at, recipe=recipe(kind), folder=folder)


def training(code: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    lines = (
        f"from pathlib import Path\nfrom tests.m3core.test_training_processes import run\n{code}"
    )
    return child([sys.executable, "-c", lines], cwd=ROOT, env=environment)


@pytest.mark.parametrize(
    "kind", [pytest.param("periods", marks=pytest.mark.slow), "random", "lora"]
)
def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(
    random_checkpoint, tmp_path, kind
):
    source, mark = str(random_checkpoint), tmp_path / "mark"
    with training(
        f"run({source!r}, {kind!r}, Path({str(tmp_path / 'b')!r}), stop=Path({str(mark)!r}))"
    ) as killed:
        until = time.monotonic() + 120
        while not mark.exists() and killed.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert mark.exists(), "the run did not come to its middle"
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(20) == -signal.SIGKILL
    assert json.loads((tmp_path / "b" / "state" / "progress.json").read_text())["step"] == 2
    resumed = run(source, kind, tmp_path / "b")
    undisturbed = run(source, kind, tmp_path / "a")
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


@pytest.mark.parametrize("moment", ["before the swap", "in the swap", "after the swap"])
def test_a_kill_while_saving_leaves_a_usable_state(random_checkpoint, tmp_path, moment):
    """The folders as a kill leaves them at each point between two renames."""
    source = str(random_checkpoint)
    undisturbed = run(source, "random", tmp_path)
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
    again = run(source, "random", tmp_path)
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
