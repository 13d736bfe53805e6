"""Rules of single benchmarks: recorded official scores, and slow references told another way."""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.scoring.metrics import METRICS, Expects, expects, load_metric
from m3router.data.scoring.vqa import normalize_evalai, tokenize_first
from m3router.data.texts import clean

# --- Thousands of answers, scored once by the references' own functions ----------------------

ALL_WORDS = (
    "a an the A B C D E b two three none zero ten dont couldnt've Im man's mans it's yes no Yes "
    "No NO not y n cat dog red Red answer is The final so therefore = 3 3.5 1,000 1,,000 10% 0.1 "
    "$5.00 5e3 -2 1.5e-3 12:30 .5 5. U.S.A. t-shirt x/y ? ! , . ; : ' \" ( ) (A) (B) A. B. A) B: "
    ":C (D). A, unanswerable \u00e9t\u00e9 \u0130 Stra\u00dfe \u0663 \u00bd \u2019s nan inf 1_000 "
    "% Because option [x] [1,2] {b} result could be"
)
WORDS = ALL_WORDS.split(" ")
SPACES = ["\n", "\t", " ", "  ", "\u00a0", "\x00"]
PHRASES = (
    "{L}", "{L}.", "({L})", "{L})", "The answer is {L}", "The answer is ({L}).", "{L}. {c}", "{c}",
    "{c}.", "I think that it must be {c} because of the thing", "{L} or {M} I am not sure",
    "({L}) and then ({M})", "{l}", "{t} {c} {t} {d}", "A dog is {L}.", ":{L}", "{L}, {c}", "{t}",
    "Answer: {L}", "{L}\n{M}", "'{L}'", "{c} {d}",
)  # fmt: skip
OPEN = (
    "{t}", "The final answer is {t}", "{u}\nso x = {t}", "{u} {t} {u}", "{t}.\n\n is ",
    "Therefore it could be {t}.",
)  # fmt: skip
Case = tuple[str, list[str], list[str]]


def any_text(dice: random.Random) -> str:
    kind = dice.random()
    if kind < 0.05:
        return ""
    pool = WORDS + SPACES
    if kind < 0.2:
        return "".join(dice.choice("".join(pool)) for _ in range(dice.randint(1, 6)))
    return dice.choice(["", " ", " "]).join(dice.choice(pool) for _ in range(dice.randint(1, 8)))


def like(text: str, dice: random.Random) -> str:
    spoken = (
        text, text, text, text.lower(), text.upper(), text + ".", f" {text}\n", text + "!",
        text.replace("'", ""), text.replace(" ", "  "), any_text(dice),
    )  # fmt: skip
    return dice.choice(spoken)


def options(dice: random.Random) -> list[str]:
    texts = [any_text(dice).strip() for _ in range(dice.randint(2, 4))]
    return [text if text.strip("\0 ") else f"option {place}" for place, text in enumerate(texts)]


def by_people(dice: random.Random) -> Case:
    base = [any_text(dice) for _ in range(dice.randint(1, 3))]
    answers = [like(dice.choice(base), dice) for _ in range(10)]
    if dice.random() < 0.3:
        answers = answers[:1] * 10
    return like(dice.choice(answers), dice), answers, []


def by_text(dice: random.Random) -> Case:
    gold = any_text(dice)
    return like(gold, dice), [gold], []


def by_number(dice: random.Random) -> Case:
    value = dice.choice([dice.randint(-100, 100), round(dice.uniform(-5, 5), 3)])
    gold = dice.choice([str(value), f"{value}%", any_text(dice)])
    near = value * (1 + dice.choice([0.05, -0.05, dice.uniform(-0.07, 0.07)]))
    return dice.choice([repr(near), f"{near}%", str(near / 100), like(gold, dice)]), [gold], []


def by_yes_no(dice: random.Random) -> Case:
    gold = dice.choice(["yes", "no", "Yes", "No"])
    said = (
        "Yes", "No", "no.", "YES ", "y", "n", "N.", "Not", "know", "Yes, it", "Y.e.s", "ok no",
        "\nno", like(gold, dice), any_text(dice),
    )  # fmt: skip
    return dice.choice(said), [gold], []


def by_letter(dice: random.Random) -> Case:
    choices = options(dice)
    fill = {"L": dice.choice("ABCDE"), "M": dice.choice("ABCDE"), "l": dice.choice("abcd")}
    fill |= {"c": dice.choice(choices), "d": dice.choice(choices), "t": any_text(dice)}
    answer = dice.choice(PHRASES).format(**fill)
    return answer, [dice.choice("ABCDE"[: len(choices)])], choices


def by_lettered_option(dice: random.Random) -> Case:
    answer, answers, choices = by_letter(dice)
    lettered = [f"{letter}. {text}" for letter, text in zip("ABCDE", choices, strict=False)]
    return dice.choice([answer, f"I am sure it {dice.choice(lettered)} x y"]), answers, lettered


def by_open_answer(dice: random.Random) -> Case:
    answers = [any_text(dice) for _ in range(dice.randint(1, 2))]
    said = like(dice.choice(answers), dice)
    return dice.choice(OPEN).format(t=said, u=any_text(dice)), answers, []


# Metric and kind of answer -> SHA-256 of the scores that the functions named in docs/benchmarks.md
# gave to composed texts without outer blanks (0 where they would choose at random), and how many
# were above 0. MMMU's: its own script's, and lmms-eval's where that would choose at random.
OFFICIAL: dict[tuple[str, Callable[[random.Random], Case]], tuple[str, int]] = {
    ("vqa", by_people): ("bef4e0ae269b5030", 1591),
    ("vqav2", by_people): ("bef4e0ae269b5030", 1591),
    ("textvqa", by_people): ("6567f99f981e82ab", 1800),
    ("gqa", by_text): ("98963d1531b1c368", 1706),
    ("anls", by_text): ("5e05af59dd70049d", 1810),
    ("relaxed", by_number): ("b221cece6cd1b8e9", 583),
    ("pope", by_yes_no): ("379f76734713a002", 1085),
    ("mme", by_yes_no): ("4765844ea21ab129", 706),
    ("yes_no", by_yes_no): ("3cc0f7779b3e8ae8", 971),
    ("seedbench", by_letter): ("eb3e6e6726dede2e", 240),
    ("scienceqa", by_letter): ("e579cdb26c7bb529", 78),
    ("ai2d", by_letter): ("13f6d70de6c8015e", 158),
    ("mmbench", by_letter): ("500ed4cfed8d0518", 385),
    ("mmmu", by_letter): ("53cb51fe6fae4629", 356),
    ("mmmu", by_open_answer): ("d2e5546ccc1b5285", 1403),
    ("nextqa", by_letter): ("4d57b00da91b776d", 354),
    ("egoschema", by_lettered_option): ("ecf1c06feda26f8b", 495),
}  # fmt: skip
ANSWERS = 2000


@functools.cache
def cases(make: Callable[[random.Random], Case]) -> list[Case]:
    dice = random.Random(make.__name__)
    return [make(dice) for _ in range(ANSWERS)]


def digest(scores: list[float]) -> tuple[str, int]:
    text = " ".join(f"{score:.9f}" for score in scores)
    return hashlib.sha256(text.encode()).hexdigest()[:16], sum(score > 0 for score in scores)


@pytest.mark.parametrize(
    ("metric", "make"), OFFICIAL, ids=lambda one: getattr(one, "__name__", one)
)
def test_scores_are_those_of_the_references(
    metric: str, make: Callable[[random.Random], Case]
) -> None:
    assert digest([load_metric(metric)(*case) for case in cases(make)]) == OFFICIAL[metric, make]


# --- References ------------------------------------------------------------------------------

texts = st.text(alphabet=" .,;/-'\"?!aAbBthes12\n\t_`\u00e9\u0130\0", max_size=24)
phrases = st.lists(st.sampled_from(WORDS + SPACES), max_size=8).map(" ".join)
spoken = texts | phrases | st.text(max_size=8)


def reference_evalai(text: str) -> str:
    """Pythia's processor told letter by letter; contractions and numbers are tested elsewhere."""
    marks = set(';/[]"{}()=+\\_-><@`,?!')
    numbers = any(
        text[place].isdecimal() and (rest := text[place + 1 :].lstrip(",")) != text[place + 1 :]
        and rest[:1].isdecimal()
        for place in range(len(text))
    )  # fmt: skip
    gone = {m for m in marks if numbers or f"{m} " in text or f" {m}" in text}
    blanked = "".join(
        " " if c in marks and c not in gone else c for c in text if c not in gone
    )  # fmt: skip
    kept, removed = "", 0
    for place, letter in enumerate(blanked):
        stop = letter == "." and not blanked[place + 1 : place + 2].isdecimal()
        if stop and removed < 32:
            removed += 1
        else:
            kept += letter
    return kept


@given(st.lists(st.sampled_from([*" .,;/-_?!x2'", "1,", ",,3", "\u0663"]), max_size=14))
def test_evalai_punctuation_against_reference(parts: list[str]) -> None:
    text = "".join(parts)
    # "x" and digits are no articles, numbers or contractions, so only punctuation is left.
    assert normalize_evalai(text).split() == reference_evalai(text).lower().split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The man's hats?", "man 's hats"),
        ("1,000", "1000"),
        ("A, b", "b"),
        ("It's\nnone.", "it 's 0"),
        ("Whats's", "what's 's"),
        ("", ""),
    ],
)
def test_evalai_processor(text: str, expected: str) -> None:
    assert normalize_evalai(tokenize_first(text)) == expected


def reference_soft(said: str, references: list[str]) -> float:
    """Leave each annotator out in turn."""
    total = Fraction(0)
    for place in range(len(references)):
        others = references[:place] + references[place + 1 :]
        total += min(Fraction(1), Fraction(others.count(said), 3))
    return float(total / len(references))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_textvqa_leaves_each_annotator_out(data: st.DataObject) -> None:
    some = data.draw(st.lists(spoken, min_size=1, max_size=3))
    answers = data.draw(st.lists(st.sampled_from(some), min_size=2, max_size=10))
    answer = data.draw(st.sampled_from(some) | spoken)

    def whole(text: str) -> str:
        return normalize_evalai(tokenize_first(clean(text)))

    assert load_metric("textvqa")(answer, answers, ()) == pytest.approx(
        reference_soft(whole(answer), [whole(text) for text in answers])
    )


@pytest.mark.parametrize(
    ("answer", "answers", "vqav2", "textvqa"),
    [
        ("Black.", ["black"] * 10, 0.0, 1.0),  # VQA's own oddity: all agree, nothing is normalised
        ("the man's", ["man's"] * 9 + ["dog"], 1.0, 1.0),
        ("A dog", ["A dog"] * 10, 1.0, 1.0),
        ("men's", ["men's"] * 10, 1.0, 1.0),
        ("1,,2-3", ["1,,2-3"] * 9 + ["x"], 1.0, 1.0),
        ("1,,2-3", ["1 2 3"] * 9 + ["x"], 1.0, 0.0),  # a comma becomes a space, or goes first
        ("two", ["2"] * 4 + ["two"] * 6, 1.0, 1.0),
    ],
)
def test_the_vqa_metrics_differ(
    answer: str, answers: list[str], vqav2: float, textvqa: float
) -> None:
    assert load_metric("vqav2")(answer, answers, ()) == pytest.approx(vqav2)
    assert load_metric("vqa")(answer, answers, ()) == pytest.approx(vqav2)
    assert load_metric("textvqa")(answer, answers, ()) == pytest.approx(textvqa)


@given(
    st.sampled_from(["two", "a dog", "the beach", "t-shirt", "none", "man's", "1,000"]) | spoken,
    st.integers(2, 10),
)
def test_saying_what_all_annotators_said_is_right(answer: str, people: int) -> None:
    expected = min(1.0, (people - 1) / 3)
    for metric in (one for one in METRICS if expects(one) is Expects.SEVERAL_PEOPLE):
        assert load_metric(metric)(answer, [answer] * people, ()) == pytest.approx(expected)


def numpy_exact_match(answer: str, reference: str) -> float:
    """What Hugging Face's ``evaluate`` does: NumPy's string functions on both."""
    table = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    first, second = (
        np.char.translate(np.char.lower(np.asarray([text])), table) for text in (answer, reference)
    )
    return float((first == second).mean())


@given(spoken, spoken, st.booleans())
@example("cat\0.", "cat", False)
@example("\u0130", "i", False)
@example(" cat", "cat", False)
def test_gqa_and_ai2d_against_numpy(answer: str, other: str, same: bool) -> None:
    reference = answer.upper() if same else other
    answer, reference = clean(answer), clean(reference)
    assert load_metric("gqa")(answer, [reference], ()) == numpy_exact_match(answer, reference)
    start = answer.lstrip()
    letter = start[:1] if start[1:2] == "." and start[:1] in set("ABCDE") else answer
    if not ("F" <= start[:1] <= "Z"):
        assert load_metric("ai2d")(answer, ["B"], ()) == numpy_exact_match(letter, "B")


@given(spoken | st.sampled_from(["yes", "No", " YES\n", "yes.", "B", "B.", " B. x", "b", "Bx"]))
def test_short_rules_against_regular_expressions(answer: str) -> None:
    answer = clean(answer)
    no = re.match(r"(?:[^.]* ,*)?(?:n,*o|N,*o|n,*o,*t),*(?:[ .]|\Z)", answer) is not None
    assert load_metric("pope")(answer, ["No"], ()) == float(no)
    assert load_metric("pope")(answer, ["Yes "], ()) == float(not no)
    first = re.match(r"[Bb]", answer) is not None
    assert load_metric("seedbench")(answer, ["B"], ()) == float(first)
    bare = re.match(r"(?:[Bb]\Z|B\.)", answer) is not None
    assert load_metric("scienceqa")(answer, ["B"], ()) == float(bare)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes.", "yes"),
        ("No, there is not. Yes", "no"),
        ("There is not a cat", "no"),
        ("There isn't", "yes"),  # only words count,
        ("NO", "yes"),  # these three of them,
        ("no\nway", "yes"),  # between blanks,
        ("Yes. No", "yes"),  # in the first sentence;
        ("", "yes"),  # and what is not no is yes
        ("I do not know", "no"),
    ],
)
def test_pope_reads_as_its_own_script(answer: str, read: str) -> None:
    for label in ("yes", "no"):
        assert load_metric("pope")(answer, [label], ()) == float(read == label)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("yes, it is", "yes"),
        ("No.", "no"),
        ("Know", "no"),
        ("I.e. no", "other"),
        ("y", "other"),
        ("N.", "other"),
    ],
)
def test_mme_reads_as_its_own_tool(answer: str, read: str) -> None:
    for label in ("yes", "no"):
        assert load_metric("mme")(answer, [label], ()) == float(read == label)


def without_marks(answer: str) -> str:
    text = clean(answer)
    for mark in [",", ".", "!", "?", ";", ":", "'"]:
        text = re.sub(rf"\A{re.escape(mark)}+|{re.escape(mark)}+\Z", "", text)
    return f" {text} "


def last(pattern: str, text: str) -> int:
    return max((m.start() for m in re.finditer(f"(?={pattern})", text)), default=-1)


def by_ways(text: str, letters: str, ways: list[tuple[str, str]]) -> str | None:
    """All places where a letter stands; the last counts, the first choice on a tie."""
    for found, placed in ways:
        there = [letter for letter in letters if last(found.format(letter), text) >= 0]
        if there:
            places = [last(placed.format(letter), text) for letter in there]
            return there[places.index(max(places))]
    return None


def by_texts(text: str, letters: str, choices: list[str]) -> str | None:
    if len(text.split()) <= 5:
        return None
    places = [text.lower().rfind(clean(choice).lower()) for choice in choices]
    return letters[places.index(max(places))] if max(places) >= 0 else None


BRACKETS, BLANKS = (r"\({}\)", r"\({}\)"), (" {} ", " {} ")
LOOSE = [("{} ", " {} "), (r"{}\.", " {} ")]


def reference_mmmu(answer: str, choices: list[str]) -> str | None:
    text, letters = without_marks(answer), "ABCDEFGH"[: len(choices)]
    official = by_ways(text, letters, [BRACKETS, BLANKS]) or by_texts(text, letters, choices)
    return official or by_ways(text, letters, LOOSE)


def reference_nextqa(answer: str, choices: list[str]) -> str | None:
    text, letters = without_marks(answer), "ABCDEFGH"[: len(choices)]
    return by_ways(text, letters, [BRACKETS, *LOOSE]) or by_texts(text, letters, choices)


lettered = st.sampled_from(
    ["(A)", "(B)", "(C)", "A", "B", "C", "A.", "B.", "C.", "BA", "it", "is", "cat", "dog", "Cow"]
)
long_answers = st.lists(lettered | st.sampled_from(WORDS), max_size=9).map(" ".join) | spoken
three = st.lists(st.sampled_from(["cat", "dog", "cow", "a", "it is", "x."]), min_size=2, max_size=3)


@given(long_answers, three)
def test_mmmu_and_nextqa_against_references(answer: str, choices: list[str]) -> None:
    for metric, rule in (("mmmu", reference_mmmu), ("nextqa", reference_nextqa)):
        chosen = rule(answer, choices)
        for letter in "ABC"[: len(choices)]:
            assert load_metric(metric)(answer, [letter], choices) == float(letter == chosen), metric


def test_mmmu_trusts_a_text_more_than_a_loose_letter() -> None:
    answer, choices = "NASA says that this is a dog", ["cat", "dog"]
    assert load_metric("mmmu")(answer, ["B"], choices) == 1.0
    assert load_metric("nextqa")(answer, ["A"], choices) == 1.0
    assert load_metric("mmmu")("B. dog", ["B"], choices) == 1.0


def reference_egoschema(answer: str, choices: list[str]) -> str | None:
    text = without_marks(answer)
    letters = "ABC"[: len(choices)]
    marks = [*(f"({x})" for x in letters), *(f"{x} " for x in letters), *(f"{x}." for x in letters)]
    found = [mark for mark in marks if mark in text]
    if found:
        places = [len(text.rpartition(mark)[0]) for mark in found]
        return found[places.index(min(places))].strip("(). ")
    if len(text.split()) <= 5:
        return None
    told = [
        (text.lower().rfind(choice.lower()), x) for x, choice in zip(letters, choices, strict=True)
    ]
    told = [pair for pair in told if pair[0] >= 0]
    return min(told)[1] if told else None


@given(long_answers, three)
def test_egoschema_against_reference(answer: str, choices: list[str]) -> None:
    chosen = reference_egoschema(answer, choices)
    for letter in "ABC"[: len(choices)]:
        assert load_metric("egoschema")(answer, [letter], choices) == float(letter == chosen)


def reference_mmbench(answer: str, choices: list[str]) -> str | None:
    """VLMEvalKit's rule, told with a tokeniser in place of replacements."""
    letters = "ABCD"[: len(choices)]
    words = re.findall(r"[^\s.()\[\],:;!*#{}]+", clean(answer))
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and len(words) - words.index(named[0]) <= 4:
        return named[0]
    if not named and "Z" in words:
        return None
    if len(clean(answer)) > 2 * len("".join(choices)):
        return None
    told = [x for x, one in zip(letters, choices, strict=True) if one.lower() in answer.lower()]
    return told[0] if len(told) == 1 else None


mmbench_words = lettered | st.sampled_from(
    ["A)", "B)", ":A", "(B).", "A,", "B:", "E", "a dog", "**B**", "[C]", "Z", "# A", "{B}", "$A$"]
)


@given(st.lists(mmbench_words, max_size=6).map(" ".join), three)
def test_mmbench_against_reference(answer: str, choices: list[str]) -> None:
    chosen = reference_mmbench(answer, choices)
    for letter in "ABC"[: len(choices)]:
        assert load_metric("mmbench")(answer, [letter], choices) == float(letter == chosen)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        *[(form, "B") for form in ("**B**", "[B]", "(B).", "{B}", "# B", "B: dog", "B, a dog")],
        ("The answer is B", "B"),
        ("B is what I would choose here", None),  # among the last four words only
        ("B or C", None),
        ("a dog it is", "B"),
        ("Cannot determine the answer, so dog", None),
        ("Failed to obtain answer via API B", None),
        ("b", None),
    ],
)
def test_mmbench_reads_as_vlmevalkit(answer: str, read: str | None) -> None:
    for letter in "ABC":
        assert load_metric("mmbench")(answer, [letter], ["cat", "dog", "cow"]) == float(
            letter == read
        )


@pytest.mark.parametrize(
    ("answer", "answers", "expected"),
    [
        ("5", ["5"], 1.0),
        ("The answer is 5.004", ["5"], 1.0),  # two decimals
        ("It is 1,000 or so 3", ["1000"], 0.0),  # what follows the last key word alone
        ("x = 1,000", ["1000"], 1.0),
        ("x = 1.5e3", ["1500"], 1.0),
        ("thus 12:30", ["12"], 1.0),
        ("ratio is about 24/7 here", ["24/7"], 1.0),  # contained
        ("result: 8%", ["8%"], 1.0),
        ("a", ["a"], 1.0),
        ("vitamin", ["a"], 0.0),  # a single letter needs a space beside it
        ("vitamin a deficiency", ["a"], 1.0),
        ("", ["5"], 0.0),
        ("so 4\nso 5", ["4", "x"], 1.0),
        ("it is nan", ["nan"], 0.0),
    ],
)
def test_mmmu_open_answers(answer: str, answers: list[str], expected: float) -> None:
    assert load_metric("mmmu")(answer, answers, ()) == expected


@given(st.integers(-9999, 9999), st.integers(0, 99), st.sampled_from(OPEN))
def test_mmmu_reads_numbers(whole: int, hundredths: int, phrase: str) -> None:
    gold = f"{whole}.{hundredths:02}"
    said = gold if abs(whole) < 1000 else f"{whole:,}.{hundredths:02}"
    if "could" not in phrase and "{u}" not in phrase and "\n" not in phrase:
        assert load_metric("mmmu")(phrase.format(t=gold, u=""), [gold], ()) == 1.0
    assert load_metric("mmmu")(f"I say: {said}!", [f"{whole + 1}.{hundredths:02}"], ()) == 0.0


# --- What a metric wants of its references ---------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "textvqa", "answers": ("x",)}, "metric 'textvqa' compares with the answers"),
        ({"metric": "vqav2", "answers": ("", " ")}, "answers holds nothing but empty texts"),
        ({"metric": "gqa", "answers": ("x", "")}, "answers holds an empty text"),
        ({"metric": "pope", "answers": ("yes.",)}, "metric 'pope' needs the answer 'yes' or 'no'"),
        ({"metric": "ai2d", "answers": ("b",)}, "needs a capital from A to Z as answer, got 'b'"),
        ({"metric": "mmmu", "answers": ("C",), "choices": ("x", "y")}, "from A to B as answer"),
        ({"metric": "mmbench", "answers": ("x",), "choices": ("x", "y")}, "from A to B as answer"),
    ],
)
def test_references_that_no_answer_could_match(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Example(id="a", image="a.png", question="?", **fields)  # type: ignore[arg-type]


def test_chance_of_the_benchmarks() -> None:
    def chance(**fields: object) -> float:
        return Example(id="a", image="a", question="?", **fields).chance_level  # type: ignore[arg-type]

    assert chance(metric="pope", answers=("no",)) == 0.5
    assert chance(metric="mmmu", answers=("A",), choices=("x", "y", "z", "w")) == 0.25
    assert chance(metric="mmmu", answers=("1.5",)) == 0.0
    assert chance(metric="vqav2", answers=("", "x")) == 0.0
