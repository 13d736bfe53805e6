"""The images and questions that are in flight together: encoded once, asked at every scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.scoring.general import score_agreement
from m3router.m3core.labelling.progress import LabelStats
from m3router.m3core.labelling.references import expected_score, reference_answers
from m3router.m3core.labelling.rows import RIGHT, LabelMode, empty_row, fill_row, longest_answer
from m3router.m3core.matryoshka.base import Answer, MultiScaleModel, Request, VisualEncoding
from m3router.m3core.matryoshka.batching import Limits, answer_in_batches

Row = dict[str, Any]


class Labeller:
    """Asks a model about encoded images.

    Args:
        model: The model.
        mode: What is asked.
        limits: How much a batch may hold; shared by all chunks of a run, so that what was learned
            about the device's memory is kept.
        stats: Receives what was computed.
        max_new_tokens: Tokens of the longest answer to any example; None for each one's own.
    """

    def __init__(
        self,
        model: MultiScaleModel,
        mode: LabelMode,
        *,
        limits: Limits,
        stats: LabelStats,
        max_new_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.mode = mode
        self.limits = limits
        self.stats = stats
        self.max_new_tokens = max_new_tokens

    def rows(
        self,
        examples: Sequence[Example],
        encodings: Mapping[str, VisualEncoding],
        causes: Mapping[str, str],
    ) -> list[Row]:
        """The rows of these examples at every scale, by example and then by scale.

        Args:
            examples: What to ask.
            encodings: Of the images that could be read.
            causes: Why the others could not.
        """
        scales = self.model.grid.scales
        rows = {
            (one.id, scale): empty_row(one, scale, self._longest(one))
            for one in examples
            for scale in scales
        }
        waiting = []
        for example in examples:
            if example.image in causes:
                for scale in scales:
                    rows[example.id, scale]["error"] = causes[example.image]
            else:
                waiting.append(example)
        if self.mode is LabelMode.UNTIL_CORRECT:
            for scale in scales:
                self._ask(waiting, [scale], encodings, rows)
                waiting = [e for e in waiting if not _right(rows[e.id, scale])]
            self._fill_unknown(examples, encodings, rows)
        else:
            self._ask(waiting, scales, encodings, rows)
        if self.mode is LabelMode.AGREEMENT:
            _compare_with_finest(waiting, scales, rows)
        self._count_flops(examples, encodings, rows)
        return list(rows.values())

    def _ask(
        self,
        examples: Sequence[Example],
        scales: Sequence[int],
        encodings: Mapping[str, VisualEncoding],
        rows: Mapping[tuple[str, int], Row],
    ) -> None:
        asked: list[Example] = []
        requests: list[Request] = []
        for example in examples:
            encoding = encodings[example.image]
            for scale in scales:
                try:
                    self.model.prompt_length(example.question, encoding.tokens(scale))
                except DataError as error:
                    rows[example.id, scale]["error"] = str(error)
                    continue
                asked.append(example)
                requests.append(
                    Request(
                        encoding=encoding,
                        question=example.question,
                        scale=scale,
                        max_new_tokens=self._longest(example),
                    )
                )
        if self.mode is LabelMode.REFERENCES:
            self._ask_for_references(asked, requests, rows)
            return
        with self.stats.stage("answer"):
            for batch in answer_in_batches(self.model, requests, self.limits):
                self.stats.count(batch)
                for place in batch.indices if batch.error else ():
                    rows[asked[place].id, requests[place].scale]["error"] = batch.error
                for place, answer in zip(batch.indices, batch.answers, strict=False):
                    example, request = asked[place], requests[place]
                    row = rows[example.id, request.scale]
                    fill_row(row, example, request.encoding, answer, self.model)

    def _ask_for_references(
        self,
        asked: Sequence[Example],
        requests: Sequence[Request],
        rows: Mapping[tuple[str, int], Row],
    ) -> None:
        """Score every candidate of every request, then draw the answers together."""
        owners, candidates = [], []
        for place, (example, request) in enumerate(zip(asked, requests, strict=True)):
            texts = reference_answers(example)
            visual, most = request.encoding.tokens(request.scale), self._longest(example)
            try:
                longest = max(self.model.answer_length(text, most=most) for text in texts)
                self.model.prompt_length(example.question, visual, room=longest)
            except DataError as error:
                rows[example.id, request.scale]["error"] = str(error)
                continue
            for text in texts:
                owners.append(place)
                candidates.append(
                    Request(
                        encoding=request.encoding,
                        question=request.question,
                        scale=request.scale,
                        answer=text,
                    )
                )
        scored: dict[int, list[Answer]] = {}
        with self.stats.stage("answer"):
            for batch in answer_in_batches(self.model, candidates, self.limits):
                self.stats.count(batch)
                for place in batch.indices if batch.error else ():
                    owner = owners[place]
                    rows[asked[owner].id, requests[owner].scale]["error"] = batch.error
                for place, answer in zip(batch.indices, batch.answers, strict=False):
                    scored.setdefault(owners[place], []).append(answer)
        for owner, answers in scored.items():
            example, request = asked[owner], requests[owner]
            row = rows[example.id, request.scale]
            if row["error"] is None:
                best = max(answers, key=lambda answer: answer.logprob)
                fill_row(row, example, request.encoding, best, self.model)
                row |= {"score": expected_score(example, answers), "finish": None}

    def _longest(self, example: Example) -> int:
        return longest_answer(example, self.model, self.max_new_tokens)

    def _fill_unknown(
        self,
        examples: Iterable[Example],
        encodings: Mapping[str, VisualEncoding],
        rows: Mapping[tuple[str, int], Row],
    ) -> None:
        """What a scale that was not asked would cost is known all the same."""
        for example in examples:
            for scale in self.model.grid.scales:
                row = rows[example.id, scale]
                if row["score"] is None and row["error"] is None:
                    encoding = encodings[example.image]
                    row["cost"] = float(encoding.tokens(scale))
                    row["vision_flops"] = self.model.shape.vision_flops(encoding.views)

    def _count_flops(
        self,
        examples: Iterable[Example],
        encodings: Mapping[str, VisualEncoding],
        rows: Mapping[tuple[str, int], Row],
    ) -> None:
        """What these rows need at least: shared prefixes count once."""
        shape = self.model.shape
        self.stats.flops += sum(shape.vision_flops(one.views) for one in encodings.values())
        prefixes: dict[tuple[str, int], int] = {}
        for example in examples:
            for scale in self.model.grid.scales:
                row = rows[example.id, scale]
                if row["flops"] is None:
                    continue
                visual = int(row["cost"])
                prefixes[example.image, scale] = visual
                self.stats.flops += row["flops"] - shape.text.flops(visual)
        self.stats.flops += sum(shape.text.flops(visual) for visual in prefixes.values())


def _right(row: Row) -> bool:
    """Whether asking stops here: at a right answer, or where there is none at all."""
    return row["error"] is None and row["score"] >= RIGHT


def _compare_with_finest(
    examples: Iterable[Example], scales: Sequence[int], rows: Mapping[tuple[str, int], Row]
) -> None:
    """Score every answer by the finest scale's; where that has none, nothing can be told."""
    for example in examples:
        finest = rows[example.id, scales[-1]]
        for scale in scales:
            row = rows[example.id, scale]
            if row["error"] is None and finest["error"] is not None:
                cause = f"the finest scale has no answer to compare with: {finest['error']}"
                row |= {"score": None, "error": cause}
            elif row["error"] is None:
                row["score"] = score_agreement(row["answer"], (finest["answer"],))
