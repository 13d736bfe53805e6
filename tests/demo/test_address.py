"""What a page's address says, and what is made of addresses that say something else."""

from __future__ import annotations

from urllib.parse import urlencode

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from m3router.router.demo.address import Shared, read_address
from m3router.router.demo.handlers import AUTO, BUDGET, FIXED
from m3router.router.demo.views import BudgetRange

OPTIONS = ("low", "mid", "high & dry")
BUDGETS = BudgetRange(least=10, most=160, start=60, step=1, label="", info="")


def read(query: str, *, budgets: BudgetRange | None = BUDGETS) -> Shared:
    return read_address(query, options=OPTIONS, budgets=budgets, samples={"scene-1": 1})


def test_what_is_chosen_is_found_again():
    asked = {"question": "Is 1 + 1 = 2 & so on? ünïcode", "option": "high & dry"}
    found = read("?" + urlencode({**asked, "sample": "scene-1", "__theme": "dark"}))
    assert found == Shared(question=asked["question"], mode=FIXED, place=2, sample="scene-1")
    assert read("?budget=40") == Shared(mode=BUDGET, budget=40)
    assert read("") == read("?") == read("?option=auto") == Shared(mode=AUTO)


def test_what_the_page_does_not_have_is_ignored_with_a_note():
    for query, word in (
        ("option=lowest", "no option 'lowest'; it has low, mid"),
        ("option=low&budget=40", "the budget is not read"),
        ("sample=../../etc/passwd", "no example '../../etc/passwd' here"),
        ("question=" + "a" * 2001, "more than 2000 characters"),
        ("budget=1e9", "from 10 to 160, not '1e9'"),
        ("budget=nan", "from 10 to 160"),
        ("budget=-1", "from 10 to 160"),
        ("budget=many", "not 'many'"),
        ("budget=" + "9" * 5000, "…'"),
        ("&".join(f"a{number}=1" for number in range(40)), "too many fields"),
    ):
        found = read(query)
        (told,) = found.ignored
        assert word in told and len(told) < 200, query
        if "option=low&" not in query:
            assert found == Shared(ignored=(told,))
    assert read("budget=40", budgets=None).ignored == ("Budgets cannot be set for this run.",)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
@examples(max_examples=200, deadline=None, derandomize=True)
def test_any_address_is_read(query):
    found = read(query)
    assert found.mode in (AUTO, BUDGET, FIXED) and 0 <= found.place < len(OPTIONS)
    assert found.sample in ("", "scene-1") and len(found.question) <= 2000
