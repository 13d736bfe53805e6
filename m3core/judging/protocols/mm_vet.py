"""MM-Vet (Yu et al., ICML 2024): a correctness from 0.0 to 1.0 that completes a table.

The protocol is ``mm-vet_evaluator.py`` of github.com/yuweihao/MM-Vet (commit 7d717c2). Its text is
also in lmms-eval, ``lmms_eval/tasks/mmvet/utils.py`` (commit 161c7a1, Apache-2.0), where one word
of the table's head was replaced by accident; here it is as MM-Vet has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m3router.m3core.judging.protocols.base import MOST_LETTERS, Grade, Protocol, mean, number_in

_MEME = (
    "Can you explain this meme? | This meme is poking fun at the fact that the names of the "
    "countries Iceland and Greenland are misleading. Despite its name, Iceland is known for its "
    "beautiful green landscapes, while Greenland is mostly covered in ice and snow. The meme is "
    "saying that the person has trust issues because the names of these countries do not "
    "accurately represent their landscapes. | "
)
_PROMPT = (
    "Compare the ground truth and prediction from AI models, to give a correctness score for the "
    "prediction. <AND> in the ground truth means it is totally right only when all elements in "
    "the ground truth are present in the prediction, and <OR> means it is totally right when any "
    "one element in the ground truth is present in the prediction. The correctness score is 0.0 "
    "(totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just "
    "complete the last space of the correctness score.\n"
    "\n"
    "Question | Ground truth | Prediction | Correctness\n"
    "--- | --- | --- | ---\n"
    "What is x in the equation? | -1 <AND> -5 | x = 3 | 0.0\n"
    "What is x in the equation? | -1 <AND> -5 | x = -1 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -5 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -5 or 5 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -1 or x = -5 | 1.0\n"
    f"{_MEME}The meme talks about Iceland and Greenland. It's pointing out that despite their "
    "names, Iceland is not very icy and Greenland isn't very green. | 0.4\n"
    f"{_MEME}The meme is using humor to point out the misleading nature of Iceland's and "
    "Greenland's names. Iceland, despite its name, has lush green landscapes while Greenland is "
    "mostly covered in ice and snow. The text 'This is why I have trust issues' is a playful way "
    "to suggest that these contradictions can lead to distrust or confusion. The humor in this "
    "meme is derived from the unexpected contrast between the names of the countries and their "
    "actual physical characteristics. | 1.0\n"
    "\n"
    "{question} | {reference} | {answer} | "
)


def ground_truth(references: Sequence[str]) -> str:
    """Write references as MM-Vet does: blanks around its two words, several with ``<OR>``.

    >>> ground_truth(["5:30PM<AND>88%"])
    '5:30PM <AND> 88%'
    """
    text = "<OR>".join(references)
    return text.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")


def parse_correctness(reply: str) -> Grade | None:
    """Read the first word as a number in [0, 1].

    NOTE: ``nan`` is no number, white space before the number is passed over, and any white space
    ends it; the published script knows only blanks, and its judge was allowed three tokens.

    Args:
        reply: What the judge said.

    Returns:
        None where there is no such number.

    >>> parse_correctness("0.4").score
    0.4
    """
    words = reply[:MOST_LETTERS].split(maxsplit=1)
    score = number_in(words[0]) if words else None
    if score is None or not 0 <= score <= 1:
        return None
    return Grade(score=abs(score), numbers={"correctness": abs(score)})


def summarize(verdicts: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """The mean of all, and of each capability, in percent.

    ``export_result`` of the published script. Capabilities are what follows the slash in a data
    set's name, with commas; a question counts for each of its own.

    Args:
        verdicts: Data set and numbers of each.

    Returns:
        ``total`` and the capabilities.
    """
    found: dict[str, list[float]] = {"total": []}
    for dataset, numbers in verdicts:
        capabilities = filter(None, (part.strip() for part in dataset.partition("/")[2].split(",")))
        for name in ("total", *dict.fromkeys(capabilities)):
            found.setdefault(name, []).append(numbers["correctness"])
    return {name: 100 * mean(values) for name, values in found.items() if values}


MM_VET = Protocol(
    name="mm-vet",
    source="github.com/yuweihao/MM-Vet, mm-vet_evaluator.py, commit 7d717c2; text also in "
    "github.com/EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/mmvet/utils.py, commit 161c7a1, "
    "Apache-2.0",
    judge="gpt-4-0613",
    prompt=_PROMPT,
    again="\nPredict the correctness of the answer (digit): ",
    reference=ground_truth,
    parse=parse_correctness,
    summary=summarize,
    max_tokens=3,
    deviations=(
        "Judged once; the paper takes the mean of five.",
        "A reply that cannot be read is asked for again once, at temperature 0, and then is an "
        "error; the published script asks four times, at rising temperatures, and then scores 0.",
    ),
)
