"""`m3router cost`."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.checkpoints.places import EMBEDDED, read_json, resolve
from m3router.m3core.cost.operations import Numbers
from m3router.m3core.cost.roofline import Device, choose_device, estimate
from m3router.m3core.cost.vision_language import FAMILIES
from m3router.router.cli.console import say, show_table
from m3router.router.cli.options import Dtype, ModelOptions
from m3router.router.cli.streams import out
from m3router.router.text.numbers import number, percent

if TYPE_CHECKING:
    from m3router.m3core.vlm.option_costs import OptionCost

_MATRYOSHKA = "Matryoshka models:"
_SIZES = {True: "1600x1200", False: "336x336"}


def cost(
    model: Annotated[
        str,
        typer.Option(
            help="embedded, a folder, a hub id, or a config.json of a vision-language model."
        ),
    ],
    device_type: Annotated[
        str | None,
        typer.Option(
            help=f"{_MATRYOSHKA} whose peak rates: V100, A6000, A100 or H100.", show_default="A100"
        ),
    ] = None,
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
        str | None,
        typer.Option(
            "--image-size",
            "--image",
            help="Width x height in pixels; tokens depend on it.",
            show_default=f"{_SIZES[False]} for Matryoshka models, {_SIZES[True]} for others",
        ),
    ] = None,
    option: ModelOptions = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help=f"{_MATRYOSHKA} number format.", show_default=Dtype.FLOAT16.value),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            help=f"{_MATRYOSHKA} 8 or 4: the language model's layers quantised.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compute what an answer costs at every scale or option, without loading weights.

    For Matryoshka models: operations, memory, and the shortest time that the device's peak rates
    allow: no real program reaches it. The vision tower's operations stand in a column of their
    own, because no scale saves them; its time is not part of the times.

    For other vision-language models: image tokens, and operations of tower and language model, at
    every option. Operations are computed, not measured; they are not times.

    ```
    m3router cost --model llava-v1.5-7b-m3/ --device-type V100 --text-tokens 30
    m3router cost --model Qwen/Qwen3-VL-2B-Instruct --image 1600x1200 --answer-tokens 10
    m3router cost --model config.json --option 'low={"max_soft_tokens": 70}'
    ```
    """
    only_scales: dict[str, Any] = {
        "--device-type": device_type,
        "--peak-tflops": peak_tflops,
        "--bandwidth": bandwidth,
        "--dtype": dtype,
        "--bits": bits,
    }
    by_option = model != EMBEDDED and _has_options(model)
    size = image_size or _SIZES[by_option]
    about: dict[str, Any] = {
        "text_tokens": text_tokens,
        "answer_tokens": answer_tokens,
        "json": json,
    }
    if by_option:
        given = [name for name, value in only_scales.items() if value is not None]
        if given:
            raise MismatchError(
                f"{given[0]} counts memory or time, which is known of Matryoshka models only; for "
                f"{model} operations are computed: leave it out"
            )
        _of_options(model, size, option, **about)
        return
    if option:
        raise DataError(
            f"{model} is a Matryoshka model: its options are its scales, so leave --option out"
        )
    device = choose_device(device_type or "A100", tflops=peak_tflops, gigabytes=bandwidth)
    numbers = Numbers(dtype=(dtype or Dtype.FLOAT16).value, bits=bits)
    _of_scales(model, size, device, numbers, **about)


def _has_options(model: str) -> bool:
    """Whether it is a model by visual budget; a hub id's small files are downloaded."""
    if Path(model).is_file():
        return True
    file = resolve(model, weights=False) / "config.json"
    return file.is_file() and read_json(file).get("model_type") in FAMILIES


def _of_scales(
    model: str,
    size: str,
    device: Device,
    numbers: Numbers,
    *,
    text_tokens: int,
    answer_tokens: int,
    json: bool,
) -> None:
    """Show a Matryoshka model's scales."""
    from m3router.m3core.checkpoints.sizes import (
        parse_image,  # loads torch
        read_sizes,  # loads torch
    )

    sizes = read_sizes(model if model == EMBEDDED else str(resolve(model, weights=False)))
    shown = parse_image(size)
    vision = sizes.shape.vision_flops(sizes.views(shown))
    found: list[dict[str, Any]] = []
    for scale in sizes.grid.scales:
        tokens = sizes.tokens(scale, shown)
        one = estimate(
            sizes.shape, tokens + text_tokens, answer_tokens, device=device, numbers=numbers
        )
        found.append(
            {
                "scale": scale,
                "visual_tokens": tokens,
                "language_flops": one.flops,
                "tower_flops": vision,
                "cache_bytes": one.memory.cache,
                "active_bytes": one.memory.activations,
                "memory_bytes": one.memory.total,
                "prefill_seconds": one.prefill_seconds,
                "decode_seconds": one.decode,
            }
        )
    if json:
        _write({"model": model, "image": size, "device": device.name, "scales": found})
        return
    units = (1, 1, 1e9, 1e9, 1e6, 1e6, 1e9, 1e-3, 1e-3)
    show_table(
        ["scale", "visual\ntokens", "language\nGFLOPs", "vision\nGFLOPs", "cache\nMB"]
        + ["active\nMB", "memory\nGB", "prefill\nms", "decode\nms"],
        [
            [
                value if unit == 1 else number(value / unit)
                for value, unit in zip(row.values(), units, strict=True)
            ]
            for row in found
        ],
    )
    weights = number(sizes.shape.weight_bytes(numbers) / 1e9)
    out.print(
        f"Memory: {weights} GB of weights, the cache, and what is active at the peak of prefill. "
        f"{device.name}: {device.flops / 1e12:g} TFLOPS, {device.bandwidth / 1e9:g} GB/s.",
        style="dim",
    )
    if sizes.views(shown) > 1:
        say(f"An image of {size} pixels is seen in {sizes.views(shown)} views.")


def _of_options(
    model: str,
    size: str,
    option: list[str] | None,
    *,
    text_tokens: int,
    answer_tokens: int,
    json: bool,
) -> None:
    """Show the options of a model by visual budget."""
    from m3router.m3core.checkpoints.sizes import parse_image  # loads torch
    from m3router.m3core.opening import parse_options  # loads torch
    from m3router.m3core.vlm.option_costs import read_budgets  # loads torch

    height, width = parse_image(size)
    budgets = read_budgets(model, options=parse_options(option))
    costs = budgets.costs((width, height), text_tokens=text_tokens, answer_tokens=answer_tokens)
    if json:
        _write(
            {
                "model": model,
                "family": budgets.shape.family,
                "image": size,
                "text_tokens": text_tokens,
                "answer_tokens": answer_tokens,
                "markers_counted": budgets.markers,
                "assumed": list(budgets.assumed),
                "options": [_document(one, costs[-1]) for one in costs],
            }
        )
        return
    show_table(
        ["option", "image\ntokens", "tower\nTFLOP", "language\nTFLOP", "both\nTFLOP"]
        + ["tower's\nshare %", "of the\nfinest %"],
        [_line(one, costs[-1]) for one in costs],
    )
    out.print(
        f"{budgets.title}, an image of {size} pixels, {text_tokens} further prompt tokens, "
        f"{answer_tokens} of the answer. Operations are computed from config.json, not measured.",
        style="dim",
    )
    for sentence in budgets.assumed:
        say(sentence)


def _line(one: OptionCost, finest: OptionCost) -> list[Any]:
    tera = [value / 1e12 for value in (one.tower_flops, one.language_flops, one.flops)]
    shares = [percent(value, digits=0) for value in (one.tower_share, one.flops / finest.flops)]
    return [one.option, one.image_tokens, *map(number, tera), *shares]


def _document(one: OptionCost, finest: OptionCost) -> dict[str, Any]:
    return {
        "option": one.option,
        "image_tokens": one.image_tokens,
        "tower_flops": one.tower_flops,
        "language_flops": one.language_flops,
        "tower_share": one.tower_share,
        "relative_to_finest": one.flops / finest.flops,
    }


def _write(document: Mapping[str, Any]) -> None:
    out.file.write(dumps(document, indent=2, allow_nan=False) + "\n")
