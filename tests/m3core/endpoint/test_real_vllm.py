"""The endpoint's client against vLLM on a CPU, with random models that are here too.

How vLLM was installed for it, and what it answered: `experiments/servers/README.md`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import ModelError
from m3router.m3core.endpoint import connect, read_options
from m3router.m3core.options import Request
from m3router.m3core.vlm import load_vlm
from m3router.m3core.vlm.tiny import save_tiny
from tests.m3core.endpoint.real_servers import vllm_serve

EXECUTABLE = os.environ.get("M3ROUTER_VLLM", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not EXECUTABLE, reason="M3ROUTER_VLLM names no executable of vLLM"),
]
TRUST = "--trust-request-mm-kwargs"
DETAILS = "--enable-prompt-tokens-details"


def noise(width, height, seed):
    small = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def readable(text):
    """Without bytes at the end that are no character yet: vLLM leaves them out."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("family", "preset", "asked"),
    [("qwen3_vl", "vllm-qwen3-vl", ("64", "256")), ("gemma4", "vllm-gemma4", ("70", "280"))],
)
def test_vllm_counts_and_answers_as_the_model_loaded_here(family, preset, asked, tmp_path):
    # heads of 32: vLLM's attention for CPUs without AVX-512 has none that are smaller
    folder = save_tiny(family, tmp_path / family, width=128)
    here = load_vlm(str(folder), device="cpu", max_new_tokens=8)
    with vllm_serve(EXECUTABLE, folder, TRUST, DETAILS) as url:
        there = connect(url, read_options(preset=preset, model="tiny"), max_new_tokens=8)
        requests = [
            Request(image=image, question=question, option=option)
            for image in (noise(640, 480, 1), noise(300, 200, 2))
            for option in asked
            for question in ("what?", "how many cats?")
        ]
        for one, two in zip(there.answer(requests), here.answer(requests), strict=True):
            assert one.usage.image_tokens_from == "reported"
            assert one.usage.image_tokens == two.usage.image_tokens
            assert one.usage.prompt_tokens == two.usage.prompt_tokens
            assert one.usage.answer_tokens == two.usage.answer_tokens
            assert readable(one.text) == readable(two.text)
            # vLLM's pixels are torchvision's, ours are Pillow's
            assert one.confidence == pytest.approx(two.confidence, abs=2e-3)
            assert one.logprob == pytest.approx(two.logprob, abs=2e-2)
        there.close()


def test_a_server_without_the_start_flag_is_explained(tmp_path):
    folder = save_tiny("qwen3_vl", tmp_path / "qwen3_vl", width=128)
    with (
        vllm_serve(EXECUTABLE, folder) as url,
        pytest.raises(ModelError, match="--trust-request-mm-kwargs"),
    ):
        connect(url, read_options(preset="vllm-qwen3-vl", model="tiny"))
