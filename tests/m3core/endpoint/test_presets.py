"""Every kind of preset against the stand-in for its server: options that cost differently."""

from __future__ import annotations

import pytest

from m3router.m3core.endpoint import connect, read_options
from m3router.m3core.endpoint.stand_in import StandIn, coded_image, running
from m3router.m3core.options import Request


@pytest.mark.parametrize(
    ("server", "preset", "tokens", "source"),
    [
        ("vllm", "vllm-qwen3-vl", [63, 252, 616, 616], "reported"),
        ("transformers-serve", "transformers-gemma4", [65, 132, 254, 522, 1075], "derived"),
        ("sglang", "sglang-internvl", [258, 1282, 1794, 3330], "reported"),
        ("lmdeploy", "lmdeploy", [65, 254, 802, 802], "derived"),
        ("openai", "openai-detail", [85, 765], "derived"),
    ],
)
def test_a_preset_changes_what_its_server_sees(server, preset, tokens, source):
    image = coded_image("seven", cells=16, size=(900, 700))
    with (
        running(StandIn(server=server)) as stand_in,
        connect(stand_in.url, read_options(preset=preset, model="stand-in")) as model,
    ):
        asked = [Request(image=image, question="What?", option=one.name) for one in model.options]
        answers = model.answer(asked)
    assert [one.usage.image_tokens for one in answers] == tokens
    assert {one.usage.image_tokens_from for one in answers} == {source}
    assert answers[-1].text == "seven"
    assert (answers[0].text == "seven") == (server == "sglang")  # a tile has enough for 16 cells
