"""A vision-language model made again from what a router's file keeps of it."""

from __future__ import annotations

import json

from m3router.m3core.opening import reopen
from m3router.m3core.vlm.loading import load_vlm
from m3router.m3core.vlm.tiny import save_tiny


def test_a_reopened_ladder_keeps_its_order(tmp_path):
    folder = save_tiny("gemma4", tmp_path / "gemma4")
    ladder = {"low": {"max_soft_tokens": 70}, "high": {"max_soft_tokens": 280}}
    model = load_vlm(str(folder), device="cpu", options=ladder)
    kept = json.loads(json.dumps(dict(model.spec), sort_keys=True))  # as a router's file does
    again = reopen(kept, device="cpu")
    assert again.options == model.options and again.revision == model.revision
