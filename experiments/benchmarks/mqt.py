"""What constant attention gives MQT-LLaVA over its published layer, on this machine, in one run.

    python -m experiments.benchmarks.mqt

Sizes are those of the published checkpoint, weights are random. The published way runs the layer
(and, for a whole image, the tower before it) once for every number of tokens; ours runs once
and slices. Both are timed in turns and given as medians. For a whole image the tower outweighs
the layer, so that little more can be gained than the number of scales, 8; where ``times_faster``
is far above, another job disturbed the run. Prints a table, and writes it as JSON where ``--out``
says.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from m3router.m3core.checkpoints.tower import known_tower
from m3router.m3core.matryoshka.models.query_abstractor import QueryAbstractor, resize_table
from m3router.m3core.matryoshka.models.untrained import untrained_tower
from m3router.m3core.matryoshka.scales import MQT_SCALES

Way = Callable[[], object]


def plain(layer: QueryAbstractor, patches: torch.Tensor, tokens: int) -> torch.Tensor:
    """The layer as published: queries, keys and attention weights anew at every call."""
    batch = len(patches)
    queries = layer.ln_q(layer.query[:tokens] + layer.pos_embed[:tokens])
    keys = layer.ln_k(resize_table(layer.pos_embed, layer.side))
    mixed, _ = layer.attn(
        queries[:, None].repeat(1, batch, 1),
        keys[:, None].repeat(1, batch, 1),
        layer.ln_v(patches).transpose(0, 1),
    )
    return mixed.transpose(0, 1) @ layer.proj


def sliced(outputs: torch.Tensor) -> list[torch.Tensor]:
    """All scales from the outputs of all queries, (B, 256, D)."""
    return [outputs[:, :tokens] for tokens in MQT_SCALES]


def in_turns(published: Way, ours: Way, repeats: int) -> dict[str, float]:
    """Median milliseconds of both, run alternately after one run each to warm up."""
    spent: dict[str, list[float]] = {"published_ms": [], "ours_ms": []}
    published()
    ours()
    for _ in range(repeats):
        for name, way in (("published_ms", published), ("ours_ms", ours)):
            began = time.perf_counter()
            way()
            spent[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: statistics.median(times) for name, times in spent.items()}
    return medians | {"times_faster": medians["published_ms"] / medians["ours_ms"]}


@torch.inference_mode()
def run_all(repeats: int, tower_repeats: int) -> dict[str, Any]:
    """All measurements, and how far the two ways are apart."""
    torch.manual_seed(0)
    layer = QueryAbstractor().eval()
    config = known_tower("clip-vit-large-patch14-336")
    patches = torch.randn(1, layer.side**2, config.hidden_size)
    together = layer(patches)
    apart = max(float((plain(layer, patches, m) - together[:, :m]).abs().max()) for m in MQT_SCALES)
    results: dict[str, Any] = {
        "machine": {
            "processor": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "scales": list(MQT_SCALES),
        "largest_difference": apart,
        "layer_all_scales": in_turns(
            lambda: [plain(layer, patches, m) for m in MQT_SCALES],
            lambda: sliced(layer(patches)),
            repeats,
        ),
        "layer_256_tokens": in_turns(
            lambda: plain(layer, patches, 256), lambda: layer(patches), repeats
        ),
    }
    tower = untrained_tower(config)
    pixels = torch.randn(1, 3, config.image_size, config.image_size)

    def seen() -> torch.Tensor:
        return tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    results["picture_all_scales"] = in_turns(
        lambda: [plain(layer, seen(), m) for m in MQT_SCALES],
        lambda: sliced(layer(seen())),
        tower_repeats,
    )
    return results


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument(
        "--tower-repeats", type=int, default=3, help="1 where the tower takes seconds"
    )
    parser.add_argument("--note", help="what else the machine was doing; kept with the results")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    results = run_all(arguments.repeats, arguments.tower_repeats)
    if arguments.note:
        results["machine"]["note"] = arguments.note
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
