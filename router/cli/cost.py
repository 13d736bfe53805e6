"""`m3router cost`."""

from __future__ import annotations

from typing import Annotated

import typer

from m3router.m3core.cost.operations import Numbers
from m3router.m3core.cost.roofline import choose_device, estimate
from m3router.router.cli.console import say, show_table
from m3router.router.cli.options import Dtype
from m3router.router.cli.streams import out


def cost(
    model: Annotated[str, typer.Option(help="embedded or a folder; its config.json suffices.")],
    device_type: Annotated[
        str, typer.Option(help="Whose peak rates: V100, A6000, A100 or H100.")
    ] = "A100",
    peak_tflops: Annotated[
        float | None,
        typer.Option(help="Your own device: its 10^12 operations a second.", show_default=False),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(help="Your own device: its memory's GB a second.", show_default=False),
    ] = None,
    text_tokens: Annotated[
        int, typer.Option(min=0, help="Prompt tokens beside the visual ones.")
    ] = 30,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Generated tokens.")] = 1,
    image_size: Annotated[
        str, typer.Option(help="Width x height in pixels; LLaVA-NeXT's tokens depend on it.")
    ] = "336x336",
    dtype: Annotated[Dtype, typer.Option(help="Number format of the model.")] = Dtype.FLOAT16,
    bits: Annotated[
        int | None,
        typer.Option(help="8 or 4: the language model's layers quantised.", show_default=False),
    ] = None,
) -> None:
    """Compute what an answer costs at every scale, without loading weights.

    Operations, memory, and the shortest time that the device's peak rates allow: no real program
    reaches it. The vision tower's operations stand in a column of their own, because no scale
    saves them; its time is not part of the times.

    ```
    m3router cost --model llava-v1.5-7b-m3/ --device-type V100 --text-tokens 30
    ```
    """
    from m3router.m3core.checkpoints.sizes import (
        parse_image,  # loads torch
        read_sizes,  # loads torch
    )

    sizes, shown = read_sizes(model), parse_image(image_size)
    device = choose_device(device_type, tflops=peak_tflops, gigabytes=bandwidth)
    numbers = Numbers(dtype=dtype.value, bits=bits)
    vision = sizes.shape.vision_flops(sizes.views(shown)) / 1e9
    rows = []
    for scale in sizes.grid.scales:
        tokens = sizes.tokens(scale, shown)
        one = estimate(
            sizes.shape, tokens + text_tokens, answer_tokens, device=device, numbers=numbers
        )
        memory = one.memory
        figures = [one.flops / 1e9, vision, memory.cache / 1e6, memory.activations / 1e6]
        figures += [memory.total / 1e9, 1e3 * one.prefill_seconds, 1e3 * one.decode]
        rows.append([scale, tokens, *map(_short, figures)])
    show_table(
        ["scale", "visual\ntokens", "language\nGFLOPs", "vision\nGFLOPs", "cache\nMB"]
        + ["active\nMB", "memory\nGB", "prefill\nms", "decode\nms"],
        rows,
    )
    weights = _short(sizes.shape.weight_bytes(numbers) / 1e9)
    out.print(
        f"Memory: {weights} GB of weights, the cache, and what is active at the peak of prefill. "
        f"{device.name}: {device.flops / 1e12:g} TFLOPS, {device.bandwidth / 1e9:g} GB/s.",
        style="dim",
    )
    if sizes.views(shown) > 1:
        say(f"An image of {image_size} pixels is seen in {sizes.views(shown)} views.")


def _short(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
