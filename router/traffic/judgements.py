"""What feedback tells of the options: scores of what they answered, and right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.data.paths import StrPath, as_path
from m3router.router.traffic.answers import METRIC
from m3router.router.traffic.feedback import Feedback
from m3router.router.traffic.files import Record
from m3router.router.traffic.folder import read_feedback, read_traffic
from m3router.router.traffic.records import example_of


def read_judged(root: StrPath) -> list[tuple[Record, Feedback]]:
    """The records of a folder that have feedback, each with it.

    Raises:
        DataError: It is not such a folder, or it is damaged.
    """
    root = as_path(root)
    told = read_feedback(root)
    return [(one, told[one["id"]]) for one in read_traffic(root) if one["id"] in told]


def known_scores(
    log: OracleLog, judged: Sequence[tuple[Record, Feedback]], *, of: Path
) -> npt.NDArray[np.float64]:
    """Scores (N, K) of the options' answers as far as feedback tells them; NaN for not known.

    Equal answers to a question have equal scores: every option that said what was served gets the
    score that this got. Where a right answer was told, options that say it have 1. Other words may
    be as right: nothing is known of them.

    Args:
        log: What every option answers to the recorded questions.
        judged: See :func:`read_judged`; may be about other questions, too.
        of: Where the log is, for messages.

    Raises:
        MismatchError: If feedback is about other questions of these ids, or about none of them.
    """
    scores, answers = np.full(log.scores.shape, np.nan), log.laid_out("answer")
    row_of = {name: row for row, name in enumerate(log.ids)}
    heard = 0
    for record, feedback in judged:
        row = row_of.get(record["id"])
        if row is None:
            continue
        if log.questions[row] != record["question"]:
            raise MismatchError(
                f"The feedback on {record['id']!r} is about another question than {of} asked under "
                "this id. Give the folder that this traffic was written from."
            )
        heard += 1
        right = reference_of(record, feedback)
        for place, text in enumerate(answers[row]):
            if text is None:
                continue
            if text == record["served"]["answer"]:
                scores[row, place] = feedback.score
            elif right is not None and right.score(text) == 1:
                scores[row, place] = 1.0
    if not heard:
        raise MismatchError(
            f"None of the {len(judged)} requests with feedback is in {of}. Give the folder that "
            "this traffic was written from."
        )
    return scores


def reference_of(record: Record, feedback: Feedback) -> Example | None:
    """The question with the right answer that feedback tells; None where it tells none.

    What was served is one where it is called right; what is called wrong tells no right answer.
    """
    served = record["served"]["answer"]
    answers = [feedback.answer] if feedback.answer else []
    if feedback.score == 1 and served not in answers:
        answers.insert(0, served)
    answers = [text for text in answers if text.strip()]
    if not answers:
        return None
    try:
        return example_of({**record, "answers": answers, "metric": METRIC})
    except DataError:  # such as words that the metric takes for nothing
        return None


def references(judged: Sequence[tuple[Record, Feedback]]) -> Mapping[str, Example]:
    """The questions whose feedback tells a right answer, with it, by their ids."""
    found = {record["id"]: reference_of(record, told) for record, told in judged}
    return {name: one for name, one in found.items() if one is not None}
