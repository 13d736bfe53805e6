"""The demo over runs whose router decides before the model sees the image."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from m3router.m3core.endpoint import Key
from m3router.m3core.endpoint.stand_in import StandIn, running
from m3router.m3core.options import Failure, Usage
from m3router.router.demo import handlers
from m3router.router.demo.budgets import Budgets
from m3router.router.demo.handlers import AUTO, BUDGET, FIXED, Choices
from m3router.router.demo.opening import open_service
from m3router.router.demo.option_service import OptionDemoService
from m3router.router.demo.samples import first_questions
from m3router.router.demo.serving import _samples
from m3router.router.demo.views import view_of
from m3router.router.inference.option_pipeline import OptionPipeline
from m3router.router.runs.run import Run
from tests.router.inference.reading import (
    READ,
    WRITTEN,
    endpoint_run,
    reader,
    reader_run,
)

SECRET = "sk-not-to-be-seen"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return reader_run(tmp_path_factory.mktemp("read")).root


@pytest.fixture(scope="module")
def service(run) -> OptionDemoService:
    opened = open_service(run)
    assert isinstance(opened, OptionDemoService)
    return opened


@pytest.fixture(scope="module")
def picture(run) -> str:
    return str(run.parent / "images" / "0.png")


def choices(mode: str = AUTO, *, level: int = 1, budget: float = 60) -> Choices:
    return Choices(mode=mode, level=level, budget=budget)


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


def asked(service, path, question=READ[0], how=None, *, everywhere=False, session=None):
    handler = handlers.ask_everywhere if everywhere else handlers.ask
    session = view_of(service).nothing_spent if session is None else session
    return handler(service, path, question, how or choices(), session)


def test_an_answer_shows_its_option_estimates_and_costs(service, picture):
    (routed,) = service.pipeline.answer([picture], [READ[0]])
    shown = asked(service, picture)
    place = service.pipeline.options.index(routed.option) + 1
    assert shown.problem == "" and routed.text in plain(shown.answer)
    assert f"Option {place} of 3: {routed.option}, chosen by the router" in plain(shown.answer)
    assert f"Cost: {routed.usage.cost:g} tokens" in plain(shown.answer)
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", shown.chart)]
    assert widths == pytest.approx([100 * p for p in routed.estimates.values()], abs=0.06)
    for name, cost in routed.decision.costs.items():
        assert f"{name}" in plain(shown.chart) and f"{cost:g} tokens" in plain(shown.chart)
    assert shown.chart.count("taken") == 1 and "The image, 20 x 12 pixels" in shown.grid
    fixed = asked(service, picture, how=choices(FIXED, level=3))
    assert "Option 3 of 3: high, chosen by you" in plain(fixed.answer)
    assert "visual token" not in plain(shown.answer + shown.chart + shown.grid)


def test_a_budget_is_in_the_run_s_unit_and_the_policy_calibrated_for_it(service, picture):
    budgets = view_of(service).budgets()
    assert budgets is not None and "tokens" in budgets.label
    assert 10 <= budgets.least < budgets.start < budgets.most <= 161
    steps = (budgets.start - budgets.least) / budgets.step
    assert steps == pytest.approx(round(steps))
    for budget in (budgets.least, budgets.start, budgets.most):
        shown = asked(service, picture, how=choices(BUDGET, budget=budget))
        (routed,) = service.pipeline.answer([picture], [READ[0]], budget=budget)
        assert f": {routed.option}, chosen by the router within" in plain(shown.answer)
    below = asked(service, picture, how=choices(BUDGET, budget=budgets.least / 2))
    assert "The budget must be at least" in below.problem


def test_the_session_adds_up_against_the_finest(service, picture):
    first = asked(service, picture, how=choices(FIXED, level=1))
    second = asked(service, picture, how=choices(FIXED, level=3), session=first.session)
    assert second.session.spent.cost == 170 and second.session.finest.cost == 320
    assert second.session.spent.image_tokens == 170 and second.session.finest.image_tokens is None
    told = plain(second.savings)
    assert "47% fewer: 170 instead of 320" in told and "2 questions" in told
    assert "image tokens170; that of the finest option is not known" in told
    assert "price0.17; that of" in told
    every = asked(service, picture, everywhere=True, session=second.session)
    assert every.session == second.session and every.savings == second.savings
    failed = asked(service, None, session=second.session)
    assert "There is no image yet" in failed.problem and failed.savings == second.savings


def test_the_comparison_asks_each_option_once(service, run, picture):
    calls: list[tuple[str, str]] = []
    model = reader(asked=calls, spoil=lambda q, option: broken if option == "high" else None)
    broken = Failure(message="the <server> broke", usage=Usage(cost=3.0))
    watched = OptionDemoService(
        OptionPipeline(model=model, router=service.pipeline.router), budgets=Budgets.of(run)
    )
    shown = asked(watched, picture, how=choices(FIXED, level=1), everywhere=True)
    assert [option for _, option in calls] == ["low", "mid", "high"]
    assert shown.everywhere.count("<li") == 3 and shown.everywhere.count("you chose this") == 1
    assert "the &lt;server&gt; broke" in shown.everywhere
    assert "The finest option did not answer" in shown.everywhere
    lost = asked(watched, picture, how=choices(FIXED, level=3))
    assert "The &lt;server&gt; broke (It was paid for: 3 tokens.)" in lost.problem
    whole = asked(service, picture, everywhere=True)
    assert whole.everywhere.count("the router takes this") == 1
    assert view_of(service).everywhere == "Ask at all options"


def test_an_answer_that_was_asked_again_tells_the_whole_price(run):
    service = open_service(run, policy="sure")
    assert "may ask again" in view_of(service).knob
    for number in range(60):
        shown = asked(service, str(run.parent / "images" / f"{number}.png"))
        if "which looked wrong" in shown.answer:
            break
    assert "Cost in all:" in shown.answer and "4 answer tokens" in shown.answer


def test_bad_questions_and_files_are_told(service, picture, tmp_path):
    (tmp_path / "text.png").write_bytes(b"this is no image")
    for path, question, how, message in (
        (picture, " ", choices(), "The question is empty"),
        (picture, None, choices(), "The question is empty"),
        (picture, "a" * 2001, choices(), "at most 2000"),
        (picture, READ[0], choices(FIXED, level=4), "Options go from 1 to 3, not 4"),
        (str(tmp_path / "text.png"), READ[0], choices(), "not an image in a known format"),
        (str(tmp_path / "gone.png"), READ[0], choices(), "no longer kept here"),
    ):
        for everywhere in (False, True):
            shown = asked(service, path, question, how, everywhere=everywhere)
            assert message in plain(shown.problem) and str(tmp_path) not in shown.problem
            assert not (shown.answer or shown.chart or shown.everywhere)


def test_examples_are_the_run_s_own_or_none(service, run, tmp_path):
    samples = first_questions(Run(run), run.parent / "images", tmp_path)
    log = Run(run).log()
    held_out = {str(log.images[row]) for row in Run(run).split(log).test}
    assert len(samples) == 3 and {one.path.name for one in samples} <= held_out
    assert [question for _, question in samples[0].buttons] == list(READ)
    found, why = _samples(service, run, None, tmp_path)
    assert found == [] and "--examples" in why
    assert _samples(service, run, tmp_path, tmp_path)[0] == []


def test_a_page_is_built_with_options_by_name(service, run, tmp_path):
    pytest.importorskip("gradio")
    from m3router.router.demo.page import build

    samples = first_questions(Run(run), run.parent / "images", tmp_path)
    page = build(service, samples)
    told = [block["props"] for block in page.get_config_file()["components"]]
    by_id = {one["elem_id"]: one for one in told if one.get("elem_id")}
    assert [name for name, _ in by_id["m3-level"]["choices"]] == ["low", "mid", "high"]
    assert "One option" in [name for name, _ in by_id["m3-mode"]["choices"]]
    assert "tokens" in by_id["m3-budget"]["label"]
    assert by_id["m3-level"]["label"] == "Option, from the coarsest to the finest"
    texts = " ".join(str(one.get("value")) for one in told)
    assert "How little does this question need?" in texts and READ[0] in texts
    assert "visual token" not in texts


def test_an_endpoint_s_prices_requests_and_failures(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_KEY", SECRET)
    key = Key.from_environment("DEMO_KEY")
    with running(StandIn(family="qwen3-vl", key=SECRET)) as server:
        run = endpoint_run(tmp_path, server.url, key=key)
        service = open_service(run.root)
        view = view_of(service)
        assert view.everywhere == "Ask at all options (2 requests)"
        assert "sent to its server" in view.introduction
        large = str(tmp_path / "images" / "1.png")
        server.hits.clear()
        small = asked(service, large, WRITTEN, choices(FIXED, level=1))
        assert "Cost: price 0.5" in plain(small.answer) and len(server.hits) == 1
        assert "What the model was given: about 256 x 256 of its 512 x 512" in small.grid
        assert "75% fewer: 0.5 instead of 2" in plain(small.savings)
        every = asked(service, large, WRITTEN, everywhere=True, session=small.session)
        assert len(server.hits) == 3 and "Only the finest option says this" in every.everywhere
        server.faults.queue("413")
        refused = asked(service, large, WRITTEN, session=small.session)
        assert "413" in refused.problem and refused.savings == small.savings
        assert asked(service, large, WRITTEN).problem == ""  # the next is answered
        server.key = "another"
        rejected = asked(service, large, WRITTEN)
        assert "401" in rejected.problem
        server.key = SECRET
    down = asked(service, large, WRITTEN)
    shown = [small, every, refused, rejected, down]
    assert down.problem and "Something went wrong" not in down.problem
    assert all(SECRET not in str(one) for one in (*shown, view.introduction))
