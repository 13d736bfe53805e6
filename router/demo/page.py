"""The demo's page, in Gradio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import gradio as gr

from m3router.router.demo import drawings, handlers
from m3router.router.demo.drawings import tokens
from m3router.router.demo.handlers import AUTO, BUDGET, FIXED, Choices, Shown
from m3router.router.demo.samples import Sample
from m3router.router.demo.service import LONGEST_QUESTION, DemoService
from m3router.router.demo.session_stats import Spending

TITLE = "How few visual tokens does this question need?"
KEPT = 3600
"""Seconds that an upload is kept."""

LARGEST = 64 * 2**20
"""Bytes of an upload."""

_SWEEP = 300  # seconds between looks for uploads to delete
_WAITING = 32  # questions of all visitors that may wait
_FONTS = ("system-ui", "sans-serif")  # of the visitor's own system: nothing is fetched
_MONO = ("ui-monospace", "monospace")
_NAMES = (  # what Gradio leaves without a name for who cannot see it
    "() => document.getElementById('m3-mode').setAttribute('aria-label', 'Who chooses the scale')"
)
_NARROW = 768  # pixels below which the results are below the question


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the page takes from and writes to.

    Attributes:
        inputs: Upload, question, mode, level, budget and the session.
        outputs: Problem, answer, chart, grid, everywhere, savings and the session.
    """

    inputs: list[Any]
    outputs: list[Any]


def build(service: DemoService, samples: Sequence[Sample], *, no_samples: str = "") -> gr.Blocks:
    """Lay out the page.

    Args:
        service: Answers.
        samples: Built-in examples, may be empty.
        no_samples: Why there are none.
    """
    with gr.Blocks(
        analytics_enabled=False, title="m3router demo", delete_cache=(_SWEEP, KEPT)
    ) as page:
        gr.Markdown(_introduction(service))
        with gr.Row():
            with gr.Column(min_width=300):
                buttons = _sample_buttons(samples, no_samples, service.scales)
                upload = gr.File(
                    label="Image or video, 64 MB at most", height=140, elem_id="m3-upload"
                )
                preview = gr.HTML(elem_id="m3-preview")
                question = gr.Textbox(
                    label="Question",
                    placeholder="What do you want to know about the image?",
                    max_length=LONGEST_QUESTION,
                    lines=1,
                    max_lines=4,
                    elem_id="m3-question",
                )
                mode, level, budget = _scale_choice(service)
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="m3-ask")
                    everywhere = gr.Button("Ask at all scales", elem_id="m3-everywhere")
            with gr.Column(min_width=300, elem_id="m3-results"):
                problem = gr.HTML(elem_id="m3-problem")
                answer = gr.HTML(drawings.waiting(), elem_id="m3-answer")
                chart = gr.HTML(elem_id="m3-chart")
                grid = gr.HTML(elem_id="m3-grid")
                savings = gr.HTML(elem_id="m3-savings")
        at_all = gr.HTML(elem_id="m3-all")
        session = gr.State(Spending(), time_to_live=KEPT)
        places = Places(
            inputs=[upload, question, mode, level, budget, session],
            outputs=[problem, answer, chart, grid, at_all, savings, session],
        )
        _wire(service, places, preview=preview, ask=ask, everywhere=everywhere)
        for button, path, text in buttons:
            _wire_sample(service, places, button, path, text)
        page.load(None, js=_NAMES)
    page.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def css() -> str:
    """The page's own style."""
    return resources.files("m3router.router.demo").joinpath("templates/demo.css").read_text("utf-8")


def theme() -> gr.themes.Base:
    """Plain, with the fonts of the visitor's own system."""
    plain = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=list(_FONTS), font_mono=list(_MONO)
    )
    return plain.set(  # its own colours are too pale to be read by everybody
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def _introduction(service: DemoService) -> str:
    scales = ", ".join(str(scale) for scale in service.scales)
    return (
        f"# {TITLE}\n"
        f"The model `{service.pipeline.model.name}` can look at an image through {scales} visual "
        "tokens. A router predicts which of them suffice for your question before it is answered."
    )


def _sample_buttons(
    samples: Sequence[Sample], no_samples: str, scales: Sequence[int]
) -> list[tuple[gr.Button, str, str]]:
    """Buttons for the examples, each with its image and question."""
    buttons: list[tuple[gr.Button, str, str]] = []
    if not samples:
        gr.Markdown(f"No built-in examples: {no_samples}.")
        return buttons
    gr.Markdown("**Try an example**: two questions about one image")
    for sample in samples:
        with gr.Row(elem_classes="m3-sample"):
            gr.HTML(drawings.thumbnail(sample.path), elem_classes="m3-thumb")
            for question, right, needs in (
                (sample.easy, sample.easy_answer, f"{tokens(scales[0])} will do"),
                (sample.hard, sample.hard_answer, f"takes {scales[-1]}"),
            ):
                known = f" {right.capitalize()}." if right else ""
                button = gr.Button(f"{question}{known} ({needs})", size="sm", min_width=110)
                buttons.append((button, str(sample.path), question))
    return buttons


def _scale_choice(service: DemoService) -> tuple[gr.Radio, gr.Slider, gr.Slider]:
    budgets = service.budgets()
    modes = [AUTO, *([BUDGET] if budgets else []), FIXED]
    note = f"Auto uses the policy {service.policy}" + _knob(service)
    if not budgets:
        note += f". Budgets cannot be set: {service.no_budget}"
    mode = gr.Radio(modes, value=AUTO, label="Who chooses the scale", info=note, elem_id="m3-mode")
    named = [f"{place}: {tokens(scale)}" for place, scale in enumerate(service.scales, start=1)]
    level = gr.Slider(
        1,
        len(service.scales),
        value=1,
        step=1,
        label=f"Scale, from 1 (coarsest) to {len(service.scales)} (finest)",
        info=" · ".join(named),
        visible=False,
        elem_id="m3-level",
    )
    least, most = budgets or (1, 2)
    budget = gr.Slider(
        least,
        most,
        value=min(max(least, 36), most),
        step=1,
        label="Budget: mean visual tokens for each question",
        info=f"Kept on average over questions like those of the run; {most} or more changes "
        "nothing, the router then takes whatever is likeliest right",
        visible=False,
        elem_id="m3-budget",
    )
    mode.change(
        lambda chosen: (gr.update(visible=chosen == FIXED), gr.update(visible=chosen == BUDGET)),
        mode,
        [level, budget],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return mode, level, budget


def _knob(service: DemoService) -> str:
    knob = service.pipeline.policy.knob
    named = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in knob.items())
    return f" ({named})" if named else ""


Handler = Callable[[DemoService, str | None, str | None, Choices, Spending], Shown]


def _answering(service: DemoService, handler: Handler) -> Callable[..., tuple[Any, ...]]:
    """A handler as Gradio calls it: the inputs one by one, a value for each output."""

    def answered(
        path: str | None,
        question: str | None,
        mode: str,
        level: float,
        budget: float,
        session: Spending,
    ) -> tuple[Any, ...]:
        choices = Choices(mode=mode, level=int(level), budget=budget)
        shown = handler(service, path, question, choices, session)
        return (
            shown.problem,
            shown.answer,
            shown.chart,
            shown.grid,
            shown.everywhere,
            shown.savings,
            shown.session,
        )

    return answered


def _wire(
    service: DemoService, places: Places, *, preview: gr.HTML, ask: gr.Button, everywhere: gr.Button
) -> None:
    """Say what happens when something is uploaded or asked."""
    upload, question = places.inputs[:2]
    problem = places.outputs[0]
    upload.change(
        lambda path: handlers.preview(service, path),
        upload,
        [problem, preview],
        concurrency_id="reading",
        api_visibility="private",
    )
    model: dict[str, Any] = {
        "inputs": places.inputs,
        "outputs": places.outputs,
        "concurrency_id": "model",
        "api_visibility": "private",
    }
    asked = gr.on([ask.click, question.submit], _answering(service, handlers.ask), **model)
    asked.then(None, js=_show("m3-results"))
    compared = everywhere.click(_answering(service, handlers.ask_everywhere), **model)
    compared.then(None, js=_show("m3-all"))


def _wire_sample(
    service: DemoService, places: Places, button: gr.Button, path: str, text: str
) -> None:
    """An example fills in its image and question, and asks at once."""
    upload, question = places.inputs[:2]
    button.click(
        lambda: (path, text),
        None,
        [upload, question],
        queue=False,
        api_visibility="private",
    ).then(
        _answering(service, handlers.ask),
        places.inputs,
        places.outputs,
        concurrency_id="model",
        api_visibility="private",
    ).then(None, js=_show("m3-results"))


def _show(place: str) -> str:
    """A script that scrolls to a place of the page where it would not be seen."""
    found = f"document.getElementById('{place}')"
    return f"() => {{ if (innerWidth < {_NARROW}) {found}.scrollIntoView(); }}"
