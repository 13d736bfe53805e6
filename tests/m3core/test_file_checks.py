"""A checkpoint's files, damaged: one message each, and nothing loaded."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from m3router.data.errors import M3RouterError, ModelError
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.places import embedded_folder

JSON = ("config.json", "generation_config.json", "preprocessor_config.json")
JSON += ("tokenizer_config.json", "tokenizer.json")
WRITTEN = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "nan": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "deep": b"[" * 5000 + b"]" * 5000,
    "long": b'{"a": ' + b"1" * 5000 + b"}",
    "surrogate": b'{"a": "\\ud800"}',
    "bytes": b"\xff\xfe",
}


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(embedded_folder(), tmp_path / "model")


@pytest.mark.parametrize("name", JSON)
def test_a_damaged_small_file_is_refused_by_its_name(folder, name):
    whole = (folder / name).read_bytes()
    for kind, written in WRITTEN.items():
        (folder / name).write_bytes(written)
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            load_model(str(folder), device="cpu")
            pytest.fail(kind)
    (folder / name).write_bytes(whole[:-30])
    with pytest.raises(ModelError):
        load_model(str(folder), device="cpu")
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(M3RouterError):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("name", "entry", "value"),
    [
        ("generation_config.json", "eos_token_id", "x"),
        ("preprocessor_config.json", "image_mean", "x"),
        ("preprocessor_config.json", "image_std", [0, 0, 0]),
        ("preprocessor_config.json", "size", {"height": 10**9, "width": 10**9}),
        ("tokenizer_config.json", "tokenizer_class", 4),
        ("config.json", "matryoshka", 5),
        ("config.json", "architectures", [{}]),
        ("config.json", "dtype", ""),
    ],
)
def test_values_of_another_kind_are_refused(folder, name, entry, value):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, entry: value}))
    with pytest.raises(ModelError, match=str(folder)):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(folder, bad):
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[7]
    tensors[name] = tensors[name].copy()
    tensors[name].reshape(-1)[3] = bad
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"NaN or infinite numbers in {name}: "):
        load_model(str(folder), device="cpu")
