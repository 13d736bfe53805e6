"""`m3router demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.errors import DataError
from m3router.data.progress import waiting
from m3router.router.cli.endpoint_options import RunEndpoint, model_or_endpoint
from m3router.router.cli.options import Device, PolicyName, RunFolder
from m3router.router.cli.streams import out as console
from m3router.router.cli.toys import say_if_toy


def demo(
    run: RunFolder,
    model: Annotated[
        str | None,
        typer.Option(help="The model that was labelled. [default: the run's]", show_default=False),
    ] = None,
    endpoint: RunEndpoint = None,
    policy: PolicyName = "default",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")
    ] = 7860,
    device: Device = "auto",
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the run's image paths start from: the page's examples are then "
            "found in the run. [default: drawn scenes for a Matryoshka model, else none]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the pipeline in a browser: an image, a question, and how little it needs.

    Auto or an option of your choice, the predicted sufficiency of each, all options side by side,
    a budget, and what was saved so far; for a Matryoshka model also the pooled grid over the
    image. Works for every run whose model can be asked. Nothing leaves the machine, unless the
    model is an endpoint, and uploads are deleted. Needs the extra `demo`. docs/demo.md says more.

    ```
    m3router demo run/
    m3router demo run/ --endpoint http://localhost:8000/v1
    ```
    """
    from m3router.router.demo.opening import open_service
    from m3router.router.demo.serving import need_gradio, serve

    need_gradio()
    if examples is not None and not examples.is_dir():
        raise DataError(f"--examples must be a folder of images; {str(examples)!r} is not one.")
    model = model_or_endpoint(run, model, endpoint)
    with waiting("loading"):
        service = open_service(run, model=model, policy=policy, device=device)
    say_if_toy(service.pipeline.model.name)

    def started(address: str) -> None:
        console.print(f"serving {address} (Ctrl+C stops)", markup=False, highlight=False)

    serve(service, run=run, host=host, port=port, images=examples, started=started)
