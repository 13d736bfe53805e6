"""`m3router serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.options import Device
from router.traffic.consent import Consent

if TYPE_CHECKING:
    from router.serve.backends.ray.settings import RaySettings
    from router.serve.backends.vllm.client import VllmAddress


def serve(
    policy: Annotated[
        Path,
        typer.Option(
            help="A run folder (its policy 'default'), <run>/policies/<name>.json or <run>/<name>.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The model that was labelled. [default: the run's]", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 for any free one.")] = 8000,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Of the processor. [default: all]", show_default=False)
    ] = None,
    queue: Annotated[int, typer.Option(help="Most questions that wait; then 429.")] = 64,
    batch: Annotated[int, typer.Option(help="Most questions that are answered at once.")] = 32,
    wave: Annotated[int, typer.Option(help="Most pictures that the tower reads at once.")] = 4,
    pictures: Annotated[
        int, typer.Option(help="Encodings kept for further questions about the same pictures.")
    ] = 32,
    seconds: Annotated[
        float, typer.Option(help="Within which a question must be answered; then 504.")
    ] = 60.0,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Longest answer. [default: the run's]", show_default=False),
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Longest request body.")] = 20 << 20,
    max_pixels: Annotated[int, typer.Option(help="Largest picture.")] = 25_000_000,
    drain: Annotated[
        float, typer.Option(help="Seconds for answers that run when SIGTERM comes.")
    ] = 30.0,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of API keys, see `m3router keys`.", show_default=False),
    ] = None,
    open_door: Annotated[
        bool, typer.Option("--open", help="Listen beyond this machine without any keys.")
    ] = False,
    per_minute: Annotated[
        float | None,
        typer.Option(help="Requests a minute for each key or address.", show_default=False),
    ] = None,
    burst: Annotated[int, typer.Option(help="Requests that may come at once within that.")] = 32,
    image_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host that pictures may be fetched from, such as img.example.org or "
            "*.example.org; may be repeated. [default: none]",
            show_default=False,
        ),
    ] = None,
    traffic: Annotated[
        Path | None,
        typer.Option(help="Keep a share of the traffic in this folder.", show_default=False),
    ] = None,
    traffic_share: Annotated[float, typer.Option(help="Of the requests, 0 to 1.")] = 0.01,
    traffic_days: Annotated[float, typer.Option(help="What is older is deleted.")] = 30.0,
    traffic_consent: Annotated[
        Consent, typer.Option(help="How much a request's own `store` field counts.")
    ] = Consent.OPT_OUT,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate.", show_default=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of its key.", show_default=False)
    ] = None,
    proxies: Annotated[
        str | None,
        typer.Option(
            help="Addresses whose X-Forwarded-For is believed, by commas.", show_default=False
        ),
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Answer by replicas under Ray Serve; the extra 'ray'.")
    ] = False,
    replicas: Annotated[
        int | None, typer.Option(help="How many, with --ray.", show_default=False)
    ] = None,
    autoscale: Annotated[
        str | None,
        typer.Option(help="Fewest and most replicas, such as 1:4, with --ray.", show_default=False),
    ] = None,
    ray_config: Annotated[
        Path | None,
        typer.Option(help="TOML file of more settings, see docs/scale-out.md.", show_default=False),
    ] = None,
    vllm: Annotated[
        str | None,
        typer.Option(
            help="Address of a vLLM server that runs the language model, such as "
            "http://gpu-1:8000. NOT YET RUN against a real one.",
            show_default=False,
        ),
    ] = None,
    vllm_model: Annotated[
        str, typer.Option(help="What the vLLM server calls the model; its key: M3ROUTER_VLLM_KEY.")
    ] = "m3",
) -> None:
    """Serve a routed model to OpenAI's clients.

    POST /v1/chat/completions takes one question about one picture (a data URL), answered whole or
    streamed; models are m3-auto, routed by the policy, and m3-1, m3-9, ... at a fixed scale. Extra
    fields: scale, budget (mean visual tokens), max_regret (certified on the run's calibrate part).
    Answers tell their scale, how likely each scale was thought to suffice, tokens and times in m3.
    Also /v1/models, /health, /ready, /metrics. See docs/serving.md and docs/security.md.

    Keys come from --keys or the environment variable M3ROUTER_API_KEYS. Pictures and questions
    are never logged, and kept only with --traffic.

    ```
    m3router serve --model embedded --policy run/
    m3router serve --policy run/policies/frugal.json --host 0.0.0.0 --keys keys.jsonl
    m3router serve --policy run/ --ray --autoscale 1:4
    ```
    """
    from router.cli.console import err
    from router.serve.launch import Launch, launch
    from router.serve.policy_place import policy_place
    from router.serve.settings import EngineSettings, FrontSettings

    run, name = policy_place(policy)
    launch(
        Launch(
            engine=EngineSettings(
                run=str(run),
                model=model or "",
                policy=name,
                device=device,
                queue=queue,
                batch=batch,
                wave=wave,
                pictures=pictures,
                threads=threads,
            ),
            front=FrontSettings(
                max_bytes=max_bytes,
                max_pixels=max_pixels,
                seconds=seconds,
                max_tokens=max_tokens,
                drain_seconds=drain,
            ),
            host=host,
            port=port,
            keys=keys,
            open_door=open_door,
            per_minute=per_minute,
            burst=burst,
            image_hosts=tuple(image_host or ()),
            traffic=traffic,
            traffic_share=traffic_share,
            traffic_days=traffic_days,
            traffic_consent=traffic_consent,
            tls_cert=tls_cert,
            tls_key=tls_key,
            proxies=proxies,
            ray=_ray(ray, replicas, autoscale, ray_config),
            vllm=None if vllm is None else _vllm(vllm, vllm_model),
        ),
        environment=os.environ,
        on_start=lambda address: err.print(f"listening at {address}, loading the model"),
        on_ready=lambda served: err.print(
            f"ready: {served.model} at the scales {', '.join(map(str, served.scales))}, "
            f"policy {served.policy}"
        ),
    )


def _ray(
    wanted: bool, replicas: int | None, autoscale: str | None, config: Path | None
) -> RaySettings | None:
    from dataclasses import replace

    from data.errors import DataError
    from router.serve.backends.ray.settings import RaySettings

    if not wanted:
        if replicas or autoscale or config:
            raise DataError("--replicas, --autoscale and --ray-config go with --ray; add it.")
        return None
    if replicas and autoscale:
        raise DataError("Give --replicas or --autoscale, not both.")
    settings = RaySettings() if config is None else RaySettings.read(config)
    if replicas is not None:
        settings = replace(settings, replicas=replicas, most_replicas=None)
    return settings if autoscale is None else settings.scaled(autoscale)


def _vllm(url: str, model: str) -> VllmAddress:
    from router.serve.backends.vllm.client import VllmAddress

    return VllmAddress(url=url, model=model, key=os.environ.get("M3ROUTER_VLLM_KEY"))
