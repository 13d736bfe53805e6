"""Questions for the servers, and what the offline pipeline answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.serving.summary import Truth
from experiments.benchmarks.serving.workload import Question
from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.sources.jsonl import load_jsonl
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.runs.run import Run

AUTO = "m3-auto"
_AT_ONCE = 64


def fixed(scale: int) -> str:
    """Name of the model that answers at one scale."""
    return f"m3-{scale}"


def test_part(folder: Path, *, images: int) -> list[Question]:
    """The questions of a quickstart's test split about its first images.

    Args:
        folder: What ``m3router quickstart`` wrote.
        images: How many at most.

    Raises:
        DataError: If the folder holds no quickstart run.
    """
    source = folder / "scenes" / "examples.jsonl"
    if not source.is_file():
        raise DataError(f"{folder} holds no quickstart run; run `m3router quickstart` first")
    place = source.parent / "images"
    by_id = {one.id: one for one in load_jsonl(source, images=place)}
    run = Run(folder / "run")
    log = run.log()
    rows = run.split(log).part("test")
    asked = [by_id[log.ids[row]] for row in rows]
    kept = set(list(dict.fromkeys(one.image for one in asked))[:images])
    return [_question(one, place) for one in asked if one.image in kept]


def _question(example: Example, images: Path) -> Question:
    return Question(
        id=example.id, image=images / example.image, text=example.question, kind=example.dataset
    )


def truths(
    pipeline: AutoScalePipeline, questions: Sequence[Question], models: Sequence[str]
) -> dict[tuple[str, str], Truth]:
    """What the offline pipeline answers, by question and model.

    Args:
        pipeline: With the policy that is served.
        questions: What is asked.
        models: "m3-auto", "m3-576" and so on.
    """
    scales = {AUTO: None, **{fixed(scale): scale for scale in pipeline.model.grid.scales}}
    found = {}
    for model in models:
        for start in range(0, len(questions), _AT_ONCE):
            part = questions[start : start + _AT_ONCE]
            answers = pipeline.answer(
                [one.image for one in part], [one.text for one in part], scale=scales[model]
            )
            for one, routed in zip(part, answers, strict=True):
                found[one.id, model] = Truth(routed.answer.text, routed.scale)
    return found
