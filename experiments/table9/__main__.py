"""M3's Table 9 (cost of LLaVA-1.5-7B by visual tokens), published beside computed.

    python -m experiments.table9

Needs no weights and no GPU. Prints the tables, and writes them with ``--out`` (a folder).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3router.m3core.cost.operations import ModelShape, Numbers
from m3router.m3core.cost.roofline import DEVICES, Device, forward_pass, seconds_by_group
from m3router.m3core.matryoshka.models.untrained import LLAVA_7B, llava_config

TEXT_TOKENS = 30
PUBLISHED: dict[int, dict[str, float]] = {
    576: {"tflops": 8.0, "prefill_ms": 58.1, "memory_gb": 21.6, "activation_gb": 3.8},
    144: {"tflops": 2.2, "prefill_ms": 19.5, "memory_gb": 15.0, "activation_gb": 0.7},
    36: {"tflops": 0.9, "prefill_ms": 18.0, "memory_gb": 13.8, "activation_gb": 0.3},
    9: {"tflops": 0.5, "prefill_ms": 17.7, "memory_gb": 13.6, "activation_gb": 0.2},
    1: {"tflops": 0.4, "prefill_ms": 17.6, "memory_gb": 13.5, "activation_gb": 0.1},
}
"""Cai et al., arXiv 2405.17430, Table 9: "FLOPs (TB)", "Prefill Time (ms)", "Total Memory (GB)",
"Storing Activation (GB)"; "the development device is Tesla V100 GPU". By visual tokens."""

RATES: dict[str, Device] = {
    "v100": Device(name="V100, 112 TFLOPS", flops=112e12, bandwidth=900e9),
    "v100_sxm": Device(name="V100, 125 TFLOPS", flops=125e12, bandwidth=900e9),
    "a6000": DEVICES["A6000"],
}
"""Rates tried: LLM-Viewer's V100, NVIDIA's V100 SXM2, and LLM-Viewer's A6000."""

NOTES = (
    "FLOPs: the language model's layers only; the paper leaves out the vision tower, which is a "
    "column of its own here. 144 tokens give 2.27, printed as 2.2.",
    "Prefill time: the paper names a V100. With a V100's rates the roofline is up to 31 % above "
    "(576 tokens) and 15 % below (1 token) the published times, and no rounding explains it. With "
    "the rates that LLM-Viewer lists for the RTX A6000 (154.8 TFLOPS, 768 GB/s) all five agree "
    "within 0.3 %. We found these by looking, after the fact, which device of LLM-Viewer fits; "
    "that they were used we cannot confirm.",
    "Total Memory: what must fit at once (weights with tower and embeddings, cache, peak "
    "activations) is far less at 576 tokens than published. The published column agrees within "
    "0.3 % with the bytes moved to and from memory during prefill, attention not fused, so it "
    "seems to be traffic, not occupancy.",
    "Storing Activation: agrees, to its one decimal (144 tokens: 0.78, printed as 0.7), with the "
    "bytes that all 32 layers write (keys and values apart), attention not fused. Inference keeps "
    "one layer's at a time: the peak is a fraction of it.",
)


def row(shape: ModelShape, visual_tokens: int) -> dict[str, Any]:
    """All computed columns for a number of visual tokens, float16."""
    tokens, numbers = visual_tokens + TEXT_TOKENS, Numbers(dtype="float16")
    operations = forward_pass(shape, tokens, numbers=numbers, fused=False)
    memory = shape.memory(tokens, numbers=numbers)
    return {
        "tflops": shape.text.flops(tokens) / 1e12,
        "vision_tflops": shape.vision_flops() / 1e12,
        "prefill_ms": {
            name: 1e3 * sum(seconds_by_group(operations, device).values())
            for name, device in RATES.items()
        },
        "traffic_gb": sum(one.repeats * one.traffic for one in operations) / 1e9,
        "written_gb": sum(one.repeats * one.writes for one in operations) / 1e9,
        "occupied_gb": memory.total / 1e9,
        "cache_gb": memory.cache / 1e9,
        "peak_activation_gb": memory.activations / 1e9,
    }


def run_all() -> dict[str, Any]:
    """Every row, published and computed, with ratios computed / published."""
    shape = ModelShape.of(llava_config(**LLAVA_7B))
    rows = []
    for tokens, published in PUBLISHED.items():
        ours = row(shape, tokens)
        ratios = {
            "tflops": ours["tflops"] / published["tflops"],
            **{
                f"prefill_ms_{name}": ours["prefill_ms"][name] / published["prefill_ms"]
                for name in RATES
            },
            "memory_gb_as_traffic": ours["traffic_gb"] / published["memory_gb"],
            "memory_gb_as_occupied": ours["occupied_gb"] / published["memory_gb"],
            "activation_gb_as_written": ours["written_gb"] / published["activation_gb"],
        }
        rows.append({"tokens": tokens, "published": published, "ours": ours, "ratio": ratios})
    return {
        "model": "LLaVA-1.5-7B",
        "text_tokens": TEXT_TOKENS,
        "dtype": "float16",
        "rates": {
            name: {"name": one.name, "tflops": one.flops / 1e12, "gb_per_s": one.bandwidth / 1e9}
            for name, one in RATES.items()
        },
        "rows": rows,
        "notes": list(NOTES),
    }


def tables(results: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of two tables: FLOPs and time, then memory."""
    compute, memory = [], []
    for one in results["rows"]:
        published, ours, ratio = one["published"], one["ours"], one["ratio"]
        compute.append(
            [str(one["tokens"]), f"{published['tflops']:.1f}"]
            + [f"{ours['tflops']:.2f} ({ratio['tflops']:.2f})", f"{ours['vision_tflops']:.2f}"]
            + [f"{published['prefill_ms']:.1f}"]
            + [f"{ours['prefill_ms'][n]:.1f} ({ratio[f'prefill_ms_{n}']:.2f})" for n in RATES]
        )
        memory.append(
            [str(one["tokens"]), f"{published['memory_gb']:.1f}"]
            + [f"{ours['traffic_gb']:.1f} ({ratio['memory_gb_as_traffic']:.2f})"]
            + [f"{ours['occupied_gb']:.1f} ({ratio['memory_gb_as_occupied']:.2f})"]
            + [f"{published['activation_gb']:.1f}"]
            + [f"{ours['written_gb']:.2f} ({ratio['activation_gb_as_written']:.2f})"]
            + [f"{ours['peak_activation_gb']:.3f}", f"{ours['cache_gb']:.3f}"]
        )
    rates = [f"{one.name} (ratio)" for one in RATES.values()]
    head = ["tokens", "TFLOPs published", "computed (ratio)", "vision, apart"]
    left = ["tokens", "GB published", "moved (ratio)", "occupied (ratio)"]
    right = ["activation GB published", "written (ratio)", "at the peak", "cache"]
    return [
        ("Operations and time", [*head, "prefill ms published", *rates], compute),
        ("Memory", left + right, memory),
    ]


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    parts = [
        "# M3's Table 9, published beside computed",
        "Written by `python -m experiments.table9 --out experiments/table9/results`. LLaVA-1.5-7B, "
        f"{TEXT_TOKENS} text tokens, float16; in brackets computed / published.",
    ]
    for title, header, rows in tables(results):
        lines = [header, ["---"] * len(header), *rows]
        parts += [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts.append("\n".join(f"- {note}" for note in results["notes"]))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for table9.json and table9.md")
    arguments = parser.parse_args()
    results = run_all()
    console = Console(highlight=False)
    for title, header, rows in tables(results):
        table = Table(title=title)
        for name in header:
            table.add_column(name, justify="right")
        for line in rows:
            table.add_row(*map(Text, line))
        console.print(table)
    for note in results["notes"]:
        console.print(f"- {note}", markup=False)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=1)
        (arguments.out / "table9.json").write_text(text + "\n", encoding="utf-8")
        (arguments.out / "table9.md").write_text(markdown(results), encoding="utf-8")


if __name__ == "__main__":
    main()
