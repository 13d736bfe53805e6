"""`m3router fetch`, from a downloaded file to a labelled run."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from m3router.data.sources.benchmarks.table import BENCHMARKS, benchmark
from tests.cli.hub_server import StandIn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    rows = []
    for place, answer in enumerate(["yes", "no", "yes"]):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * place, 0, 0)).save(buffer, "PNG")
        rows.append(
            {
                "id": str(place),
                "question": "Is there a cat?",
                "answer": answer,
                "category": "random",
                "image": {"bytes": buffer.getvalue(), "path": "x.png"},
            }
        )
    rows.append({**rows[0], "id": "9", "answer": "perhaps"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pope.parquet")
    return tmp_path / "pope.parquet"


def test_from_a_file_to_a_log(invoke, parquet, tmp_path):
    out = tmp_path / "pope"
    result = invoke("fetch", "pope", "--file", parquet, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"3 examples in {out / 'examples.jsonl'}" in result.output
    assert "1 row left out: cannot be scored: metric 'pope' needs" in result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("next: ")]
    words = line.removeprefix("next: m3router ").replace("MODEL", "fake").split()
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert "3 examples in" in result.output
    first = json.loads((out / "examples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["dataset"] == "pope/random"


def test_limit_and_a_folder_in_use(invoke, parquet, tmp_path):
    command = ["fetch", "pope", "--file", parquet, "--out", tmp_path / "pope", "--limit", 2]
    assert "2 examples in" in invoke(*command).output
    again = invoke(*command)
    assert again.exit_code == 2
    assert "exists already. Choose another folder" in again.output


def test_a_dataset_is_found_at_its_former_home(parquet, tmp_path):
    hub = StandIn()
    told = parquet.read_bytes()
    hub.commit("datasets/lmms-lab/POPE", {"data/test-00000-of-00001.parquet": told})
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
    }
    command = [sys.executable, "-m", "m3router", "fetch", "pope", "--out"]
    for place in ("found", "lost"):
        done = subprocess.run(
            [*command, str(tmp_path / place)], env=environment, capture_output=True, text=True
        )
        hub.commits.clear()
        if place == "found":
            assert done.returncode == 0, done.stderr
            assert "3 examples in" in done.stdout
    hub.shutdown()
    assert done.returncode == 2
    assert "lmms-lab/POPE (default, test): " in done.stderr
    assert "nor from lmms-lab-encoder/POPE (default, test): " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fetch", "--out", "x"], 2, "Give a benchmark and --out, or --list"),
        (["fetch", "poep", "--out", "x"], 2, "Unknown benchmark 'poep'. Did you mean 'pope'?"),
        (["fetch", "nextqa", "--out", "x", "--file", "a.parquet"], 2, "pass their folder"),
    ],
)
def test_what_is_refused(invoke, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == code
    assert message in re.sub(r"[\s│]+", " ", result.output)
    assert not (tmp_path / "x" / "examples.jsonl").exists()


def test_the_list_and_the_page_name_every_benchmark(invoke):
    output = invoke("fetch", "--list").output
    page = PAGE.read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    rows = {row[0].strip("`"): row for row in cells if len(row) == 7}
    for name, entry in ((name, benchmark(name)) for name in BENCHMARKS):
        assert re.search(rf"^{name} ", output, re.MULTILINE)
        _, title, where, split, _, metric, note = rows[name]
        assert (title, split, metric, note) == (
            entry.title,
            f"`{entry.split}`",
            f"`{entry.metric}`",
            entry.note,
        )
        longest = rf"\| [^|]*`{name}`[^|]* \| {entry.max_new_tokens} \|"
        assert re.search(longest, page), name
        named = [entry.hub, entry.config, entry.images] if entry.hub else []
        assert re.findall(r"`([^`]+)`", where) == [text for text in named if text]
