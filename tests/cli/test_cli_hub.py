"""Routers and policies go to a stand-in of the Hugging Face hub and come back the same, or not."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.checkpoints import load_model
from m3router.router import AutoScalePipeline, Policy, Run, ScaleRouter
from m3router.router.estimators import ESTIMATORS, estimator_class
from m3router.router.features.table import FeatureTable
from m3router.router.hub import (
    load_policy,
    load_router,
    push_policy,
    push_router,
    save_policy,
    save_router,
)
from m3router.router.hub.card import local_path_in
from m3router.router.hub.pipelines import load_pipeline
from m3router.router.hub.repository import MOST_BYTES, fetch, router_files
from m3router.router.monitoring.familiarity import FILES as FAMILIARITY
from m3router.router.policies.policy import SCHEMA
from m3router.router.sealed_files import read_sealed, write_sealed
from tests.cli.hub_server import TOKEN, StandIn

ROOT = Path(__file__).resolve().parents[2]
NAME = "me/my-router"
DECIDE = """
import sys
import numpy as np
from m3router.router.features.table import FeatureTable
from m3router.router.hub import load_policy, load_router
name, features, out, commit = sys.argv[1:]
router = load_router(name, revision=commit)
assert router.origin == f"{name}@{commit}", router.origin
p = router.predict(FeatureTable.read(__import__("pathlib").Path(features)))
costs = np.tile([float(one) for one in router.options], (len(p), 1))
chosen = load_policy(name, name="default", revision=commit).choose(p, costs)
np.savez(out, p=p, chosen=chosen)
assert "torch" not in sys.modules
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    server = StandIn()
    for name, value in (
        ("ENDPOINT", server.address),
        (
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        ),
        ("HF_HUB_CACHE", str(tmp_path / "cache")),
        ("HF_HUB_DISABLE_XET", True),
        ("HF_HUB_OFFLINE", False),
        ("HF_TOKEN_PATH", str(tmp_path / "no-token")),
    ):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def pushed(finished: Path, hub: StandIn, invoke) -> Run:
    result = invoke(
        "push", finished, NAME, "--license", "apache-2.0", "--dataset", "me/questions", "--private"
    )
    assert result.exit_code == 0, result.output
    assert f"{hub.address}/{NAME}/commit/" in result.output.replace("\n", "")
    return Run(finished)


def decisions(router: ScaleRouter, policy: Policy, run: Run) -> tuple[np.ndarray, np.ndarray]:
    p = router.predict(FeatureTable.read(run.features_folder))
    costs = np.tile([float(one) for one in router.options], (len(p), 1))
    return p, policy.choose(p, costs)


def test_a_fresh_process_decides_the_same(pushed: Run, hub: StandIn, tmp_path: Path) -> None:
    assert hub.private == {NAME: True}
    commit, files = hub.commits[NAME][-1]
    assert {path.split("/")[0] for path in files} == {
        ".gitattributes", "README.md", "router", "policies"
    }  # fmt: skip
    assert hub.large, "the weights went as a large file"
    done = subprocess.run(
        [sys.executable, "-c", DECIDE, NAME, pushed.features_folder, tmp_path / "out.npz", commit],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    there = np.load(tmp_path / "out.npz")
    p, chosen = decisions(pushed.router(), Policy.read(pushed.policy_file("default")), pushed)
    np.testing.assert_allclose(there["p"], p, rtol=1e-9)
    assert np.array_equal(there["chosen"], chosen)
    assert len(np.unique(chosen)) > 1


def test_only_what_is_on_the_list_is_asked_for(pushed: Run, hub: StandIn) -> None:
    hub.commit(NAME, {**hub.files(NAME), "model.bin": b"x", "estimator.pkl": pickle.dumps(1)})
    hub.requests.clear()
    router = load_router(NAME)
    assert router.fingerprint == pushed.router().fingerprint
    assert router.origin == f"{NAME}@{hub.commits[NAME][-1][0]}"
    asked = {path.rpartition("/resolve/")[2] for _, path in hub.requests if "/resolve/" in path}
    names = {path.partition("/")[2] for path in asked}
    assert names and all(name.startswith(("router/", "policies/")) for name in names)
    assert {path.partition("/")[0] for path in asked} == {hub.commits[NAME][-1][0]}


def test_the_card_says_it_all_and_its_code_works(
    pushed: Run, hub: StandIn, small_world, tmp_path: Path, monkeypatch, capsys
) -> None:
    text = hub.files(NAME)["README.md"].decode()
    card = ModelCard(text)
    card.validate()  # asks the stand-in, which lets all pass; the parsing before it does not
    data = card.data
    told = data.to_dict()
    assert (told["license"], told["library_name"]) == ("apache-2.0", "m3router")
    assert data.datasets == ["me/questions"] and "m3router" in data.tags
    assert ModelCard(card.content).data.to_dict() == told
    router = pushed.router()
    log = pushed.log().metadata
    for said in (router.fingerprint, log["prompt"], router.estimator_name, "| part: test |"):
        assert said in text
    document = json.loads((pushed.evaluation_folder / "evaluation.json").read_text())
    for row in document["rows"]:
        accuracy = row["accuracy"]
        low, high = 100 * accuracy["low"], 100 * accuracy["high"]
        shown = f"{100 * accuracy['value']:.1f}"
        assert shown in text
        if f"{low:.1f}" != f"{high:.1f}":
            assert f"{shown} ({low:.1f} to {high:.1f})" in text
    assert "| default | budget 100 |" in text
    for private in (str(tmp_path), str(Path.home()), os.uname().nodename, "Is there a red one?"):
        assert private not in text
    assert local_path_in(text.split("```")[0]) == ""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "model='fake'" in code
    shutil.copy(small_world.images / "9.png", tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    assert re.match(r"(yes|no) \d+ \{'1': ", capsys.readouterr().out)


def test_a_pipeline_and_the_commands_take_what_was_downloaded(
    pushed: Run, hub: StandIn, small_world, invoke
) -> None:
    model = load_model("fake")
    image = Image.open(small_world.images / "9.png").convert("RGB")
    ours = AutoScalePipeline.load(pushed.root, model=model)
    theirs = load_pipeline(NAME, model=model)
    (one,), (other,) = (pipe.answer([image], ["Is it?"]) for pipe in (ours, theirs))
    assert (one.scale, one.sufficiency, one.answer.text) == (
        other.scale, other.sufficiency, other.answer.text
    )  # fmt: skip
    assert theirs.router.origin == f"{NAME}@{hub.commits[NAME][-1][0]}" and ours.router.origin == ""
    folder = fetch(NAME).folder
    result = invoke("ask", folder, small_world.images / "9.png", "Is it?")
    assert result.exit_code == 0, result.output
    with pytest.raises(MismatchError):
        load_pipeline(NAME, model="embedded")


def test_one_by_one_as_hub_users_do(pushed: Run, hub: StandIn, tmp_path: Path) -> None:
    router, policy = pushed.router(), Policy.read(pushed.policy_file("default"))
    push_router(router, "me/alone", licence="mit", message="A router alone")
    assert hub.messages[-1] == "A router alone"
    assert "None yet." in hub.files("me/alone")["README.md"].decode()
    push_policy(policy, "me/alone", name="first")
    push_policy(policy, "me/alone", name="second")
    card = hub.files("me/alone")["README.md"].decode()
    assert "| first | budget 100 |" in card and "| second |" in card and "None yet" not in card
    assert load_policy("me/alone", name="second") == policy
    with pytest.raises(DataError, match="third"):
        load_policy("me/alone", name="third")
    save_router(router, tmp_path / "kept")
    save_policy(policy, tmp_path / "kept")
    assert load_router(tmp_path / "kept").fingerprint == router.fingerprint
    assert load_policy(str(tmp_path / "kept")) == policy
    push_router(router, "me/alone")
    assert not [path for path in hub.files("me/alone") if path.startswith("policies/")]


def test_a_policy_of_another_router_stays_here(pushed: Run, hub: StandIn, tmp_path: Path) -> None:
    payload = read_sealed(pushed.policy_file("default"), kind="policy", schema=SCHEMA)
    payload["policy"]["binding"]["router"] = "0" * 64
    payload.pop("sha256")
    write_sealed(tmp_path / "other.json", payload)
    before = len(hub.commits[NAME])
    with pytest.raises(MismatchError, match="calibrated for another router"):
        push_policy(Policy.read(tmp_path / "other.json"), NAME)
    shutil.copy(tmp_path / "other.json", pushed.policy_file("other"))
    assert len(hub.commits[NAME]) == before


def test_no_access_and_no_such_thing(pushed: Run, hub: StandIn, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"refused me/nothing .*status 404.*spelling"):
        fetch("me/nothing")
    with pytest.raises(DataError, match=r"at v9 .*status 404"):
        fetch(NAME, revision="v9")
    with pytest.raises(DataError, match="'no/such/folder' is neither"):
        fetch("no/such/folder")
    with pytest.raises(DataError, match=r"status 401.*hf auth login"):
        fetch(NAME, token="hf_wrong")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DataError, match=r"status 401.*hf auth login") as caught:
        push_router(pushed.router(), NAME)
    assert TOKEN not in str(caught.value)


def test_cut_downloads(pushed: Run, hub: StandIn) -> None:
    hub.cut = {"router/router.json"}
    with pytest.raises(DataError, match="could not be downloaded .*Consistency check failed"):
        fetch(NAME)
    hub.lied = hub.cut
    with pytest.raises(DataError, match="router.json was cut short"):
        fetch(NAME)


def test_without_a_connection_the_earlier_download_serves(
    pushed: Run, hub: StandIn, monkeypatch
) -> None:
    first = fetch(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch(NAME) == first
    with pytest.raises(DataError, match="no earlier download"):
        fetch("me/other")


@pytest.mark.parametrize("path", ["router/router.json", "policies/default.json", "weights"])
def test_an_edited_file_is_refused(pushed: Run, hub: StandIn, path: str) -> None:
    files = hub.files(NAME)
    if path == "weights":
        path = next(name for name in files if name.endswith(".safetensors"))
        edited = files[path][:-1] + bytes([files[path][-1] ^ 1])
    else:
        edited = files[path].replace(b'"visual tokens"', b'"visual tokenS"')
    assert edited != files[path]
    hub.commit(NAME, {**files, path: edited})
    with pytest.raises(DataError, match="SHA-256|cut short or edited"):
        load_pipeline(NAME, model="fake")


def test_a_repository_with_something_else_is_refused(pushed: Run, hub: StandIn) -> None:
    files = hub.files(NAME)
    hub.requests.clear()
    for path in ("router/estimator.pkl", "router/model.py", "policies/a/b.json", "cascades/x.bin"):
        hub.commit(NAME, {**files, path: pickle.dumps([1])})
        with pytest.raises(DataError, match=f"holds {re.escape(path)}, which is not a file of"):
            fetch(NAME)
    hub.commit(NAME, {"pytorch_model.bin": b"x"})
    with pytest.raises(DataError, match="no router of this package.*but pytorch_model.bin"):
        fetch(NAME)
    hub.commit(NAME, {**files, "router/mlp.json": b" " * (MOST_BYTES[".json"] + 1)})
    with pytest.raises(DataError, match="router/mlp.json .* at most"):
        fetch(NAME)
    assert not [path for _, path in hub.requests if "/resolve/" in path], "nothing was downloaded"


def test_a_look_before_the_upload(finished: Path, hub: StandIn, tmp_path: Path, invoke) -> None:
    arguments = ["push", finished, NAME, "--license", "mit", "--out", tmp_path / "look"]
    assert invoke(*arguments).exit_code == 0
    assert hub.requests == [] and (tmp_path / "look/router/router.json").is_file()
    again = invoke(*arguments)
    assert again.exit_code == 2 and "holds something already" in again.output.replace("\n", "")
    result = invoke("push", finished, "my-router", "--license", "mit")
    assert result.exit_code == 2 and "OWNER/NAME" in result.output


def test_places_of_a_machine_are_found() -> None:
    for path in ("/home/me/encoder", "sentence:/srv/e", "C:\\models\\x", "~/x", "//host/share"):
        assert local_path_in({"a": [{"b": path}]}) == path
    for fine in ("owner/name", "embedded@21be", "https://hf.co/x", "24/7", "1, 9, 36", "a / b"):
        assert local_path_in({"a": [{"b": fine}]}) == ""


def test_every_file_of_an_estimator_is_on_the_list() -> None:
    generator = np.random.default_rng(0)
    X, Y = generator.random((60, 4)), generator.integers(0, 2, (60, 2)).astype(float)
    named = {"router.json", *FAMILIARITY}
    for name in ESTIMATORS:
        named |= set(estimator_class(name)().fit(X, Y).dump())
    assert named == set(router_files())
