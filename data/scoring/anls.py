"""The average normalised Levenshtein similarity of DocVQA."""

from __future__ import annotations

from collections.abc import Sequence

from m3router.data.texts import on_clean_texts

ANLS_THRESHOLD = 0.5


@on_clean_texts
def score_anls(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Give the normalised Levenshtein similarity to the nearest reference; 0 below a half.

    DocVQA (Biten et al., ICCV 2019, eq. 1) as its evaluation script has it and as lmms-eval
    repeats it (``api/metrics.py``, ``anls``): the distance is taken between lower-cased texts
    with white space collapsed, but divided by the longer of the upper-cased texts as they were.

    Args:
        answer: What the model said.
        answers: Reference answers.
        choices: Not used.

    Returns:
        0 or a value in [0.5, 1].
    """
    nearest = min(_normalized_distance(text, answer) for text in answers)
    similarity = 1.0 - nearest
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _normalized_distance(reference: str, answer: str) -> float:
    """Edit distance over length, in [0, 1] but for texts that change length in upper case."""
    length = max(len(reference.upper()), len(answer.upper()))
    if length == 0:
        return 0.0
    first, second = (" ".join(text.lower().split()) for text in (reference, answer))
    return _levenshtein(first, second) / length


def _levenshtein(first: str, second: str) -> int:
    """Count the insertions, deletions and substitutions between two texts.

    Wagner and Fischer, 1974, one row at a time.
    """
    row = list(range(len(first) + 1))
    for done, right in enumerate(second, start=1):
        diagonal, row[0] = row[0], done
        for column, left in enumerate(first, start=1):
            substituted = diagonal + (left != right)
            diagonal = row[column]
            row[column] = min(substituted, row[column] + 1, row[column - 1] + 1)
    return row[-1]
