"""`m3router serve`."""

from __future__ import annotations

import logging
import os

import typer

from m3router.data.errors import M3RouterError
from m3router.m3core.checkpoints.places import EMBEDDED
from m3router.router.cli.exit_codes import WRONG_USE
from m3router.router.cli.options import takes_settings
from m3router.router.cli.streams import err
from m3router.router.inference.query import Served
from m3router.router.serve.deciding.decider import RouterFacts
from m3router.router.serve.launch import launch
from m3router.router.serve.logs import LogFormat, start_logging
from m3router.router.serve.settings import ServeSettings

logger = logging.getLogger("m3router.serve")


@takes_settings(ServeSettings)
def serve(settings: ServeSettings) -> None:
    """Route in front of a server that exists, or serve a Matryoshka model, for OpenAI's clients.

    The gateway: with --upstream URL, or a run that was labelled over an endpoint, every chat
    request goes on to that server at the option that suffices, and its answer comes back byte by
    byte. Clients change the address and nothing else. A request may ask for m3router/OPTION or
    m3router/budget=40 in place of its model; headers of the answer tell the option, the reason and
    what was saved. See docs/gateway.md.

    The model server: without an upstream the run's Matryoshka model answers in this process. POST
    /v1/chat/completions takes one question about one image (a data URL), answered whole or
    streamed; models are m3-auto, routed by the policy, and m3-1, m3-9, ... at a fixed scale. Extra
    fields: scale, budget (mean visual tokens), max_regret (certified on the run's calibration
    split). Answers tell their scale, how likely each scale was thought to suffice, tokens and times
    in m3. See docs/serving.md.

    Both have /v1/models, /health, /ready and /metrics, and listen on this machine only unless
    --host says otherwise. Keys come from --keys or the environment variable M3ROUTER_API_KEYS.
    Images and questions are never logged, and kept only with --traffic. See docs/security.md and
    docs/operations.md.

    ```
    m3router serve run/ --upstream http://gpu-1:8000/v1
    m3router serve run/ --upstream upstreams.toml --options options.toml
    m3router serve run/ --upstream http://gpu-1:8000/v1 --processes 2 --log-format json
    m3router serve run/ --model embedded
    m3router serve run/ --policy frugal --host 0.0.0.0 --keys keys.jsonl
    m3router serve run/ --ray --autoscale 1:4
    hf download me/my-router --local-dir theirs/
    m3router serve theirs/
    ```
    """
    start_logging(settings.log_format)
    logger.setLevel(logging.INFO)
    tell = err.print if settings.log_format is LogFormat.TEXT else logger.info
    try:
        launch(
            settings,
            environment=os.environ,
            on_start=lambda address: tell(f"listening at {address}, loading"),
            on_ready=lambda served: tell(_ready(served)),
        )
    except M3RouterError as error:
        if settings.log_format is LogFormat.TEXT:
            raise
        logger.error(str(error))
        raise typer.Exit(WRONG_USE) from error


def _ready(served: Served | RouterFacts) -> str:
    """What answers now, one line."""
    if isinstance(served, Served):
        kind, names = "scales", list(map(str, served.scales))
    else:
        kind, names = "options", list(served.options)
    toy = " (which reads drawn scenes only)" if served.model == EMBEDDED else ""
    return f"ready: {served.model}{toy} at the {kind} {', '.join(names)}, policy {served.policy}"
