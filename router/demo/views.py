"""How the one page speaks of its two kinds of runs: scales of a Matryoshka model, and options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from m3router.router.cascade.rule import Cascade
from m3router.router.demo import drawings, option_drawings
from m3router.router.demo.option_service import OptionDemoService, OptionTold
from m3router.router.demo.service import DemoService, Told
from m3router.router.demo.session_stats import OptionSpending, Spending
from m3router.router.policies.policy import Policy
from m3router.router.text.numbers import plain
from m3router.router.text.usage import cost_text

AnyService = DemoService | OptionDemoService


@dataclass(frozen=True, kw_only=True)
class Panels:
    """What an answer shows.

    Attributes:
        answer: The answer and its option.
        chart: What the router predicted.
        grid: The image as the model was given it.
        everywhere: The answers at all options; "" where they were not asked for.
        spending: What the answer cost: a :class:`Spending` or an :class:`OptionSpending`, as the
            view's `nothing_spent`.
    """

    answer: str
    chart: str
    grid: str
    everywhere: str = ""
    spending: Any


@dataclass(frozen=True, kw_only=True)
class BudgetRange:
    """The slider of the budget.

    Attributes:
        least: Its first value.
        most: Its last value.
        start: Where it stands at first.
        step: Between its values.
        label: What it counts.
        info: What it does.
    """

    least: float
    most: float
    start: float
    step: float
    label: str
    info: str


class View(Protocol):
    """What page and handlers ask of a kind of run.

    Attributes:
        title: Of the page.
        one: What an option is called.
        level: Over the options to choose from.
        everywhere: On the button that asks at all options.
        nothing_spent: Where a session starts.
    """

    title: str
    one: str
    level: str
    everywhere: str
    nothing_spent: Any

    @property
    def introduction(self) -> str:
        """What the model is and does, one or two sentences."""
        ...

    @property
    def waiting(self) -> str:
        """What will stand where nothing stands yet."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """What the options are called, coarsest first."""
        ...

    @property
    def knob(self) -> str:
        """What the policy was calibrated for, in words; "" for nothing."""
        ...

    def budgets(self) -> BudgetRange | None:
        """The slider of the budget; None where no policies can be made."""
        ...

    def within(self, budget: float) -> str:
        """A budget in words."""
        ...

    def ask(
        self,
        image: Image.Image,
        question: str,
        *,
        place: int | None,
        budget: float | None,
        how: str,
        everywhere: bool,
    ) -> Panels:
        """Answer a question.

        Args:
            image: RGB.
            question: The question.
            place: Answer at this option, from 0, instead of routing.
            budget: Or route within so much mean cost.
            how: Who chooses, in words.
            everywhere: Whether to ask at all options too.
        """
        ...

    def savings(self, spent: Any) -> str:
        """What a session saved."""
        ...


def view_of(service: AnyService) -> View:
    """How the page speaks of a service."""
    if isinstance(service, OptionDemoService):
        return OptionView(service)
    return ScaleView(service)


class ScaleView:
    """Scales, which cost visual tokens.

    Args:
        service: Answers.
    """

    title = "How few visual tokens does this question need?"
    one = "scale"
    level = "Scale, in visual tokens, from the coarsest to the finest"
    everywhere = "Ask at all scales"
    nothing_spent = Spending()
    waiting = (
        "The answer will be here, with its scale, how likely each scale was thought to suffice, "
        "and the image as the model was given it."
    )

    def __init__(self, service: DemoService) -> None:
        self._service = service
        self.names = [str(scale) for scale in service.scales]

    @property
    def introduction(self) -> str:
        """What the model is and does."""
        scales = ", ".join(str(scale) for scale in self._service.scales)
        return (
            f"The model `{self._service.pipeline.model.name}` can look at an image through "
            f"{scales} visual tokens. A router predicts which of them suffice for your question "
            f"before it is answered.{_reads(self._service)}"
        )

    @property
    def knob(self) -> str:
        """What the policy was calibrated for."""
        return _knob(self._service.pipeline.policy)

    def budgets(self) -> BudgetRange | None:
        """Whole numbers of visual tokens."""
        limits = self._service.budgets()
        if limits is None:
            return None
        least, most = limits
        return BudgetRange(
            least=least,
            most=most,
            start=min(max(least, 36), most),
            step=1,
            label="Budget: mean visual tokens for each question",
            info=_budget_info(most),
        )

    def within(self, budget: float) -> str:
        """A budget in words."""
        return f"{plain(budget)} visual tokens"

    def ask(
        self,
        image: Image.Image,
        question: str,
        *,
        place: int | None,
        budget: float | None,
        how: str,
        everywhere: bool,
    ) -> Panels:
        """Answer a question; see :class:`View`."""
        service = self._service
        scale = None if place is None else service.scales[place]
        if not everywhere:
            return self._panels(service.ask(image, question, scale=scale, budget=budget), how)
        compared = service.compare(image, question, scale=scale, budget=budget)
        shown = drawings.comparison(compared, question.strip())
        return self._panels(compared.told, how, everywhere=shown)

    def savings(self, spent: Spending) -> str:
        """What a session saved."""
        return drawings.savings(spent)

    def _panels(self, told: Told, how: str, everywhere: str = "") -> Panels:
        return Panels(
            answer=drawings.answer(told, self._service.scales, how=how),
            chart=drawings.chart(told),
            grid=drawings.grid(told),
            everywhere=everywhere,
            spending=told.spending,
        )


class OptionView:
    """Options of any model, chosen before it sees the image.

    Args:
        service: Answers.
    """

    title = "How little does this question need?"
    one = "option"
    level = "Option, from the coarsest to the finest"
    nothing_spent = OptionSpending()
    waiting = (
        "The answer will be here, with its option, how likely each option was thought to suffice, "
        "and what it cost."
    )

    def __init__(self, service: OptionDemoService) -> None:
        self._service = service
        self.names = list(service.pipeline.options)
        requests = f" ({len(self.names)} requests)" if service.sends else ""
        self.everywhere = f"Ask at all options{requests}"

    @property
    def introduction(self) -> str:
        """What the model is and does."""
        model = self._service.pipeline.model
        sent = " Your image and question are sent to its server." if self._service.sends else ""
        return (
            f"The model `{model.name}` can be asked at the options {', '.join(self.names)}. A "
            "router predicts which of them suffices for your question, before the model sees the "
            f"image. Costs are counted in {model.cost_unit}.{sent}{_reads(self._service)}"
        )

    @property
    def knob(self) -> str:
        """What the policy was calibrated for, and whether it asks again."""
        router = self._service.pipeline.router
        rule = router.cascade or router.policy
        return "" if rule is None else _knob(rule)

    def budgets(self) -> BudgetRange | None:
        """In the unit of the run's costs."""
        limits = self._service.budgets()
        if limits is None:
            return None
        least, most = map(_rounded_up, limits)
        step = 10.0 ** math.floor(math.log10(max(most - least, least / 10, 1e-9) / 20))
        most = max(most, least + step)
        return BudgetRange(
            least=least,
            most=most,
            start=least + step * round((most - least) / 2 / step),
            step=step,
            label=f"Budget: mean {self._unit} for each question",
            info=_budget_info(most),
        )

    def within(self, budget: float) -> str:
        """A budget in words."""
        return cost_text(budget, self._unit)

    def ask(
        self,
        image: Image.Image,
        question: str,
        *,
        place: int | None,
        budget: float | None,
        how: str,
        everywhere: bool,
    ) -> Panels:
        """Answer a question; see :class:`View`."""
        service = self._service
        option = None if place is None else self.names[place]
        if not everywhere:
            return self._panels(service.ask(image, question, option=option, budget=budget), how)
        compared = service.compare(image, question, option=option, budget=budget)
        unit = service.pipeline.model.cost_unit
        shown = option_drawings.comparison(compared, question.strip(), unit, routed=option is None)
        return self._panels(compared.told, how, everywhere=shown)

    def savings(self, spent: OptionSpending) -> str:
        """What a session saved."""
        return option_drawings.savings(spent, self._service.pipeline.model.cost_unit)

    @property
    def _unit(self) -> str:
        """What the run's costs count."""
        return self._service.pipeline.router.router.cost_unit

    def _panels(self, told: OptionTold, how: str, everywhere: str = "") -> Panels:
        given = told.answer
        return Panels(
            answer=option_drawings.answer(told, self.names, how=how),
            chart=option_drawings.chart(told),
            grid=option_drawings.picture(told.image, given.answer.usage, option=given.option),
            everywhere=everywhere,
            spending=told.spending,
        )


def _reads(service: AnyService) -> str:
    """That a model reads drawn scenes only; "" of others."""
    if not service.reads_scenes_only:
        return ""
    return (
        "\n\n**It reads drawn scenes only**, such as the examples: it is the small model that "
        "ships with m3router to show how routing works. Of another image it says nothing that "
        "holds, and the page says so."
    )


def _knob(rule: Policy | Cascade) -> str:
    named = [f"{name.replace('_', ' ')} {plain(value)}" for name, value in rule.knob.items()]
    if isinstance(rule, Cascade) and rule.rule.start:
        named.append("may ask again")
    return ", ".join(named)


def _budget_info(most: float) -> str:
    return (
        f"Kept on average over questions like those of the run; {plain(most)} or more changes "
        "nothing, the router then takes whatever is likeliest right"
    )


def _rounded_up(value: float) -> float:
    """With three digits, never below the value.

    >>> _rounded_up(0.012341), _rounded_up(576.0), _rounded_up(0.0)
    (0.0124, 576.0, 0.0)
    """
    if value <= 0:
        return 0.0
    digits = 2 - math.floor(math.log10(value))
    shown = round(value, digits)
    return shown if shown >= value else round(shown + 10.0**-digits, digits)
