"""On a GPU: do batched labels equal single ones, and how far is prefill from its roofline?

    python -m experiments.benchmarks.prefill_7b --device cuda --device-type H100 --out FILE

A LLaVA-1.5 of 7B with random weights, made on the device in bfloat16; no checkpoint is needed.
Two measurements by scale:

- **Agreement**: every request is answered alone, alone once more, in a batch of its own scale, and
  with all scales mixed as labelling does. A flip is an answer (or a first token) that differs from
  that of the request alone. NOTE: random weights leave the best tokens closer together than
  training does, so this overstates what a trained model would flip; and all four ways share one
  run of the tower, so they differ in the language model only.
- **Time**: median milliseconds of prefill with ``TEXT_TOKENS`` text tokens, batch 1, last logits
  only, beside the shortest time that the device's peak rates allow
  (:mod:`m3router.m3core.cost.roofline`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from m3router.m3core.cost.operations import Numbers
from m3router.m3core.cost.roofline import Device, choose_device, estimate
from m3router.m3core.matryoshka.base import Answer, Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.m3core.matryoshka.models.llava import LlavaM3
from m3router.m3core.matryoshka.models.untrained import LLAVA_7B, llava_config, untrained_llava

TEXT_TOKENS = 30
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured.

    Attributes:
        images: Noise images, each with one question.
        answer_tokens: Longest answer.
        repeats: Timed runs of a prefill, after three to warm up.
        seed: Of weights, images and questions.
    """

    images: int = 32
    answer_tokens: int = 16
    repeats: int = 20
    seed: int = 0


def requests_by_scale(model: LlavaM3, settings: Settings) -> dict[int, list[Request]]:
    """The same images and questions at every scale; questions have 3 to 40 words."""
    generator = np.random.default_rng(settings.seed)
    side, rows = model.model.config.vision_config.image_size, len(model.tokenizer)
    pixels = generator.integers(0, 256, (settings.images, side, side, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    questions = [
        " ".join(f"word{word}" for word in generator.integers(3, rows, generator.integers(3, 41)))
        for _ in images
    ]
    encodings = [
        encoding
        for start in range(0, len(images), BATCH)
        for encoding in model.encode(images[start : start + BATCH])
    ]
    return {
        scale: [
            Request(encoding=encoding, question=question, scale=scale)
            for encoding, question in zip(encodings, questions, strict=True)
        ]
        for scale in model.grid.scales
    }


def flips(answers: Sequence[Answer], alone: Sequence[Answer]) -> dict[str, float]:
    """Shares of answers that differ, and how far the first token's probability moved."""
    pairs = list(zip(answers, alone, strict=True))
    first = [a.text.split()[:1] != b.text.split()[:1] for a, b in pairs]
    return {
        "answer": statistics.fmean(a.text != b.text for a, b in pairs),
        "first_token": statistics.fmean(first),
        "largest_confidence_ratio": max(
            max(a.confidence, b.confidence) / min(a.confidence, b.confidence) for a, b in pairs
        ),
    }


def agreement(model: LlavaM3, settings: Settings) -> dict[str, Any]:
    """Flip rates by scale of four ways to answer the same requests."""
    by_scale = requests_by_scale(model, settings)
    everything = [one for requests in by_scale.values() for one in requests]
    mixed = iter(answer_all(model, everything))
    results = {}
    for scale, requests in by_scale.items():
        alone, again = ([model.answer([one])[0] for one in requests] for _ in range(2))
        batched = [
            answer
            for start in range(0, len(requests), BATCH)
            for answer in model.answer(requests[start : start + BATCH])
        ]
        results[str(scale)] = {
            "alone_again": flips(again, alone),
            "batch_of_one_scale": flips(batched, alone),
            "mixed_as_labelling": flips([next(mixed) for _ in requests], alone),
        }
    return results


def milliseconds(work: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Times of single calls, the device idle before and after each."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    spent = []
    for run in range(3 + repeats):
        wait()
        began = time.perf_counter()
        work()
        wait()
        if run >= 3:
            spent.append(1e3 * (time.perf_counter() - began))
    return spent


@torch.inference_mode()
def prefill(model: LlavaM3, device: Device, settings: Settings) -> dict[str, Any]:
    """Time and peak memory of prefill by scale, measured beside computed."""
    stock, place = model.model, str(model.model.device)
    numbers = Numbers(dtype=model.dtype)
    results = {}
    for scale in model.grid.scales:
        tokens = scale + TEXT_TOKENS
        embeddings = 0.02 * torch.randn(
            1, tokens, model.shape.text.hidden, device=place, dtype=stock.dtype
        )

        def once(embeddings: torch.Tensor = embeddings) -> object:
            return stock(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)

        spent = milliseconds(once, place, settings.repeats)
        bound = estimate(model.shape, tokens, device=device, numbers=numbers)
        measured = statistics.median(spent)
        row = {
            "tokens": tokens,
            "median_ms": measured,
            "p90_ms": float(np.quantile(spent, 0.9)),
            "roofline_ms": 1e3 * bound.prefill_seconds,
            "times_roofline": measured / (1e3 * bound.prefill_seconds),
            "roofline_ms_by_group": {name: 1e3 * one for name, one in bound.prefill.items()},
            "computed_memory_gb": bound.memory.total / 1e9,
        }
        if place.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            once()
            row["measured_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        results[str(scale)] = row
    return results


def tower_ms(model: LlavaM3, repeats: int) -> float:
    """Median milliseconds of preparing one image, tower and projector: the same at all scales."""
    side = model.model.config.vision_config.image_size
    image = Image.new("RGB", (side, side), (90, 120, 150))
    place = str(model.model.device)
    return statistics.median(milliseconds(lambda: model.encode([image]), place, repeats))


def run_all(model: LlavaM3, device: Device, settings: Settings) -> dict[str, Any]:
    """Both measurements, with what they were made on."""
    cuda = model.model.device.type == "cuda"
    return {
        "machine": {
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "torch": torch.__version__,
            "transformers": importlib.metadata.version("transformers"),
            "roofline": {"name": device.name, "flops": device.flops, "bytes": device.bandwidth},
        },
        "model": {
            "dtype": model.dtype,
            "weights": model.shape.language_weights + model.shape.vision_weights,
            "attention": model.model.config.get_text_config()._attn_implementation,
            "seed": settings.seed,
        },
        "pictures": settings.images,
        "answer_tokens": settings.answer_tokens,
        "text_tokens_of_prefill": TEXT_TOKENS,
        "encode_one_picture_ms": tower_ms(model, settings.repeats),
        "prefill": prefill(model, device, settings),
        "flips": agreement(model, settings),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="a torch device")
    parser.add_argument("--device-type", default="H100", help="whose peak rates: V100, A100, …")
    parser.add_argument("--peak-tflops", type=float, help="peak rates of another device")
    parser.add_argument("--bandwidth", type=float, help="and its GB a second")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--sizes", type=Path, help="JSON with text and vision sizes; else 7B")
    for name, default in vars(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args(arguments)
    sizes = json.loads(given.sizes.read_text(encoding="utf-8")) if given.sizes else LLAVA_7B
    device = choose_device(given.device_type, tflops=given.peak_tflops, gigabytes=given.bandwidth)
    settings = Settings(**{name: getattr(given, name) for name in vars(Settings())})
    model = untrained_llava(
        llava_config(**sizes),
        device=given.device,
        dtype=getattr(torch, given.dtype),
        seed=settings.seed,
        max_new_tokens=settings.answer_tokens,
    )
    text = json.dumps(run_all(model, device, settings), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
