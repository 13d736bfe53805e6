"""Serve the demo's page; no request but the visitors' own comes in, and none goes out."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, M3RouterError
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.router.demo.gate import Gate
from m3router.router.demo.option_service import OptionDemoService
from m3router.router.demo.samples import (
    AnySample,
    drawn_samples,
    first_questions,
    logged_samples,
)
from m3router.router.demo.views import AnyService
from m3router.router.runs.run import Run

_PATIENCE = 5  # seconds for questions under way when the server is stopped


def serve(
    service: AnyService,
    *,
    run: Path,
    host: str,
    port: int,
    images: Path | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until the process is told to stop.

    Uploads lie in a private temporary folder that goes when the server does.

    Args:
        service: Answers.
        run: The run folder, where examples are looked for if `images` is given.
        host: Address to listen on.
        port: To listen on; 0 for any free one.
        images: Folder of the run's images, to take the examples from; None for drawn scenes, or
            none where the model is asked by option.
        started: Called with the page's address when it is about to be served.

    Raises:
        DataError: If Gradio is missing, or the address cannot be listened on.
    """
    with tempfile.TemporaryDirectory(prefix="m3router-demo-") as folder:
        uploads, samples_folder = Path(folder, "uploads"), Path(folder, "examples")
        uploads.mkdir()
        samples_folder.mkdir()
        _private_gradio(uploads)
        need_gradio()
        import uvicorn

        from m3router.router.demo.page import build

        listening = listen(host, port)
        samples, why = _samples(service, run, images, samples_folder)
        page = build(service, samples, no_samples=why)
        app = _app(page, uploads=uploads, images=samples_folder)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_PATIENCE)
        # uvicorn shuts down by itself, then raises the signal again: the folder must go first.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])


def _private_gradio(folder: Path) -> None:
    """Tell Gradio, before it is imported, where to keep files and to tell nobody anything."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def need_gradio() -> None:
    """See that Gradio is there, without importing it: that reads where its files go.

    Raises:
        DataError: If it is not installed.
    """
    if find_spec("gradio") is None:
        raise DataError(
            "The demo needs the package gradio, which is not installed: pip install "
            "'m3router[demo]'"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens: a port that is taken is an error before anything is loaded.

    Who connects from now on waits until the page is served, instead of being refused.

    Raises:
        DataError: With the system's reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError) as error:
        raise DataError(
            f"Nothing can be served at {host}, port {port}: {error}. Choose another --port or "
            "--host."
        ) from error
    return listening


def _samples(
    service: AnyService, run: Path, images: Path | None, folder: Path
) -> tuple[Sequence[AnySample], str]:
    """The examples, and why there are none."""
    find: Callable[[Run, Path, Path], Sequence[AnySample]]
    model = service.pipeline.model
    if images is None and isinstance(model, MultiScaleModel):
        why = f"{model.name} answers none of the drawn scenes as they need"
        return drawn_samples(model, folder), why
    if images is None:
        return [], "start the demo with --examples FOLDER to see images of the run"
    if isinstance(service, OptionDemoService):
        find, missing = first_questions, "none of the run's held-out images is in that folder"
    else:
        find = logged_samples
        missing = "no held-out image of the run has an easy and a hard question"
    try:
        return find(Run(run), images, folder), missing
    except M3RouterError:
        return [], "the run's log cannot be read for them"


def _app(page: Any, *, uploads: Path, images: Path) -> Any:
    """The page as an ASGI application behind its gate."""
    import gradio as gr
    from fastapi import FastAPI

    from m3router.router.demo.page import LARGEST, css, theme

    bare = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        bare,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST,
        allowed_paths=[str(images)],  # copied to the uploads, where they may be deleted
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css=css(),
    )
    return Gate(app, uploads=uploads, largest=LARGEST)
