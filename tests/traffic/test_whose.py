"""Who may read, delete and judge what was kept, and how much may be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from m3router.data.errors import DataError
from m3router.router.serve.guard.key_file import add_key
from m3router.router.serve.http import feedback as http
from m3router.router.serve.http.feedback import LONGEST_BODY, TrafficRoutes
from m3router.router.traffic import (
    Feedback,
    Recorder,
    TrafficFolder,
    read_feedback,
    read_traffic,
)
from m3router.router.traffic.answers import write_sheet
from m3router.router.traffic.folder import FEEDBACK, IMAGES, REPEATS
from m3router.router.traffic.records import LONGEST_TEXT
from tests.traffic.made import add, answered, filled, new_image, record
from tests.traffic.served import SERVED, offered


@pytest.fixture
def umask():
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    paths = [root, *root.rglob("*")]
    return {str(one.relative_to(root)): stat.S_IMODE(one.stat().st_mode) for one in paths}


def expected(root: Path) -> dict[str, int]:
    return {name: 0o700 if (root / name).is_dir() else 0o600 for name in modes(root)}


def everything_done(root: Path) -> None:
    filled(root)
    with TrafficFolder.open(root) as folder:
        folder.add_feedback("one", Feedback(score=1.0))
        folder.forget(["alone"])
        write_sheet(root / "sheet.csv", read_traffic(root), answered=(), only=None)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_everything_is_its_owner_s_alone_whatever_the_umask(tmp_path, umask, mask):
    umask(mask)
    root = tmp_path / "traffic"
    everything_done(root)
    add_key(tmp_path / "keys.jsonl", "ann")
    umask(0o022)
    assert len(modes(root)) >= 10 and modes(root) == expected(root)
    assert stat.S_IMODE((tmp_path / "keys.jsonl").stat().st_mode) == 0o600


def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path, umask):
    root = tmp_path / "traffic"
    everything_done(root)
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    TrafficFolder.open(root).close()
    assert modes(root) == expected(root)
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o777)
    TrafficFolder.open(empty, make=True).close()
    assert modes(empty) == expected(empty)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_of_somebody_else_s_is_refused(tmp_path):
    folder = tmp_path / "traffic"
    folder.mkdir()
    folder.chmod(0o777)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from m3router.data.errors import DataError\n"
        "from m3router.router.traffic import TrafficFolder\n"
        "os.setuid(65534)\n"
        "try: TrafficFolder.open(Path(sys.argv[1]), make=True)\n"
        "except DataError as error: print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert "belongs to the user who runs this" in told.stdout
    assert not list(folder.iterdir())


# --- deletion and feedback by the key that asked -------------------------------------------------


@pytest.fixture
def recorder(tmp_path):
    running = Recorder(tmp_path / "traffic", share=1.0)
    running.start(SERVED)
    yield running
    running.stop()


@pytest.fixture
def server(recorder, monkeypatch):
    """Routes as a server mounts them; the header `who` stands for its key."""
    monkeypatch.setattr(http, "GRACE", 0.0)
    routes = TrafficRoutes(recorder, who=lambda request: request.headers.get("who", ""))
    with TestClient(Starlette(routes=routes.routes())) as client:
        yield client


def test_only_the_key_that_asked_deletes(recorder, server):
    for name, key in (("a", "ann"), ("b", "bob"), ("c", "")):
        recorder.offer(offered(name, new_image(1), key=key))
    unknown = server.delete("/v1/traffic/never", headers={"who": "bob"})
    for name, who in (("a", "bob"), ("a", ""), ("c", "bob"), ("b", "ann")):
        refused = server.delete(f"/v1/traffic/{name}", headers={"who": who})
        assert (refused.status_code, refused.content) == (404, unknown.content)
    for name, who in (("a", "ann"), ("c", ""), ("b", "bob")):
        assert server.delete(f"/v1/traffic/{name}", headers={"who": who}).status_code == 200
        assert server.delete(f"/v1/traffic/{name}", headers={"who": who}).status_code == 404
    assert read_traffic(recorder.folder) == []


def test_keys_of_an_upstream_are_told_apart_and_not_kept(recorder, tmp_path):
    ann, bob = recorder.owner("sk-ann"), recorder.owner("sk-bob")
    assert ann != bob == recorder.owner("sk-bob") and ann.startswith("~")
    recorder.offer(offered("a", new_image(1), key=ann))
    assert not recorder.forget("a", key=bob)
    stored = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    assert b"sk-ann" not in stored
    other = Recorder(tmp_path / "other", share=1.0)
    other.start(SERVED)
    assert other.owner("sk-ann") != ann  # nobody can look a key up in another folder
    other.stop()
    assert recorder.forget("a", key=ann)


def test_an_answer_is_found_by_its_own_id_too(recorder, server):
    """Where an upstream names answers, whose ids may repeat, and those of two clients be equal."""
    for name, key in (("r1", "ann"), ("r2", "bob"), ("r3", "bob")):
        recorder.offer(offered(name, new_image(1), key=key, answer_id="chatcmpl-1"))
    told = {"id": "chatcmpl-1", "right": True}
    assert server.post("/v1/feedback", json=told, headers={"who": "ann"}).status_code == 200
    assert server.delete("/v1/traffic/chatcmpl-1", headers={"who": "bob"}).status_code == 200
    recorder.stop()
    assert [one["id"] for one in read_traffic(recorder.folder)] == ["r1", "r2"]
    assert read_feedback(recorder.folder) == {"r1": Feedback(score=1.0)}
    with TrafficFolder.open(recorder.folder) as folder:  # and after a restart
        assert folder.find("chatcmpl-1", key="bob") == "r2"
        assert folder.find("r1", key="bob") is None


def test_the_last_feedback_counts_and_goes_with_its_record(recorder, server):
    recorder.offer(offered("a", new_image(1), key="ann"))
    mine = {"who": "ann"}
    for body in ({"right": True}, {"score": 0.25, "answer": " a dog "}, {"right": False}):
        answer = server.post("/v1/feedback", json={"id": "a", **body}, headers=mine)
        assert answer.status_code == 200
        assert answer.json() == {
            "object": "feedback",
            "id": "a",
            "score": float(body.get("score", body.get("right", 0))),
        }
    assert read_feedback(recorder.folder) == {"a": Feedback(score=0.0)}
    other = server.post("/v1/feedback", json={"id": "a", "right": True}, headers={"who": "bob"})
    never = server.post("/v1/feedback", json={"id": "z", "right": True}, headers=mine)
    assert other.status_code == never.status_code == 404 and other.content == never.content
    assert "not sampled" in other.json()["error"]["message"]
    assert read_feedback(recorder.folder) == {"a": Feedback(score=0.0)}
    assert server.delete("/v1/traffic/a", headers=mine).status_code == 200
    assert read_feedback(recorder.folder) == {}


def test_feedback_may_come_before_the_record_is_written(recorder, server, monkeypatch):
    """While another record holds the writer up, and even before the answer was offered."""
    recorder.offer(offered("large", new_image(1, side=1500)))
    recorder.offer(offered("a", new_image(2)))
    assert server.post("/v1/feedback", json={"id": "a", "right": True}).status_code == 200
    monkeypatch.setattr(http, "GRACE", 1.0)
    late = threading.Timer(0.2, lambda: recorder.offer(offered("b", new_image(2))))
    late.start()
    assert server.post("/v1/feedback", json={"id": "b", "score": 0.5}).status_code == 200
    late.join()
    recorder.stop()
    assert read_feedback(recorder.folder) == {"a": Feedback(score=1), "b": Feedback(score=0.5)}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"id": "a", "score": NaN}', "score"),
        (b'{"id": "a", "score": 1e999}', "score"),
        (b'{"id": "a", "score": true}', "score"),
        (b'{"id": "a", "score": "1"}', "score"),
        (b'{"id": "a", "score": -0.1}', "score"),
        (b'{"id": "a", "score": 1' + b"0" * 4000 + b"}", "score"),
        (b'{"id": "a", "score": 1' + b"0" * 5000 + b"}", None),
        (b'{"id": "a", "right": 1}', "right"),
        (b'{"id": "a", "right": true, "score": 1}', "right"),
        (b'{"id": "a"}', None),
        (b'{"id": "a", "right": null}', None),
        (b'{"id": 5, "right": true}', "id"),
        (b'{"id": "", "right": true}', "id"),
        (b'{"right": true}', "id"),
        (b'{"id": "a", "right": true, "id": "b"}', None),
        (b'{"id": "a", "rigth": true}', "rigth"),
        (b'{"id": "a", "right": true, "answer": 5}', "answer"),
        (b'{"id": "a", "right": true, "answer": "\\ud800"}', "answer"),
        (b'{"id": "a", "right": true, "answer": "' + b"x" * 2001 + b'"}', "answer"),
        (b"[" * 10_000, None),
        (b"\xff", None),
    ],
)
def test_feedback_that_is_wrong_is_told_where(recorder, server, body, param):
    recorder.offer(offered("a", new_image(1)))
    answer = server.post("/v1/feedback", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error"
    assert not (recorder.folder / FEEDBACK).exists()


def test_a_long_body_is_refused_and_a_full_disk_told(recorder, server, monkeypatch):
    recorder.offer(offered("a", new_image(1)))
    long = b'{"id": "a", "right": true' + b" " * LONGEST_BODY + b"}"
    assert server.post("/v1/feedback", content=long).status_code == 413
    assert server.post("/v1/feedback", json={"id": "a", "right": True}).status_code == 200
    feedback = recorder.folder / FEEDBACK
    feedback.rename(recorder.folder / "elsewhere")
    feedback.mkdir()
    answer = server.post("/v1/feedback", json={"id": "a", "right": True})
    assert answer.status_code == 503 and str(recorder.folder) not in answer.text
    feedback.rmdir()


def test_a_server_that_keeps_nothing_says_so():
    client = TestClient(Starlette(routes=TrafficRoutes(None).routes()))
    answer = client.post("/v1/feedback", json={"id": "a", "right": True})
    assert answer.status_code == 404 and "keeps no requests" in answer.text


def test_feedback_survives_a_torn_line_and_does_not_grow(tmp_path):
    root = filled(tmp_path / "traffic")
    with TrafficFolder.open(root) as folder:
        for number in range(5 * REPEATS):
            folder.add_feedback("one", Feedback(score=number % 2))
        folder.add_feedback("other", Feedback(score=0.5, answer="a dog"))
        with pytest.raises(DataError, match="no record of 'never'"):
            folder.add_feedback("never", Feedback(score=1.0))
    kept = {"one": Feedback(score=1.0), "other": Feedback(score=0.5, answer="a dog")}
    assert len((root / FEEDBACK).read_bytes().splitlines()) <= 2 * REPEATS
    with (root / FEEDBACK).open("ab") as file:
        file.write(b'{"id":"one","sco')
    assert read_feedback(root) == kept
    with TrafficFolder.open(root) as folder:
        folder.add_feedback("one", Feedback(score=0.75))
    assert read_feedback(root) == {**kept, "one": Feedback(score=0.75)}


# --- how much may be kept ------------------------------------------------------------------------


def size_of(root: Path) -> int:
    texts = [*root.glob("*.jsonl"), *(root / "sets").glob("*"), *(root / IMAGES).glob("*")]
    return sum(one.stat().st_size for one in texts)


def test_the_oldest_go_for_new_ones(tmp_path):
    root, most = tmp_path / "traffic", 120_000
    with TrafficFolder.open(root, make=True, max_bytes=most) as folder:
        gone = 0
        for number in range(40):
            image = new_image(number // 2, side=64)  # 12 KB as PNG, two requests each
            gone += folder.add(record(f"r{number}", image, age=40 - number), image)
            if number % 4 == 0:
                folder.add_feedback(f"r{number}", Feedback(score=1.0))
            assert folder.bytes == size_of(root) <= most
        left = [one["id"] for one in read_traffic(root)]
        assert left == [f"r{number}" for number in range(40 - len(left), 40)]
        assert len(left) == len(folder) == 40 - gone and 10 <= len(left) < 20
        assert set(read_feedback(root)) <= set(left)
        large = new_image(99, side=250)
        with pytest.raises(DataError, match="larger than"):
            folder.add(record("large", large), large)
        assert len(folder) == len(left)  # nothing went for what cannot be kept
        folder.write_set("all")
        folder.answer([answered("r39", 19)])
        assert folder.bytes == size_of(root)
        folder.forget(["r39", "r38"])
        assert folder.bytes == size_of(root)
    with TrafficFolder.open(root, max_bytes=50_000) as folder:  # a smaller one by now
        assert folder.bytes == size_of(root) <= 50_000
        assert [one["id"] for one in read_traffic(root)][-1] == "r37"


def test_a_recorder_counts_what_went(tmp_path):
    with pytest.raises(DataError, match="at least 1048576 bytes"):
        Recorder(tmp_path / "traffic", max_bytes=1000)
    recorder = Recorder(tmp_path / "traffic", share=1.0, max_bytes=1 << 20)
    recorder.start(SERVED)
    for number in range(12):
        while not recorder.offer(offered(f"{number}", new_image(number, side=256))):
            pass
    recorder.stop(seconds=60)
    counts, left = recorder.counts(), len(read_traffic(recorder.folder))
    assert counts["written"] == 12 and counts["rotated"] == 12 - left > 0
    assert size_of(recorder.folder) <= 1 << 20
    assert datetime.fromisoformat(read_traffic(recorder.folder)[0]["time"]) <= datetime.now(UTC)


def test_records_of_earlier_versions_are_read(tmp_path):
    with TrafficFolder.open(tmp_path / "traffic", make=True) as folder:
        add(folder, "old", 1)
    (line,) = read_traffic(tmp_path / "traffic")
    assert line["served"]["option"] == "9" and line["served"]["answer"] == "a cat"


def test_a_text_that_may_be_cut_is_not_kept(recorder):
    assert not recorder.offer(offered("long", new_image(1), "x" * LONGEST_TEXT))
    assert not recorder.offer(replace(offered("q", new_image(1)), question="x" * LONGEST_TEXT))
    assert recorder.offer(offered("whole", new_image(1), "x" * (LONGEST_TEXT - 1)))
    recorder.stop()
    assert [one["id"] for one in read_traffic(recorder.folder)] == ["whole"]
    assert recorder.counts()["dropped"] == 2
