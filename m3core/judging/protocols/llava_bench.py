"""LLaVA-Bench (in the Wild) (Liu et al., NeurIPS 2023): two scores in a line.

The protocol is ``llava/eval/eval_gpt_review_bench.py`` with the rules ``llava_bench_*`` of
``llava/eval/table/rule.json``, whose texts are one, and ``llava/eval/summarize_gpt_review.py``, of
github.com/haotian-liu/LLaVA (commit 181a2f8, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m3router.m3core.judging.protocols.base import MOST_LETTERS, Grade, Protocol, mean, number_in

HIGHEST = 10.0
_RULE = (
    "We would like to request your feedback on the performance of two AI assistants in response "
    "to the user question displayed above. The user asks the question on observing an image. For "
    "your reference, the visual content in the image is represented with a few sentences "
    "describing the image. \n"
    "Please rate the helpfulness, relevance, accuracy, level of details of their responses. Each "
    "assistant receives an overall score on a scale of 1 to 10, where a higher score indicates "
    "better overall performance.\n"
    "Please first output a single line containing only two values indicating the scores for "
    "Assistant 1 and 2, respectively. The two scores are separated by a space.\n"
    "In the subsequent line, please provide a comprehensive explanation of your evaluation, "
    "avoiding any potential bias and ensuring that the order in which the responses were "
    "presented does not affect your judgment."
)
_PROMPT = (
    "[Context]\n{context}\n\n"
    "[Question]\n{question}\n\n"
    "[Assistant 1]\n{reference}\n\n[End of Assistant 1]\n\n"
    "[Assistant 2]\n{answer}\n\n[End of Assistant 2]\n\n"
    f"[System]\n{_RULE}\n\n"
)


def parse_pair(reply: str) -> Grade | None:
    r"""Read two numbers from the first line: the reference's and the answer's.

    As the published script, commas count as blanks. NOTE: several blanks count as one, lines
    without text before the first one are passed over, and numbers outside of [0, 10] are refused;
    the published script takes ``8, 7`` for unreadable, and counts what is unreadable as -1.

    Args:
        reply: What the judge said.

    Returns:
        The answer's number over ten as score; None where there are not two such numbers.

    >>> parse_pair("8 7\nThe first ...").numbers
    {'reference': 8.0, 'answer': 7.0}
    """
    lines = reply[:MOST_LETTERS].strip().split("\n", 1)
    found = [number_in(word) for word in lines[0].replace(",", " ").split()]
    if len(found) != 2 or any(one is None or not 0 <= one <= HIGHEST for one in found):
        return None
    reference, answer = (abs(one) for one in found if one is not None)
    return Grade(score=answer / HIGHEST, numbers={"reference": reference, "answer": answer})


def summarize(verdicts: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """The relative score of all and of each category, in percent, rounded as published.

    The answers' mean over the references' mean, both rounded to three places, not the mean of
    single ratios. Categories are what follows the slash in a data set's name.

    Args:
        verdicts: Data set and numbers of each.

    Returns:
        ``all`` and the categories; those whose references all have 0 are left out.
    """
    found: dict[str, list[Mapping[str, float]]] = {"all": []}
    for dataset, numbers in verdicts:
        category = dataset.partition("/")[2]
        for name in ("all", category) if category else ("all",):
            found.setdefault(name, []).append(numbers)
    relative = {}
    for name, several in found.items():
        if several:
            answer, reference = (
                round(mean([one[key] for one in several]), 3) for key in ("answer", "reference")
            )
            if reference:
                relative[name] = round(answer / reference * 100, 1)
    return relative


def first_reference(references: Sequence[str]) -> str:
    """The answer that the benchmark compares with: GPT-4's, which was told the captions."""
    return references[0]


LLAVA_BENCH = Protocol(
    name="llava-bench",
    source="github.com/haotian-liu/LLaVA, llava/eval/eval_gpt_review_bench.py and "
    "llava/eval/table/rule.json, commit 181a2f8, Apache-2.0",
    judge="gpt-4-0314",
    system="You are a helpful and precise assistant for checking the quality of the answer.",
    prompt=_PROMPT,
    reference=first_reference,
    parse=parse_pair,
    summary=summarize,
    max_tokens=1024,
    needs_context=True,
    deviations=(
        "The temperature is 0; the published script has 0.2.",
        "The log keeps the answer's score over ten; the published relative score of each option "
        "is beside it.",
    ),
)
