"""How a run was made is told in sentences, whatever kind of run, whatever its metadata hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.router.reports.origin_text import origin, plain_value

OPTIONS = ["low", "high"]
MATRYOSHKA = {
    "model": "m3-7b",
    "revision": "0123456789abcdef",
    "grid": ["1", "576"],
    "prompt": "v1",
    "visual": {"pooling": "average"},
    "dtype": "bfloat16",
    "max_new_tokens": 16,
    "asked": "all",
    "sha256": "ff" * 32,
}
VLM = {
    "model": "qwen",
    "revision": "0123456789abcdef",
    "spec": {"kind": "vlm", "options": {"low": {"max_pixels": 3}}},
    "provenance": {"backend": "transformers 5", "family": "qwen3-vl", "decoding": "greedy"},
    "max_new_tokens": {"16": 3, "64": 1},
}
SERVER = {
    "model": ["big", "small"],
    "spec": {"kind": "endpoint"},
    "provenance": {
        "backend": "endpoint",
        "url": "https://user:secret@api.example:8443/v1?key=secret",
        "options": [{"name": "low", "detail": "low", "patch": {}}],
        "prompt": "image, then question; temperature 0",
        "warnings": {"images are ignored": 3},
    },
}
FUNCTION = {
    "model": "answer",
    "spec": {"kind": "function", "name": "mine:answer"},
    "provenance": {"backend": "function", "python": "3.12.1", "function": "mine:answer"},
}
IMPORTED = {
    "source": "lmms-eval --log_samples",
    "runs": {"low": {"path": "a.jsonl", "model": "llava", "seconds": 12.5, "throughput": {"x": 1}}},
    "unmapped": ["Nothing tells which metric counts."],
    "judge": {"name": "gpt", "protocol": "mmmu", "models": ["gpt-4o"], "date": "2025-01-01"},
}


def document(log: dict) -> dict:
    return {
        "options": OPTIONS,
        "cost_unit": "pixels",
        "words": {"images": True, "scales": True},
        "bootstrap": {"draws": 1000, "level": 0.95, "seed": 0},
        "rule": {"name": "stable", "meaning": "an option suffices when it is right"},
        "provenance": {
            "log": log,
            "features": {"source": "siglip", "question_encoder": "model", "blocks": {}},
            "router": {
                "estimator": "mlp",
                "blocks": {"image": 648},
                "hyperparameters": {"hidden": 128, "seed": 0},
                "seed": 0,
                "fingerprint": "ab" * 32,
            },
            "split": {"seed": 0, "fingerprint": "cd" * 32},
            "sizes": {
                "fit": {"examples": 1, "pictures": 1},
                "test": {"examples": 9, "pictures": 3},
            },
            "examples": 10,
            "examples_with_gaps": 1,
            "versions": {"python": "3.12.1", "numpy": "2.0"},
        },
    }


def told(log: dict) -> str:
    return " ".join(" ".join(one.sentences) for one in origin(document(log)))


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        (
            MATRYOSHKA,
            ["model m3-7b (revision 0123456789ab)", "low and high", "16 tokens"],
        ),
        (VLM, ["vision-language model qwen", "qwen3-vl", "transformers 5", "16 tokens for 3"]),
        (SERVER, ["models big and small", "api.example:8443/v1", "Option low: detail low"]),
        (FUNCTION, ["function mine:answer", "Python 3.12.1"]),
        (
            IMPORTED,
            ["imported: lmms-eval", "Option low: path a.jsonl", "judge, gpt-4o", "which metric"],
        ),
        ({"model": "m3", "asked": "agreement"}, ["no reference answers", "finest option, high"]),
        ({}, ["1 to train (1 image) and 9 to test (3 images)", "1 question without", "seed 0"]),
    ],
)
def test_every_kind_of_run_is_told_in_its_own_words(log, wanted):
    text = told(log)
    for words in wanted:
        assert words in text
    assert "secret" not in text
    assert not re.search(r"[{}\[\]]|': |None|  ", text), text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*MATRYOSHKA, "spec", "source", "provenance", "runs",
                                        "unmapped", "judge", "frames", "columns", "odd"]),
                       json_values))  # fmt: skip
def test_no_metadata_stop_it(log):
    assert told(log)


def test_what_is_long_is_cut():
    assert len(plain_value(list(range(1000)))) < 100
    assert plain_value("a" * 1000).endswith("…")
