from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import yaml
from datasets import disable_progress_bars, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.importers import importer
from m3router.data.log.card import COLUMNS, data_card
from m3router.data.log.checks import SCHEMA
from m3router.data.log.exporting import export_log, push_to_hub, read_exported
from m3router.data.log.files import HUB_PARQUET
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST

disable_progress_bars()


def row(example: str, scale: str, **changes: Any) -> dict[str, Any]:
    return {
        "example_id": example,
        "group": f"g-{example}",
        "dataset": "toy",
        "question": f"Wörter | {example}?",
        "image": f"{example}.png",
        "scale": scale,
        "cost": float(scale),
        "answer": None,
        "score": 1.0,
        "answer_tokens": 2,
        "chance": 0.25,
        **changes,
    }


def small(**metadata: Any) -> OracleLog:
    """Three examples at two scales: right twice, wrong once, a failed generation."""
    rows = [
        row("a", "1", score=0.5, answer="x"),
        row("a", "9"),
        row("b", "1", score=0.0),
        row("b", "9", score=None, cost=None, error="CUDA | out of memory\nat line 3"),
        row("c", "1", dataset="other"),
        row("c", "9", dataset="other"),
    ]
    for one in rows[:2]:
        one |= {"references": ("x", "ÿ"), "metric": "any", "max_new_tokens": 16, "finish": "stop"}
    return OracleLog(
        pd.DataFrame(rows), options=("1", "9"), cost_unit="visual tokens", metadata=metadata
    )


def assert_equal(first: OracleLog, second: OracleLog) -> None:
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert first.options == second.options
    assert first.cost_unit == second.cost_unit
    assert first.metadata == second.metadata


def front(folder: Path) -> tuple[dict[str, Any], str]:
    _, yaml_text, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(yaml_text), body


def test_the_log_comes_back(tmp_path: Path) -> None:
    log = small(model="toy", grid=["1", "9"], prompt={"version": 2}, unmapped=["a | b"])
    export_log(log, tmp_path / "out", licence="cc-by-4.0")
    assert_equal(OracleLog.read(tmp_path / "out"), log)
    assert_equal(importer("exported")(tmp_path / "out"), log)
    export_log(log, tmp_path / "out")  # again over itself
    assert_equal(read_exported(tmp_path / "out"), log)


def test_load_dataset_reads_the_folder(tmp_path: Path) -> None:
    log = small(model="toy")
    export_log(log, tmp_path / "out")
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == SCHEMA.names
    assert rows["score"][:] == [0.5, 1.0, 0.0, None, 1.0, 1.0]
    assert rows["question"][0] == "Wörter | a?"
    assert rows["answer_tokens"][0] == 2
    assert rows["references"][:3] == [["x", "ÿ"], ["x", "ÿ"], None]
    assert (rows["metric"][0], rows["max_new_tokens"][0], rows["finish"][0]) == ("any", 16, "stop")
    frame = rows.to_pandas()
    again = OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
    assert_equal(again, log)


def test_the_card_says_what_is_in_the_log(tmp_path: Path) -> None:
    log = small(model="toy-7b", revision="r1", grid=["1", "9"], unmapped=["fields not used: ['x']"])
    export_log(log, tmp_path / "out", licence="apache-2.0")
    head, body = front(tmp_path / "out")
    assert head["license"] == "apache-2.0"
    assert head["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": HUB_PARQUET}]}
    ]
    assert head["size_categories"] == ["n<1K"]
    assert "oracle-log" in head["tags"]
    for line in (
        "# Oracle log: toy-7b",
        "What 3 questions about 3 images or other groups were answered at each of 2 options",
        "| 1 | 3 | 50.0 | 1 | 0 |",
        "| 9 | 2 | 100.0 | 9 | 1 |",
        "| toy | 2 | 25.0 | 100.0 |",
        "| other | 1 | 100.0 | 100.0 |",
        "1 rows have no score:",
        "| 1 | CUDA \\| out of memory |",
        "| revision | r1 |",
        '| grid | ["1", "9"] |',
        "- fields not used: ['x']",
        "@inproceedings{cai2025matryoshka,",
    ):
        assert line in body, line


def test_the_card_explains_every_column() -> None:
    assert list(COLUMNS) == SCHEMA.names
    card = data_card(small(), licence="unknown")
    assert all(f"| `{name}` |" in card for name in SCHEMA.names)
    assert "license: unknown" in card
    assert "Not stated." in card


@pytest.mark.parametrize("count, size", [(499, "n<1K"), (500, "1K<n<10K")])
def test_sizes_as_the_hub_names_them(count: int, size: str) -> None:
    rows = [row(str(i), scale) for i in range(count) for scale in ("1", "9")]
    log = OracleLog(pd.DataFrame(rows), options=("1", "9"), cost_unit="tokens")
    assert f"size_categories:\n- {size}\n" in data_card(log, licence="unknown")


@settings(max_examples=10, deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=30),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=30),
)
def test_any_texts_survive_and_leave_the_card_whole(tmp_path_factory, question, model) -> None:
    folder = tmp_path_factory.mktemp("t") / "out"
    rows = [row("a", "1", question=question, dataset=model or "d", error=None)]
    log = OracleLog(
        pd.DataFrame(rows), options=("1",), cost_unit="tokens", metadata={"model": model}
    )
    export_log(log, folder)
    assert_equal(OracleLog.read(folder), log)
    head, body = front(folder)
    assert set(head) >= {"license", "configs", "tags"}
    tables = [line for line in body.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_refusals(tmp_path: Path) -> None:
    log = small()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="holds something else than an exported log"):
        export_log(log, tmp_path / "full")
    log.write(tmp_path / "log")
    with pytest.raises(DataError, match="holds something else than an exported log"):
        export_log(log, tmp_path / "log")
    for licence in ("", "CC BY", "a\nb: c"):
        with pytest.raises(DataError, match="licence must be an identifier"):
            export_log(log, tmp_path / "out", licence=licence)
    empty = OracleLog(log.frame.head(0), options=log.options, cost_unit="tokens")
    with pytest.raises(DataError, match="empty"):
        export_log(empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    export_log(small(), tmp_path / "out")
    path = tmp_path / "out" / HUB_PARQUET
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match="damaged or was changed"):
        read_exported(tmp_path / "out")
    with pytest.raises(DataError, match="damaged or was changed"):
        push_to_hub(tmp_path / "out", "me/log", private=True)


# --- the hub -----------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """What of the hub's HTTP interface an upload of small files needs."""

    protocol_version = "HTTP/1.1"
    created: dict[str, Any]
    files: dict[str, bytes]
    refuse: int

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server: Any = self.server
        if server.refuse:
            return self.answer({"error": "not yours"}, server.refuse)
        assert self.headers["Authorization"] == "Bearer hf_test"
        if self.path == "/api/repos/create":
            server.created = json.loads(body)
            self.answer({"url": f"{server.address}/datasets/me/log", "id": "1"})
        elif self.path == "/api/datasets/me/log/preupload/main":
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            self.answer({"files": modes})
        elif self.path == "/api/datasets/me/log/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    server.files[value["path"]] = base64.b64decode(value["content"])
            url = f"{server.address}/datasets/me/log/commit/abc"
            self.answer({"commitUrl": url, "commitOid": "abc", "success": True})
        else:
            self.answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self.answer({"id": "me/log", "sha": "abc", "siblings": []})

    def answer(self, value: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.created, server.files, server.refuse = {}, {}, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


def test_an_upload_holds_the_whole_log(tmp_path: Path, hub: Any) -> None:
    log = small(model="toy")
    export_log(log, tmp_path / "out", licence="cc0-1.0")
    (tmp_path / "out" / "secret.txt").write_text("not for the world")
    address = push_to_hub(tmp_path / "out", "me/log", private=True)
    assert address == f"{hub.address}/datasets/me/log"
    assert (hub.created["type"], hub.created["visibility"]) == ("dataset", "private")
    assert set(hub.files) == {"README.md", MANIFEST, HUB_PARQUET}
    for name, content in hub.files.items():
        path = tmp_path / "down" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert_equal(OracleLog.read(tmp_path / "down"), log)


def test_uploads_that_fail_say_why(
    tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_log(small(), tmp_path / "out")
    with pytest.raises(DataError, match="name must be 'owner/name', got 'log'"):
        push_to_hub(tmp_path / "out", "log", private=False)
    hub.refuse = 403
    with pytest.raises(DataError, match=r"me/log could not be uploaded \(HfHubHTTPError: .*403"):
        push_to_hub(tmp_path / "out", "me/log", private=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"me/log could not be uploaded \(ConnectError: .*again"):
        push_to_hub(tmp_path / "out", "me/log", private=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"me/log could not be uploaded \(OfflineModeIsEnabled"):
        push_to_hub(tmp_path / "out", "me/log", private=False)
    assert hub.files == {}


def test_without_a_token_nothing_is_sent(
    tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_log(small(), tmp_path / "out")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(DataError, match="no token for the Hugging Face hub: run `hf auth login`"):
        push_to_hub(tmp_path / "out", "me/log", private=False)
    assert hub.created == {}


def test_scores_of_the_card_against_pandas(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [
        row(str(i), scale, score=float(generator.integers(0, 2)), dataset=f"d{i % 3}")
        for i in range(60)
        for scale in ("1", "9")
    ]
    frame = pd.DataFrame(rows)
    card = data_card(OracleLog(frame, options=("1", "9"), cost_unit="t"), licence="unknown")
    means = frame.groupby(["dataset", "scale"])["score"].mean().unstack() * 100
    for name, values in means.iterrows():
        assert f"| {name} | 20 | {values['1']:.1f} | {values['9']:.1f} |" in card
