from __future__ import annotations

import functools
import hashlib
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.scoring.metrics import METRICS, load_metric
from m3router.data.scoring.vqa import _contractions, normalize, strip_punctuation

# --- VQA -------------------------------------------------------------------------------------

# Recorded from vqaEval.py of github.com/GT-Vision-Lab/VQA (processPunctuation, then
# processDigitArticle).
OFFICIAL_TEXTS = [
    ("Two dogs.", "2 dogs"),
    ("the man's t-shirt", "man's t shirt"),
    ("t-shirt, red", "t shirt red"),
    ("1,000 t-shirts", "1000 tshirts"),
    ("3.5", "3.5"),
    ("3.", "3"),
    ("none", "0"),
    ("a", ""),
    ("it's 12:30", "it's 12:30"),
    ("dont know!", "don't know"),
    ("Id've", "id've"),
    ("yall'll", "y'all'll"),
    ("somebody'd", "somebodyd"),
    ("yes/no", "yes no"),
    ("yes / no", "yes no"),
    ("  A  b ", "b"),
    ("U.S.A.", "usa"),
    ("eleven", "eleven"),
    ("." * 40, "." * 8),
    ("x.y.5", "xy.5"),
    ("$5.00?", "$5.00"),
    ("she\u2019s here", "she\u2019s here"),
]

# Recorded from the same file's evaluate().
OFFICIAL_SCORES = [
    ("black", ["black"] * 10, 1.0),
    ("Black.", ["black"] * 10, 0.0),
    ("Black.", ["black"] * 9 + ["Black"], 1.0),
    ("two", ["2"] * 4 + ["two"] * 6, 1.0),
    ("no", ["no"] * 2 + ["yes"] * 8, 0.6),
    ("yes", ["no"] * 2 + ["yes"] * 8, 1.0),
    ("dog", ["dog"] * 3 + ["cat"] * 7, 0.9),
    ("dog", ["dog"] + ["cat"] * 9, 0.3),
    ("the cat\n", ["cat"] * 5 + ["a cat"] * 5, 1.0),
    ("", ["a"] * 5 + ["the"] * 5, 1.0),
    ("fish", ["cat"] * 5 + ["dog"] * 5, 0.0),
]


@pytest.mark.parametrize(("text", "expected"), OFFICIAL_TEXTS)
def test_vqa_text_equals_official(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(("answer", "answers", "expected"), OFFICIAL_SCORES)
def test_vqa_score_equals_official(answer: str, answers: list[str], expected: float) -> None:
    assert load_metric("vqa")(answer, answers, ()) == pytest.approx(expected)


def test_vqa_contractions_are_the_official_table() -> None:
    # The official entries that change a lower-cased word, sorted, as JSON.
    text = json.dumps(sorted(_contractions().items()))
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "853d25c89947b7f6d41f6c5f81b2d6c3119927f4b16f557fc1b03af6ef45605e"
    )


def reference_punctuation(text: str) -> str:
    """The same rule told letter by letter."""
    marks = set(';/[]"{}()=+\\_-><@`,?!')
    numbers = any(
        a.isdecimal() and b == "," and c.isdecimal()
        for a, b, c in zip(text, text[1:], text[2:], strict=False)
    )
    spaced = {
        mark for mark, after in zip(text, text[1:], strict=False) if after == " " and mark in marks
    } | {mark for before, mark in zip(text, text[1:], strict=False) if before == " "}
    letters = []
    for letter in text:
        if letter not in marks:
            letters.append(letter)
        elif not numbers and letter not in spaced:
            letters.append(" ")
    removed, kept = 0, []
    for place, letter in enumerate(letters):
        digit_next = place + 1 < len(letters) and letters[place + 1].isdecimal()
        if letter == "." and not digit_next and removed < 32:
            removed += 1
        else:
            kept.append(letter)
    return "".join(kept)


vqa_texts = st.text(alphabet=" .,;/-'\"?!a12\n\t_`", max_size=40) | st.text(max_size=10)


@given(vqa_texts)
def test_vqa_punctuation_against_reference(text: str) -> None:
    assert strip_punctuation(text) == reference_punctuation(text)


@given(st.integers(0, 10), st.integers(0, 9))
def test_vqa_closed_form(same: int, others: int) -> None:
    """With m of n matching: (m min(1, (m-1)/3) + (n-m) min(1, m/3)) / n."""
    answers = ["yes"] * same + ["no"] * others + ["maybe"]
    n = len(answers)
    expected = (
        same * min(Fraction(1), Fraction(same - 1, 3))
        + (n - same) * min(Fraction(1), Fraction(same, 3))
    ) / n
    assert load_metric("vqa")("yes", answers, ()) == pytest.approx(float(expected))


# --- ANLS ------------------------------------------------------------------------------------


def reference_distance(first: str, second: str) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (first[i - 1] != second[j - 1]),
        )

    return distance(len(first), len(second))


def reference_anls(answer: str, answers: list[str]) -> float:
    best = Fraction(-100)
    for text in answers:
        text, answer = text.strip(), answer.strip()
        longest = max(len(text.upper()), len(answer.upper()))
        plainly, said = (" ".join(one.lower().split()) for one in (text, answer))
        distance = Fraction(reference_distance(plainly, said), longest) if longest else Fraction(0)
        best = max(best, 1 - distance)
    return float(best) if best >= Fraction(1, 2) else 0.0


short = st.text(alphabet="abAB \u00df\u0130\n", max_size=7)


@given(short, st.lists(short, min_size=1, max_size=3))
def test_anls_against_reference(answer: str, answers: list[str]) -> None:
    assert load_metric("anls")(answer, answers, ()) == pytest.approx(
        reference_anls(answer, answers)
    )


@pytest.mark.parametrize(
    ("answer", "answers", "expected"),
    [
        ("Coca Cola", ["coca cola"], 1.0),
        ("coca-cola", ["coca cola"], 8 / 9),
        ("ab", ["a"], 0.5),  # exactly at the threshold still counts
        ("abc", ["a"], 0.0),
        ("  a  ", ["a"], 1.0),
        ("x", ["dog", "x"], 1.0),
        ("", ["dog"], 0.0),
        ("  ab", ["ac"], 0.5),  # outer blanks do not count,
        ("a  b", ["a c"], 0.75),  # those within do: divided by the length 4
    ],
)
def test_anls_known_values(answer: str, answers: list[str], expected: float) -> None:
    assert load_metric("anls")(answer, answers, ()) == pytest.approx(expected)


# --- ChartQA ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("105", "100", 1.0),
        ("95", "100", 1.0),
        ("105.1", "100", 0.0),
        ("-100", "100", 0.0),
        ("-103", "-100", 1.0),
        ("10%", "0.1", 1.0),
        ("10", "10%", 0.0),
        ("50%%", "0.5", 1.0),
        ("0.0", "0", 0.0),  # a target of zero is compared as text
        ("0", "0", 1.0),
        ("1,000", "1000", 0.0),  # thousands separators are not read
        ("Blue", "blue", 1.0),
        ("blue.", "blue", 0.0),
        (" 100 ", "100", 1.0),
        (" blue", "blue", 1.0),
        ("10% ", "0.1", 1.0),
        ("nan", "nan", 0.0),
        ("inf", "inf", 0.0),
        ("inf", "5", 0.0),
        ("%", "%", 1.0),
        ("", "5", 0.0),
        ("1_000", "1000", 1.0),
    ],
)
def test_relaxed_known_values(answer: str, target: str, expected: float) -> None:
    assert load_metric("relaxed")(answer, [target], ()) == expected


@given(
    st.integers(-(10**6), 10**6).filter(bool),
    st.fractions(min_value=-1, max_value=1, max_denominator=1000),
)
def test_relaxed_tolerance(target: int, change: Fraction) -> None:
    near, far = abs(change) < Fraction(499, 10000), abs(change) > Fraction(501, 10000)
    answer = repr(float(target * (1 + change)))
    if near or far:
        assert load_metric("relaxed")(answer, [str(target)], ()) == float(near)


def test_relaxed_takes_the_best_reference() -> None:
    assert load_metric("relaxed")("7", ["blue", "7.1"], ()) == 1.0


# --- the others ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "answers", "expected"),
    [
        (" Cat. ", ["cat"], 1.0),
        ("the  cat", ["The cat"], 1.0),
        ("STRASSE", ["Stra\u00dfe"], 1.0),
        ("cats", ["cat"], 0.0),
        ("cat", ["dog", "CAT."], 1.0),
        ("", ["cat"], 0.0),
    ],
)
def test_exact(answer: str, answers: list[str], expected: float) -> None:
    assert load_metric("exact")(answer, answers, ()) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", 1.0),
        ("b", 1.0),
        ("B.", 1.0),
        ("(B)", 1.0),
        ("B. dog", 1.0),
        ("B) dog", 1.0),
        ("Answer: B", 1.0),
        ("The answer is B.", 1.0),
        ("the correct answer is (b)", 1.0),
        ("dog", 1.0),
        ("Dog.", 1.0),
        ("A", 0.0),
        ("A dog", 0.0),
        ("Because", 0.0),
        ("cat", 0.0),
        ("D", 0.0),
        ("", 0.0),
        ("BB", 0.0),
    ],
)
@pytest.mark.parametrize("right", ["B", "dog", "(b)"])
def test_choice(answer: str, expected: float, right: str) -> None:
    assert load_metric("choice")(answer, [right], ["cat", "dog", "cow"]) == expected


def test_choice_whose_text_is_another_letter() -> None:
    assert load_metric("choice")("B", ["A"], ["B", "A"]) == 0.0
    assert load_metric("choice")("A", ["A"], ["B", "A"]) == 1.0


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("Yes, it is", "yes"),
        ("y", "yes"),
        ("N", "no"),
        ("No, there is not", "no"),
        ("know", "no"),
        ("Not sure", "no"),
        ("It is yes", "other"),
        ("", "other"),
        ("1", "other"),
    ],
)
def test_yes_no_reads_as_mme(answer: str, read: str) -> None:
    assert load_metric("yes_no")(answer, ["yes"], ()) == float(read == "yes")
    assert load_metric("yes_no")(answer, ["No."], ()) == float(read == "no")


@given(
    metric=st.sampled_from(sorted(METRICS)),
    answer=st.text(max_size=30),
    answers=st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=10),
    choices=st.lists(st.text(max_size=5), max_size=4),
)
def test_every_score_is_in_the_unit_interval(
    metric: str, answer: str, answers: list[str], choices: list[str]
) -> None:
    value = load_metric(metric)(answer, answers, choices)
    assert isinstance(value, float)
    assert 0.0 <= value <= 1.0


def test_score_takes_the_example() -> None:
    example = Example(id="a", image="a.png", question="?", answers=("cat",))
    assert example.score("Cat") == 1.0
    with pytest.raises(DataError, match="Unknown metric 'exct'. Did you mean 'exact'"):
        load_metric("exct")
