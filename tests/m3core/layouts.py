"""Small random checkpoints in the file layouts in which the real ones are published."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from m3router.m3core.matryoshka.models.query_abstractor import QueryAbstractor

Tensors = dict[str, torch.Tensor]

VISION = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=48,
    patch_size=2,
)
"""A tower over 24 x 24 patches, as the published ones."""
TEXT = {
    "vocab_size": 400,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
TOWER = "model.vision_tower.vision_tower.vision_model."
PINPOINTS = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]  # (width, height) in pixels
_TEXT = (
    "the a cat dog image what color is on table how many are there user assistant human curious "
    "between questions answers helpful detailed polite gives chat and artificial intelligence red"
)


@cache
def pieces() -> bytes:
    """A sentencepiece model of Llama's kind: byte-pair encoding with byte fallback."""
    words = _TEXT.split()
    lines = (" ".join(words[(i * k) % len(words)] for k in range(1, 10)) for i in range(300))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        vocab_size=TEXT["vocab_size"],
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return model.getvalue()


def write_tokenizer(folder: Path) -> None:
    """``tokenizer.model`` and its configuration, as Vicuna's."""
    (folder / "tokenizer.model").write_bytes(pieces())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "pad_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 2048,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def reordered(seed: int) -> bytes:
    """The same pieces under other ids, with runs of blanks as in Llama's and Mistral's files.

    There, such runs have the smallest ids and share the lowest score of all; so they have with
    the seed 0. With any other seed, ids say nothing at all about scores.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(pieces())
    normal = [one for one in proto.pieces if one.type == 1]
    kept = [one for one in proto.pieces if one.type != 1]
    runs = ("\u2581" * length for length in (2, 3, 4, 5, 8, 14, 16))
    normal = [*(proto.SentencePiece(piece=run, type=1) for run in runs), *normal]
    for one in normal:
        if set(one.piece) == {"\u2581"}:
            one.score = -1e9
    if seed:
        random.Random(seed).shuffle(normal)
    new = sentencepiece_model_pb2.ModelProto()
    new.CopyFrom(proto)
    del new.pieces[:]
    new.pieces.extend([*kept, *normal])
    return new.SerializeToString()


def blank_at_the_beginning_alone(folder: Path) -> None:
    """Rewrite ``tokenizer.json`` in the form in which this project converted until version 0.1."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    assert content["normalizer"]["normalizers"][0]["type"] == "Prepend"
    content["normalizer"] = None
    content["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "first",
        "split": False,
    }
    file.write_text(json.dumps(content))


def shaken(part: nn.Module, seed: int) -> nn.Module:
    """Give every parameter random values, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in part.named_parameters():
            if name != "pos_embed":
                noise = torch.randn(one.shape, generator=generator)
                one.copy_(one + 0.3 * noise if one.ndim == 1 else noise / one.shape[-1] ** 0.5)
    return part.eval()


def language_weights(seed: int) -> Tensors:
    return shaken(LlamaForCausalLM(LlamaConfig(**TEXT)), seed).state_dict()


def tower_weights(seed: int) -> Tensors:
    """The tower's tensors with their published names behind ``vision_model.``."""
    state = shaken(CLIPVisionModel(VISION), seed).state_dict()
    return {key.removeprefix("vision_model."): tensor for key, tensor in state.items()}


def projector_weights(seed: int) -> Tensors:
    parts = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 48))
    return shaken(parts, seed).state_dict()


def abstractor_weights(seed: int) -> Tensors:
    return shaken(QueryAbstractor(width=32, output=48), seed).state_dict()


def published(family: str, *, seed: int = 0) -> tuple[dict[str, Any], Tensors]:
    """``config.json`` and all tensors of a checkpoint in the original layout.

    Args:
        family: ``llava``, ``llava_next`` or ``mqt``.
        seed: Of the weights.
    """
    config: dict[str, Any] = TEXT | {
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "torch_dtype": "float16",
        "mm_vision_tower": "openai/clip-vit-tiny",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "mm_hidden_size": 32,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        "tokenizer_model_max_length": 2048,
    }
    tensors = {
        **language_weights(seed),
        **{TOWER + key: tensor for key, tensor in tower_weights(seed + 1).items()},
    }
    if family == "mqt":
        config |= {"query_abstractor_type": "matry_query", "num_visual_tokens": "second_stage"}
        connector = {
            "model.query_abstractor." + key: one for key, one in abstractor_weights(9).items()
        }
    else:
        config |= {
            "mm_projector_type": "mlp2x_gelu",
            "matryoshka_vis_token_scale": [576, 144, 36, 9, 1],
        }
        projector = projector_weights(9)
        connector = {"model.mm_projector." + key: one for key, one in projector.items()}
    if family == "llava_next":
        config |= {
            "image_aspect_ratio": "anyres",
            "mm_patch_merge_type": "spatial_unpad",
            "image_grid_pinpoints": PINPOINTS,
        }
        generator = torch.Generator().manual_seed(seed + 2)
        connector["model.image_newline"] = torch.randn(48, generator=generator)
    return config, tensors | connector


def write(
    folder: Path,
    config: dict[str, Any],
    tensors: Tensors,
    *,
    form: str = "safetensors",
    shards: int = 2,
    tower: str = "inside",
) -> Path:
    """Write a checkpoint folder.

    Args:
        folder: Is made.
        config: From :func:`published`.
        tensors: From :func:`published`.
        form: ``safetensors`` or ``bin``.
        shards: With 1 there is no index.
        tower: ``inside`` the checkpoint (its configuration alone stands beside it) or ``beside``.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    beside = folder / Path(config["mm_vision_tower"]).name
    beside.mkdir()
    VISION.save_pretrained(beside)
    CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    ).save_pretrained(beside)
    kept = dict(tensors)
    if tower == "beside":
        clip = {
            "vision_model." + key.removeprefix(TOWER): kept.pop(key)
            for key in list(kept)
            if key.startswith(TOWER)
        }
        clip["text_model.final_layer_norm.weight"] = torch.zeros(3)  # CLIP's other half
        clip["logit_scale"] = torch.tensor(1.0)
        torch.save(clip, beside / "pytorch_model.bin")
    stem, ending = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    names = sorted(kept)
    index = {}
    for number in range(shards):
        whole = shards == 1
        file = f"{stem}.{ending}" if whole else f"{stem}-{number + 1:05}-of-{shards:05}.{ending}"
        part = {name: kept[name].contiguous() for name in names[number::shards]}
        index |= dict.fromkeys(part, file)
        if form == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    if shards > 1:
        listing = {"metadata": {}, "weight_map": index}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(listing))
    return folder
