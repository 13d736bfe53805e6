from __future__ import annotations

import json
import math
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from m3router.data.errors import DataError
from m3router.data.sources.jsonl import load_jsonl
from m3router.router.serve.http.recording import served_request
from m3router.router.traffic import Consent, Recorder, TrafficFolder, read_traffic
from m3router.router.traffic.folder import EXAMPLES, IMAGES, KEY
from m3router.router.traffic.recorder import WAITING, is_sampled
from tests.traffic.made import NOW, add, new_image
from tests.traffic.served import SERVED, asked, finished, offered


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def settled(recorder: Recorder) -> dict[str, int]:
    """Wait until everything sampled is written or dropped."""
    until(lambda: (c := recorder.counts())["written"] + c["dropped"] == c["sampled"])
    return recorder.counts()


@pytest.fixture
def start(tmp_path):
    """Starts recorders to tmp_path / "traffic" and stops them in the end."""
    running = []

    def begin(**settings) -> Recorder:
        recorder = Recorder(tmp_path / "traffic", **{"share": 1.0, **settings})
        recorder.start(SERVED)
        running.append(recorder)
        return recorder

    yield begin
    for recorder in running:
        recorder.stop()


def ids(recorder: Recorder) -> list[str]:
    return [one["id"] for one in read_traffic(recorder.folder)]


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_sampled_share_is_the_one_asked_for(share):
    """Within five standard deviations, which happens by chance once in 1.7 million draws."""
    n = 50_000
    taken = sum(is_sampled(f"chatcmpl-{number}", share, b"k" * 32) for number in range(n))
    assert abs(taken - n * share) <= 5 * math.sqrt(n * share * (1 - share))


def test_who_is_sampled_depends_on_the_key_and_the_id_alone():
    names = [f"chatcmpl-{number}" for number in range(4000)]
    first, again, other = (
        np.array([is_sampled(name, 0.5, key) for name in names])
        for key in (b"a" * 32, b"a" * 32, b"b" * 32)
    )
    assert (first == again).all()
    assert abs((first == other).mean() - 0.5) < 5 * math.sqrt(0.25 / len(names))
    few = np.array([is_sampled(name, 0.1, b"a" * 32) for name in names])
    assert not (few & ~first).any()  # a larger share adds requests and drops none
    assert not any(is_sampled(name, 0.0, b"a" * 32) for name in names)
    assert all(is_sampled(name, 1.0, b"a" * 32) for name in names)


def test_the_same_requests_are_sampled_after_a_restart(start, tmp_path):
    TrafficFolder.open(tmp_path / "traffic", make=True).close()
    (tmp_path / "traffic" / KEY).write_bytes(b"k" * 32)
    expected = [f"{n}" for n in range(200) if is_sampled(f"{n}", 0.2, b"k" * 32)]
    for half in (range(100), range(100, 200)):
        recorder = start(share=0.2)
        for number in half:
            recorder.offer(offered(str(number), new_image(1)))
        recorder.stop()
    assert ids(recorder) == expected
    assert recorder.counts()["offered"] == 100
    assert recorder.counts()["sampled"] < 100


def test_what_is_recorded(start):
    recorder = start()
    before = datetime.now(UTC) - timedelta(seconds=1)
    ask = asked("one", new_image(1), budget=64.0)
    assert recorder.offer(served_request(ask, finished(earlier=1), key="team-a"))
    recorder.stop()
    (line,) = read_traffic(recorder.folder)
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line == {
        "id": "one",
        "image": line["image"],
        "question": "what is one?",
        "answers": [],
        "metric": "agreement",
        "dataset": "traffic",
        "key": "team-a",
        "asked": {"budget": 64.0},
        "served": {
            "answer": "a cat",
            "option": "9",
            "estimates": {"1": 0.25, "9": 0.75},
            "usage": {
                "visual_tokens": 9,
                "spent_tokens": 18,
                "text_tokens": 5,
                "answer_tokens": 2,
            },
            "escalated": 1,
            "reason": "routed",
            "finish": "stop",
            "fallback": "",
        },
        "made_by": {
            "model": "fake",
            "revision": "r1",
            "router": "f" * 64,
            "policy": "default",
            "options": ["1", "9"],
        },
    }


@pytest.mark.parametrize(
    ("consent", "recorded"),
    [
        ("always", [True, True, True]),
        ("opt-out", [True, True, False]),
        ("opt-in", [True, False, False]),
    ],
)
def test_a_request_has_its_say(start, consent, recorded):
    recorder = start(consent=Consent(consent))
    said = {"yes": True, "nothing": None, "no": False}
    taken = [
        recorder.offer(offered(name, new_image(1), consented=word)) for name, word in said.items()
    ]
    assert taken == recorded
    recorder.stop()
    assert ids(recorder) == [name for name, yes in zip(said, recorded, strict=True) if yes]
    assert recorder.counts()["declined"] == recorded.count(False)


def test_many_threads_offer_at_once(start):
    recorder = start()
    taken: list[str] = []

    def offer(worker: int) -> None:
        for number in range(25):
            name = f"{worker}-{number}"
            if recorder.offer(offered(name, new_image(number % 5))):
                taken.append(name)
            if number % 10 == 9:
                recorder.forget(f"{worker}-{number - 5}")

    workers = [threading.Thread(target=offer, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    recorder.stop(seconds=60)
    forgotten = {f"{worker}-{number}" for worker in range(8) for number in (4, 14)}
    assert sorted(ids(recorder)) == sorted(set(taken) - forgotten)
    examples = load_jsonl(recorder.folder / EXAMPLES, images=recorder.folder / IMAGES)
    assert len({one.image for one in examples}) == 5
    counts = recorder.counts()
    assert counts["offered"] == counts["sampled"] == 200
    assert counts["dropped"] == 200 - len(taken)


def test_a_full_queue_drops_and_never_waits(start, monkeypatch):
    """While the disk holds the writer up, every offer comes back at once."""
    writing, may_end, adding = threading.Event(), threading.Event(), TrafficFolder.add

    def held_up(folder, *args):
        writing.set()
        assert may_end.wait(60)
        return adding(folder, *args)

    monkeypatch.setattr(TrafficFolder, "add", held_up)
    recorder = start()
    assert recorder.offer(offered("first", new_image(1)))
    assert writing.wait(60)
    taken = sum(recorder.offer(offered(str(number), new_image(2))) for number in range(3 * WAITING))
    assert not may_end.is_set() and taken == WAITING
    assert recorder.counts()["dropped"] == 2 * WAITING
    may_end.set()
    recorder.stop(seconds=60)
    assert ids(recorder) == ["first", *map(str, range(WAITING))]


def test_a_request_that_waits_is_forgotten(start):
    recorder = start()
    assert recorder.offer(offered("large", new_image(1, side=1500)))  # takes a while
    for number in range(10):
        assert recorder.offer(offered(str(number), new_image(2)))
    assert recorder.forget("9")  # as a rule it still waits
    recorder.stop(seconds=60)
    assert ids(recorder) == ["large", *map(str, range(9))]


def test_a_disk_that_fails_drops_records_and_nothing_else(start, caplog):
    recorder = start()
    images = recorder.folder / IMAGES
    recorder.offer(offered("before", new_image(1)))
    settled(recorder)
    images.rename(recorder.folder / "elsewhere")
    images.write_text("no folder")
    for number in range(3):
        assert recorder.offer(offered(f"during {number}", new_image(2)))
    assert settled(recorder)["dropped"] == 3
    with pytest.raises(DataError):
        recorder.forget("before")
    images.unlink()
    (recorder.folder / "elsewhere").rename(images)
    recorder.offer(offered("after", new_image(3)))
    settled(recorder)
    assert "during" not in "".join(path.read_text() for path in recorder.folder.glob("*.jsonl"))
    assert ids(recorder)[-1] == "after"
    assert caplog.text.count("not recorded") == 1
    assert "what is" not in caplog.text


def test_what_cannot_be_an_example_is_dropped_and_not_logged(start, caplog):
    recorder = start()
    recorder.offer(served_request(asked("one", new_image(1), question="secret \ud800"), finished()))
    recorder.offer(offered("two", new_image(1), "\ud800"))
    recorder.offer(offered("two", new_image(1)))
    assert settled(recorder)["dropped"] == 2
    assert ids(recorder) == ["two"]
    assert "secret" not in caplog.text
    recorder.stop()
    load_jsonl(recorder.folder / EXAMPLES, images=recorder.folder / IMAGES)
    (line,) = read_traffic(recorder.folder)
    assert line["served"]["answer"] == "?", "half of a pair, which no file can hold"


def test_forgetting_while_the_server_runs(start):
    recorder = start()
    for name in ("one", "two"):
        recorder.offer(offered(name, new_image(1)))
    settled(recorder)
    assert recorder.forget("one")
    assert not recorder.forget("one")
    assert not recorder.forget("never")
    assert ids(recorder) == ["two"]
    assert recorder.offer(offered("three", new_image(1)))
    recorder.stop()
    assert ids(recorder) == ["two", "three"]
    assert not recorder.offer(offered("four", new_image(1)))
    with pytest.raises(DataError, match="is closed"):
        recorder.forget("two")


def test_old_requests_are_deleted_at_the_start_and_later(start, tmp_path):
    with TrafficFolder.open(tmp_path / "traffic", make=True) as folder:
        add(folder, "old", 1, age=(NOW - datetime.now(UTC)).days + 8)
        add(folder, "young", 2, age=(NOW - datetime.now(UTC)).days + 5)
    recorder = start(keep_days=7)
    assert ids(recorder) == ["young"]
    assert len(list((recorder.folder / IMAGES).iterdir())) == 1
    assert recorder.purge(datetime.now(UTC) + timedelta(days=4)) == 1
    assert ids(recorder) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, r"share .* \[0, 1\], got 1.5"),
        ({"share": float("nan")}, "share"),
        ({"keep_days": 0}, "keep_days"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        Recorder(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_a_recorder_that_was_not_started_records_nothing(tmp_path):
    recorder = Recorder(tmp_path / "traffic", share=1.0)
    assert not recorder.offer(offered("one", new_image(1)))
    with pytest.raises(DataError, match="start the recorder first"):
        recorder.forget("one")
    recorder.stop()
    assert not (tmp_path / "traffic").exists()


def test_a_second_server_is_refused_and_a_failed_start_lets_go(start, tmp_path):
    recorder = start()
    with pytest.raises(DataError, match="in use by another process"):
        Recorder(recorder.folder).start(SERVED)
    recorder.stop()
    (recorder.folder / EXAMPLES).write_text(json.dumps({"id": "edited"}) + "\n")
    for _ in range(2):
        with pytest.raises(DataError, match="damaged at byte 0"):
            Recorder(recorder.folder).start(SERVED)
