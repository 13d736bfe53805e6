"""The queue that workers take from, and what happens to questions when a worker fails."""

from __future__ import annotations

from PIL import Image

from m3router.router.inference.query import Query
from m3router.router.serve.backends.job_queue import Job, JobQueue, Pace


def test_whoever_is_taken_out_of_the_queue_is_named():
    """Times run out while the queue is looked through, too."""
    waiting = JobQueue(1)
    image = Image.new("RGB", (1, 1))
    count = 3_000
    for number in range(count):
        ask = Query(id=str(number), image=image, question="?", seconds=0.1 + number * 1e-5)
        waiting.put(Job.of(ask, rule=None, tell=lambda event: None))
    lost: list[Job] = []
    while len(waiting):
        lost += waiting.lost()
    assert sorted(job.seconds for job in lost) == [0.1 + one * 1e-5 for one in range(count)]


def test_the_pace_is_that_of_times_with_questions():
    """Bursts of answers, as a batch gives them, count by their mean; pauses do not count."""
    pace, now = Pace(), 1_000.0
    assert pace.seconds_for(10) == 0
    for _ in range(40):
        pace.began(now)
        for _ in range(10):
            now += 1.0
            for _ in range(4):
                pace.ended(now)
        now += 10_000.0
    assert 0.15 < pace.seconds_for(1) < 0.35
