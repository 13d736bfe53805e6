"""What all metrics have in common: outer blanks and Unicode's forms do not count."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.scoring.metrics import METRICS, check_references, load_metric
from m3router.data.texts import clean, plain

ACCENTED = "Caf\u00e9 \u00c5ngstr\u00f6m na\u00efve \ud55c\uad6d\uc5b4 \u1ec7"
spoken = st.text(alphabet="aAbByesno.,'%12 \u00e9\u1ec7\u00c5\ud55c\u0301\u0323\n\t", max_size=16)
answers = spoken | st.sampled_from(
    [
        "B",
        "(B)",
        "yes",
        "No.",
        "10%",
        "1,000",
        ACCENTED,
        "B. caf\u00e9",
        "The answer is caf\u00e9",
        "men's",
    ]
)
blanks = st.text(alphabet=" \n\t\r\u00a0\u2003\u3000\u200b\ufeff", max_size=3)
metrics = st.sampled_from(sorted(METRICS))


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@given(metrics, answers, st.lists(answers, min_size=1, max_size=10), st.data())
def test_outer_blanks_never_count(
    metric: str, answer: str, references: list[str], data: st.DataObject
) -> None:
    choices = data.draw(st.lists(answers, max_size=4))
    score = load_metric(metric)(answer, references, choices)
    assert load_metric(metric)(f" {answer}\n", references, choices) == score

    def padded(text: str) -> str:
        return data.draw(blanks) + text + data.draw(blanks)

    assert score == load_metric(metric)(
        padded(answer), [padded(one) for one in references], [padded(one) for one in choices]
    )


@given(metrics, answers, st.lists(answers, min_size=1, max_size=10), st.lists(answers, max_size=4))
def test_composed_and_decomposed_texts_are_the_same(
    metric: str, answer: str, references: list[str], choices: list[str]
) -> None:
    score = load_metric(metric)(answer, references, choices)
    told = [decomposed(one) for one in references]
    options = [decomposed(one) for one in choices]
    assert load_metric(metric)(decomposed(answer), references, choices) == score
    assert load_metric(metric)(answer, told, choices) == score
    assert load_metric(metric)(decomposed(answer), told, options) == score


@pytest.mark.parametrize(
    ("metric", "references", "choices"),
    [
        *[
            (one, [ACCENTED], [])
            for one in ("exact", "agreement", "gqa", "anls", "relaxed", "mmmu")
        ],
        *[(one, [ACCENTED] * 10, []) for one in ("vqa", "vqav2", "textvqa")],
        *[(one, ["B"], ["Tee", ACCENTED]) for one in ("choice", "mmbench")],
    ],
)
def test_the_same_word_in_another_form_is_right(
    metric: str, references: list[str], choices: list[str]
) -> None:
    for form in ("NFC", "NFD"):
        other = [
            unicodedata.normalize("NFD" if form == "NFC" else "NFC", one) for one in references
        ]
        said = unicodedata.normalize(form, ACCENTED)
        assert load_metric(metric)(said, other, choices) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Stra\u00dfe", "STRASSE", True),
        ("\u0130", "i\u0307", True),  # Turkish capital with its dot
        ("\u0131", "i", False),  # without a dot: another letter
        ("\uff11\uff12\uff22", "12b", True),  # full width
        ("10\u00b2", "102", False),  # a power is no digit
        ("red\u00a0car", "red car", True),
        ("\u200bcat\ufeff", "cat", True),
        ("\u03a3\u03a4", "\u03c3\u03c4", True),
        ("\u03c2", "\u03c3", True),  # final sigma
        ("caf\u00e9", "cafe", False),
    ],
)
def test_the_exact_metric_folds_case_and_width(first: str, second: str, same: bool) -> None:
    assert (
        load_metric("exact")(first, [second])
        == load_metric("exact")(second, [first])
        == float(same)
    )


@given(st.text(max_size=20))
def test_clean_and_plain_change_nothing_twice(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert plain(plain(text)) == plain(text)
    assert plain(decomposed(text)) == plain(text)


def test_references_with_blanks_are_no_problem() -> None:
    assert check_references("ai2d", [" B\n"], ["x", "y"]) == []
    assert check_references("yes_no", ["yes "], []) == []
    assert check_references("choice", [" caf\u00e9"], [decomposed("caf\u00e9"), "y"]) == []
