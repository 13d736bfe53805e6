"""The demo's page, in Gradio."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import gradio as gr

from m3router.router.demo import drawings, handlers
from m3router.router.demo.address import (
    READING_SCRIPT,
    RESTORED_SCRIPT,
    read_address,
    writing_script,
)
from m3router.router.demo.answering import LONGEST_QUESTION
from m3router.router.demo.handlers import AUTO, BUDGET, FIXED, Choices, Shown
from m3router.router.demo.samples import AnySample, by_name
from m3router.router.demo.views import AnyService, BudgetRange, View, view_of

KEPT = 3600
"""Seconds that an upload is kept."""

LARGEST = 64 * 2**20
"""Bytes of an upload."""

_SWEEP = 300  # seconds between looks for uploads to delete
_WAITING = 32  # questions of all visitors that may wait
_FONTS = ("system-ui", "sans-serif")  # of the visitor's own system: nothing is fetched
_MONO = ("ui-monospace", "monospace")
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


def build(service: AnyService, samples: Sequence[AnySample], *, no_samples: str = "") -> gr.Blocks:
    """Lay out the page.

    Args:
        service: Answers.
        samples: Built-in examples, may be empty.
        no_samples: Why there are none.
    """
    view = view_of(service)
    with gr.Blocks(
        analytics_enabled=False, title="m3router demo", delete_cache=(_SWEEP, KEPT)
    ) as page:
        gr.Markdown(f"# {view.title}\n{view.introduction}")
        with gr.Row():
            with gr.Column(min_width=300):
                named = by_name(samples)
                buttons = _sample_buttons(named, no_samples)
                ignored = gr.HTML(elem_id="m3-address")
                upload = gr.File(
                    label="Image or video, 64 MB at most", height=140, elem_id="m3-upload"
                )
                preview = gr.HTML(elem_id="m3-preview")
                question = gr.Textbox(
                    label="Question",
                    placeholder="Ask about the image",
                    max_length=LONGEST_QUESTION,
                    lines=1,
                    max_lines=4,
                    elem_id="m3-question",
                )
                mode, level, budget = _option_choice(service, view)
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="m3-ask")
                    everywhere = gr.Button(view.everywhere, elem_id="m3-everywhere")
            with gr.Column(min_width=300, elem_id="m3-results"):
                problem = gr.HTML(elem_id="m3-problem")
                answer = gr.HTML(drawings.waiting(view.waiting), elem_id="m3-answer")
                chart = gr.HTML(elem_id="m3-chart")
                grid = gr.HTML(elem_id="m3-grid")
                savings = gr.HTML(elem_id="m3-savings")
        at_all = gr.HTML(elem_id="m3-all")
        session = gr.State(view.nothing_spent, time_to_live=KEPT)
        sample = gr.Textbox(visible=False)
        places = Places(
            inputs=[upload, question, mode, level, budget, session],
            outputs=[problem, answer, chart, grid, at_all, savings, session],
        )
        _wire(service, places, preview=preview, ask=ask, everywhere=everywhere)
        for button, name, text in buttons:
            _wire_sample(service, places, sample, button, (str(named[name].path), text, name))
        _wire_address(page, view, places, sample=sample, ignored=ignored, samples=named)
        page.load(None, js=_names(view))
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


def _names(view: View) -> str:
    """A script that names what Gradio leaves without a name for who cannot see it."""
    named = {"m3-mode": f"Who chooses the {view.one}", "m3-level": view.level}
    return f"""() => {{
  for (const [id, name] of Object.entries({json.dumps(named)}))
    document.getElementById(id)?.setAttribute('aria-label', name);
}}"""


def _sample_buttons(
    samples: Mapping[str, AnySample], no_samples: str
) -> list[tuple[gr.Button, str, str]]:
    """Buttons for the examples, each with its example's name and question."""
    buttons: list[tuple[gr.Button, str, str]] = []
    if not samples:
        gr.Markdown(f"No built-in examples: {no_samples}.")
        return buttons
    gr.Markdown(next(iter(samples.values())).heading)
    for name, sample in samples.items():
        with gr.Row(elem_classes="m3-sample"):
            gr.HTML(drawings.thumbnail(sample.path), elem_classes="m3-thumb")
            for label, question in sample.buttons:
                button = gr.Button(label, size="sm", min_width=110)
                buttons.append((button, name, question))
    return buttons


def _option_choice(service: AnyService, view: View) -> tuple[gr.Radio, gr.Radio, gr.Slider]:
    """Who chooses, which option, and the budget."""
    budgets = view.budgets()
    fixed = (f"One {view.one}", FIXED)
    modes = [(AUTO, AUTO), *([(BUDGET, BUDGET)] if budgets else []), fixed]
    note = f"Auto uses the policy {service.policy}" + (f" ({view.knob})" if view.knob else "")
    if budgets is None:
        note += f". Budgets cannot be set: {service.no_budget}"
    mode = gr.Radio(
        modes, value=AUTO, label=f"Who chooses the {view.one}", info=note, elem_id="m3-mode"
    )
    places = [(name, place) for place, name in enumerate(view.names, start=1)]
    level = gr.Radio(places, value=1, label=view.level, visible=False, elem_id="m3-level")
    shown = budgets or BudgetRange(least=1, most=2, start=1, step=1, label="", info="")
    budget = gr.Slider(
        shown.least,
        shown.most,
        value=shown.start,
        step=shown.step,
        label=shown.label,
        info=shown.info,
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


Handler = Callable[[AnyService, str | None, str | None, Choices, Any], Shown]


def _answering(service: AnyService, handler: Handler) -> Callable[..., tuple[Any, ...]]:
    """A handler as Gradio calls it: the inputs one by one, a value for each output."""

    def answered(
        path: str | None,
        question: str | None,
        mode: str,
        level: float,
        budget: float,
        session: Any,
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
    service: AnyService, places: Places, *, preview: gr.HTML, ask: gr.Button, everywhere: gr.Button
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


def _wire_address(
    page: gr.Blocks,
    view: View,
    places: Places,
    *,
    sample: gr.Textbox,
    ignored: gr.HTML,
    samples: Mapping[str, AnySample],
) -> None:
    """What is chosen stands in the address, and an address fills it in again; it asks nothing."""
    upload, question, mode, level, budget = places.inputs[:5]

    def restored(query: str) -> tuple[Any, ...]:
        options, budgets = view.names, view.budgets()
        found = read_address(query, options=options, budgets=budgets, samples=samples)
        told = " ".join(("Not all of the address is used.", *found.ignored))
        # What the address does not say is left alone: a visitor may have been faster.
        return (
            drawings.note(told) if found.ignored else "",
            str(samples[found.sample].path) if found.sample else gr.skip(),
            found.question or gr.skip(),
            gr.skip() if found.mode == AUTO else found.mode,
            found.place + 1 if found.mode == FIXED else gr.skip(),
            gr.skip() if found.budget is None else found.budget,
            found.sample or gr.skip(),
        )

    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    page.load(
        restored,
        sample,
        [ignored, upload, question, mode, level, budget, sample],
        js=READING_SCRIPT,
        api_visibility="private",
        **quiet,
    ).then(None, js=RESTORED_SCRIPT)
    gr.on(
        [one.change for one in (question, mode, level, budget, sample)],
        None,
        [question, mode, level, budget, sample],
        js=writing_script(view.names),
        **quiet,
    )
    gr.on([upload.upload, upload.clear, upload.delete], lambda: "", None, sample, **quiet)


def _wire_sample(
    service: AnyService,
    places: Places,
    sample: gr.Textbox,
    button: gr.Button,
    chosen: tuple[str, str, str],
) -> None:
    """An example fills in its image, question and name, and asks at once."""
    upload, question = places.inputs[:2]
    button.click(
        lambda: chosen,
        None,
        [upload, question, sample],
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
