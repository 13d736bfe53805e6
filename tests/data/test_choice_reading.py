"""Which option an answer names: written down by hand, and properties over made answers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.scoring.metrics import load_metric
from m3router.data.scoring.multiple_choice import read_choice, read_reference

CHOICES = ["cat", "dog", "cow"]
FORMS = (
    "B", "b", "B.", "b.", "(B)", "(b)", "[B]", "[b]", "{B}", "<B>", "B)", "b)", "B:", "B,", "**B**",
    "*B*", "__B__", "`B`", '"B"', "'B'", "**B.**", "**(B)**", "$B$", "$$B$$", r"\(B\)", r"\[B\]",
    r"\boxed{B}", r"$\boxed{B}$", r"\boxed{\text{B}}", r"\text{B}", r"\boxed{\mathrm{\textbf{B}}}",
    "<b>B</b>", "<answer>B</answer>", "- B", "> B", "→ B", "1. B", "# B", "B!!!", "\uff22",
    "\uff08\uff22\uff09", "\u300cB\u300d",
)  # fmt: skip
STATED = (
    "Answer: B", "answer: b", "ANSWER: B", "The answer is B", "the answer is b.", "Answer - B",
    "The correct answer is (B).", "The correct option is b", "**Answer:** B", "**Answer: B**",
    "## Answer\nB", "Answer:\nB", "The answer is option B: dog", "Final answer: B", "Option B",
    "option b", "Choice B is right", "I think it is B", "i think b", "it's b", "I would choose B",
    "I'd go with **B**", "Letter B", "B is correct", "B is the correct answer, A and C are wrong",
    "It must be B, the dog.", "\u7b54\u6848\u662fB", "\u9009B", '{"answer": "B"}',
    "<think>A? Or C.</think> B", "A or C? No. Final answer: B",
)  # fmt: skip
EXPLAINED = (
    "B. dog", "B) dog", "b) dog", "B: dog", "B - dog", "B \u2013 dog", "B, dog", "B dog", "B\tdog",
    "**B. dog**", "**B.** dog", "(B) dog", "B.dog", "B because it barks", "b because it barks",
    "B, since it barks", "B\nIt barks.", "B\n\nExplanation: A cat meows, and C is a cow.",
    "**B. dog**\n\nIt barks, so it is not A or C.", "It barks.\nB", "It barks. So the answer is B.",
    "It barks.\n\nAnswer: B", "B. Option A is wrong because it meows.", "B, not A", "B (not A)",
    "B rather than C", "It is not A, it is B", "The answer is not A. It is B.", "dog (B)",
    "A cat meows, a cow moos. The answer is B", "B. It has a T-shirt of the U.S. team on",
    "Because the animal barks, the answer is B",
)  # fmt: skip
TEXTS = (
    "dog", "Dog.", "DOG", " the dog", "a dog", "**dog**", r"\boxed{dog}", "The answer is a dog.",
    "Answer: dog", "It's a dog.", "I think it is a dog", "It is a dog, not a cat", "dog(s)",
)  # fmt: skip
NOTHING = (
    "", " ", "A dog", "A dog is here", "A bird is here", "A can of soda", "I think so", "I",
    "Because", "BB", "AB", "A or B", "A, B", "A and B", "Both A and B", "A/B", "A & B", "A; B",
    "A B", "A\nB", "(A) and (B)", "either B or C", "B...or C", "B, maybe C", "B? No, C.",
    "Neither A nor B", "not B", "B is wrong", "D", "(D)", "D. dog", "The answer is E", "B or D",
    "A. cat B. dog C. cow", "A. cat\nB. dog\nC. cow", "The answer is B or C",
    "The answer is A. Wait, the answer is B", "B cat", "T-shirt", "C++", "B12", "U.S.A.", "a.m.",
    "D'oh", "There is a cat and a dog", "It is not a dog", "The answer is A dog", "I cannot tell",
    "None of the above", "neither cat nor dog", "catdog",
)  # fmt: skip


@pytest.mark.parametrize("answer", [*FORMS, *STATED, *EXPLAINED, *TEXTS])
def test_names_the_second(answer: str) -> None:
    assert read_choice(answer, CHOICES) == 1
    for right in ("B", "dog", "(b)", " B.\n"):
        assert load_metric("choice")(answer, [right], CHOICES) == 1.0
    for wrong in ("A", "cow"):
        assert load_metric("choice")(answer, [wrong], CHOICES) == 0.0


@pytest.mark.parametrize("answer", NOTHING)
def test_names_none(answer: str) -> None:
    assert read_choice(answer, CHOICES) is None


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("Vitamin C", 1),
        ("It is Vitamin C.", 1),
        ("B. Vitamin C", 1),
        ("The answer is C major", 3),
        ("It is in C major", 3),
        ("D: C major", 3),
        ("A cat", 2),
        ("A cat is here", 2),
        ("A", 0),
        ("C", 2),
    ],
)
def test_options_that_hold_letters(answer: str, place: int) -> None:
    assert read_choice(answer, ["Vitamin A", "Vitamin C", "A cat", "C major"]) == place


@pytest.mark.parametrize(
    ("answer", "place"),
    [("2", 1), ("There are 2", 1), ("12", None), ("-2", None), ("0.2", None), ("2%", None),
     ("2,000", None), ("2 or 3", None), ("B. 3", 1), ("b) 2", 1), ("10", 3)],
)  # fmt: skip
def test_options_that_are_numbers(answer: str, place: int | None) -> None:
    assert read_choice(answer, ["1", "2", "3", "10"]) == place


@pytest.mark.parametrize(
    "answer",
    [
        r"$\frac{1}{2}$", r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", r"The answer is $\frac{1}{2}$.",
        r"B. $\frac{1}{2}$", r"B) \(\frac{1}{2}\)", "B",
    ],
)  # fmt: skip
def test_options_with_markup(answer: str) -> None:
    choices = [r"$\frac{\sqrt{2}}{2}$", r"$\frac{1}{2}$", "**A** to *C*", "`x`"]
    assert read_choice(answer, choices) == 1
    assert read_choice("A to C", choices) == read_choice("C. **A** to *C*", choices) == 2


def test_letters_without_options() -> None:
    assert [read_choice(text, []) for text in ("B", "x.", "(I)", "The answer is I", "I.")] == [
        1, 23, 8, 8, 8,
    ]  # fmt: skip
    assert [read_choice(text, []) for text in ("I think so", "A dog", "dog", "I, Robot")] == [
        None, None, None, None,
    ]  # fmt: skip


def test_the_text_of_an_option_comes_first() -> None:
    assert read_choice("B", ["B", "A"]) == 0
    assert read_choice("**B**", ["B", "A"]) == 0
    assert read_choice("The answer is A", ["B", "A"]) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        ("(b)", 1),
        ("B. dog", 1),
        ("Answer: B", 1),
        ("dog", 1),
        ("D", None),
        ("I see B", None),
    ],
)
def test_references_are_read_strictly(text: str, place: int | None) -> None:
    assert read_reference(text, CHOICES) == place


# Words that are no letters, no options' texts and say nothing about other options.
SPOKEN = (
    "it", "barks", "loudly", "and", "has", "four", "legs", "I see", "that", "this", "one", "runs",
    "I'm sure", "the U.S. team", "an X-ray", "in the e.g. park",
)  # fmt: skip
words = st.lists(st.sampled_from(SPOKEN), min_size=1, max_size=12).map(" ".join)
places = st.integers(0, 3)
FOUR = ["red cat", "dog", "big cow", "horse"]


@given(places, st.sampled_from(FORMS), words, st.sampled_from(["\n", "\n\n"]), st.booleans())
def test_a_line_of_its_own_with_any_explanation(
    place: int, form: str, words: str, gap: str, before: bool
) -> None:
    said = form.translate(
        {ord("B"): "ABCD"[place], ord("b"): "abcd"[place], 0xFF22: 0xFF21 + place}
    )
    if "oxed" in form or "textbf" in form or "<b>" in form:
        said = form.replace("{B}", f"{{{'ABCD'[place]}}}").replace(">B<", f">{'ABCD'[place]}<")
    answer = f"{words}{gap}{said}" if before else f"{said}{gap}{words}"
    assert read_choice(answer, FOUR) == place


@given(places, st.sampled_from([". ", ") ", ": ", " - ", ", because ", "\n"]), words)
def test_a_letter_first_with_any_explanation(place: int, mark: str, words: str) -> None:
    letter = "ABCD"[place]
    assert read_choice(f"{letter}{mark}{words}", FOUR) == place
    assert read_choice(f"{letter}{mark}{FOUR[place]}", FOUR) == place
    assert read_choice(f"{words}. The answer is {letter}{mark}{words}", FOUR) == place


@given(
    places, places, st.sampled_from(["{} or {}", "{} and {}", "{}, {}", "({}) or ({})", "{}/{}"])
)
def test_two_letters_name_none(first: int, second: int, form: str) -> None:
    answer = form.format("ABCD"[first], "ABCD"[second])
    for said in (answer, f"The answer is {answer}", f"It is {answer}.", f"**{answer}**"):
        assert (read_choice(said, FOUR) is None) == (first != second), said


@given(st.text(max_size=80), st.lists(st.text(max_size=6), max_size=5))
def test_any_text_names_an_option_or_none(answer: str, choices: list[str]) -> None:
    place = read_choice(answer, choices)
    assert place is None or 0 <= place < (len(choices) or 26)
    assert read_choice(f" {answer}\n", choices) == place


@given(st.sampled_from(FOUR), st.sampled_from(["{}", "{}.", "The answer is {}", "**{}**", "({})"]))
def test_texts_of_options(choice: str, form: str) -> None:
    assert read_choice(form.format(choice), FOUR) == FOUR.index(choice)


@pytest.mark.parametrize(
    "part",
    ["( ", "(", "A ", "\\boxed{", "<answer>", "**", "dog not ", "the answer is ", "it is not "],
)
def test_long_answers_are_read_in_no_time(part: str) -> None:
    start = time.perf_counter()
    read_choice(part * (8000 // len(part)), CHOICES)
    assert time.perf_counter() - start < 5
