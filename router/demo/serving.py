"""Serve the demo's page; no request but the visitors' own comes in, and none goes out."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.errors import DataError, M3RouterError
from router.demo.desk import Desk
from router.demo.samples import Sample, drawn_samples, logged_samples
from router.run import Run

LARGEST = 64 * 1024 * 1024
"""Bytes of an upload."""


def serve(
    desk: Desk,
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
        desk: Answers.
        run: The run folder, where examples are looked for if `images` is given.
        host: Address to listen on.
        port: To listen on; 0 for any free one.
        images: Folder of the run's pictures, to take the examples from; None for drawn scenes.
        started: Called with the page's address when it is about to be served.

    Raises:
        DataError: If Gradio is missing, or the address cannot be listened on.
    """
    with tempfile.TemporaryDirectory(prefix="m3router-demo-") as folder:
        _private_gradio(Path(folder))
        need_gradio()
        import uvicorn

        listening = _listen(host, port)
        pictures = Path(folder) / "samples"
        pictures.mkdir()
        samples, why = _samples(desk, run, images, pictures)
        config = uvicorn.Config(
            _app(desk, samples, why, uploads=Path(folder)), log_level="warning", timeout_graceful_shutdown=5
        )
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


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a port that is taken is an error before anything is loaded.

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
    except (OSError, OverflowError) as error:
        raise DataError(
            f"Nothing can be served at {host}, port {port}: {error}. Choose another --port or "
            "--host."
        ) from error
    return listening


def _samples(
    desk: Desk, run: Path, images: Path | None, folder: Path
) -> tuple[list[Sample], str]:
    """The examples, and why there are none."""
    model = desk.pipeline.model
    if images is None:
        found = drawn_samples(model, folder)
        return found, f"{model.name} answers none of the drawn scenes as they need"
    try:
        found = logged_samples(Run(run), images, folder)
    except M3RouterError:
        return [], "the run's log cannot be read for them"
    return found, "no held-out picture of the run has an easy and a hard question"


def _app(desk: Desk, samples: list[Sample], why: str, *, uploads: Path) -> Any:
    """The page as an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI

    from router.demo.gate import Gate
    from router.demo.page import build, css, theme

    page = build(desk, samples, no_samples=why)
    bare = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        bare,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css=css(),
    )
    return Gate(app, uploads=uploads, largest=LARGEST)
