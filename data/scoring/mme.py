"""MME's published score: accuracy and accuracy+ of each subtask, summed over its two halves.

Fu et al., MME (arXiv 2306.13394), section 2.2, as ``eval_tool/calculation.py`` of its authors
computes it and lmms-eval repeats it (``tasks/mme/utils.py``, ``mme_aggregate_results``): every
image has two questions, one to be answered yes and one no. *Accuracy* counts questions, *accuracy+*
counts images with both right; a subtask scores the sum of both in per cent, so 200 at most,
perception 2000 over ten subtasks and cognition 800 over four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

_SUBTASKS = frozenset((*PERCEPTION, *COGNITION))
_RIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class MmeSums:
    """MME's scores of one set of answers.

    Attributes:
        subtasks: Subtask -> accuracy + accuracy+, in [0, 200], in the order of the paper.
        perception: Sum over the subtasks of perception that are there; None for none of them.
        cognition: The same for cognition.
        images: Images that count.
        left_out: Images without a score of both their questions, which do not.
    """

    subtasks: dict[str, float]
    perception: float | None
    cognition: float | None
    images: int
    left_out: int


def subtask_of(dataset: str, group: str) -> str | None:
    """Name MME's subtask that a question belongs to; None where it is none of MME's.

    Args:
        dataset: As fetched (``mme/OCR``) or imported (``mme``).
        group: Names the image; for an imported log the subtask stands there (``mme/OCR/3.jpg``).

    >>> subtask_of("mme/OCR", "images/a.png"), subtask_of("mme", "mme/count/1.jpg")
    ('OCR', 'count')
    """
    name, *rest = dataset.split("/")
    if name.lower() != "mme":
        return None
    return next((part for part in (*rest, *group.split("/")) if part in _SUBTASKS), None)


def mme_sums(
    subtasks: Sequence[str | None], images: Sequence[str], scores: Sequence[float]
) -> MmeSums | None:
    """Sum scores of questions up as MME publishes them.

    Args:
        subtasks: Subtask of each question, None for what is not MME's, (N,).
        images: Names the image of each question, (N,). One image twice in a subtask has four
            questions, paired in their order.
        scores: Score of each answer, (N,); NaN for none.

    Returns:
        The sums; None where no image has both its questions answered.
    """
    answers: dict[str, dict[str, list[float]]] = {}
    for subtask, image, score in zip(subtasks, images, scores, strict=True):
        if subtask is not None:
            answers.setdefault(subtask, {}).setdefault(image, []).append(float(score))
    sums, counted, left_out = {}, 0, 0
    for subtask in filter(answers.__contains__, (*PERCEPTION, *COGNITION)):
        pairs = [
            own[start : start + 2]
            for own in answers[subtask].values()
            for start in range(0, len(own), 2)
        ]
        whole = [pair for pair in pairs if len(pair) == 2 and all(one == one for one in pair)]
        left_out += len(pairs) - len(whole)
        counted += len(whole)
        if whole:
            right = [[one >= _RIGHT for one in pair] for pair in whole]
            accuracy = sum(map(sum, right)) / (2 * len(whole))
            plus = sum(map(all, right)) / len(whole)
            sums[subtask] = 100 * (accuracy + plus)
    if not sums:
        return None
    return MmeSums(
        subtasks=sums,
        perception=_sum(sums, PERCEPTION),
        cognition=_sum(sums, COGNITION),
        images=counted,
        left_out=left_out,
    )


def _sum(sums: dict[str, float], names: Sequence[str]) -> float | None:
    there = [sums[name] for name in names if name in sums]
    return sum(there) if there else None
