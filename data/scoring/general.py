"""Metrics of no single benchmark: texts, numbers, yes or no."""

from __future__ import annotations

from collections.abc import Sequence

from m3router.data.texts import on_clean_texts, plain

RELAXED_TOLERANCE = 0.05


@on_clean_texts
def score_exact(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts, ignoring case, widths, outer and repeated white space and a final full stop.

    GQA as LLaVA prepares it: ``scripts/convert_gqa_for_eval.py``, ``rstrip('.').lower()``.
    NOTE: white space is ignored too, on both sides, and case is folded, so that ``Straße`` equals
    ``STRASSE``; see :func:`m3router.data.texts.plain`.

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(plain(answer) in {plain(text) for text in answers})


@on_clean_texts
def score_agreement(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts character by character, but for outer blanks and composition.

    What says the very same scores the same under every metric, so that this never hides a
    difference that another metric would see.

    Args:
        answer: What the model said.
        answers: What the finest scale said; none before that is known.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(answer in answers)


@on_clean_texts
def score_yes_no(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare yes and no.

    MME in lmms-eval: ``tasks/mme/utils.py``, ``parse_pred_ans`` (from Otter). A longer answer is
    read by its first four characters, so ``Not sure`` and ``Know`` count as ``no``.

    Args:
        answer: What the model said.
        answers: ``yes`` or ``no``; case and full stops do not matter.
        choices: Not used.

    Returns:
        1.0 or 0.0; an answer that is neither scores 0.
    """
    return float(_read_yes_no(answer) in {_bare_yes_no(text) for text in answers})


@on_clean_texts
def score_relaxed(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare numbers within 5 %, anything else exactly but for case.

    ChartQA (Masry et al., ACL Findings 2022, section 5.1) as in pix2struct ``metrics.py`` and
    lmms-eval ``tasks/chartqa/utils.py``, ``relaxed_correctness``. Odd: a target of zero is
    compared as text, ``%`` divides by 100, and thousands separators are not read.

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(any(_relaxed_match(text, answer) for text in answers))


def _bare_yes_no(text: str) -> str:
    return text.lower().strip().replace(".", "")


def _read_yes_no(text: str) -> str:
    """Read yes or no, or "other"."""
    bare = _bare_yes_no(text)
    if len(bare) == 1:
        return {"y": "yes", "n": "no"}.get(bare, "other")
    start = bare[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def _relaxed_match(target: str, answer: str) -> bool:
    said, wanted = _to_float(answer), _to_float(target)
    if said is None or not wanted:
        return answer.lower() == target.lower()
    return abs(said - wanted) / abs(wanted) <= RELAXED_TOLERANCE


def _to_float(text: str) -> float | None:
    try:
        if text.endswith("%"):
            return float(text.rstrip("%")) / 100.0
        return float(text)
    except ValueError:
        return None
