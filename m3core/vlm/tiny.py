"""Random models of every family: real image processors, networks that fit into a few hundred kB.

    python -m m3router.m3core.vlm.tiny qwen3_vl OUT

writes a folder that :func:`m3router.m3core.vlm.load_vlm`, ``AutoModelForImageTextToText`` and
servers load. Patch sizes, budgets and token counts are those of the real families; the answers are
random bytes, the same ones at every run. For tests, and for trying the tools without a download.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedTokenizerFast

from m3router.data.errors import ModelError
from m3router.data.paths import StrPath
from m3router.data.registry import unknown_name

_CHAT = (
    "<bos>{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_GEMMA_TURNS = (
    ("<|im_start|>assistant", "<|turn>model"),
    ("<|im_start|>", "<|turn>"),
    ("<|im_end|>", "<turn|>"),
)
"""What marks turns: `transformers serve` looks for a family's own marks, and where they are
missing, it gives the prompt back as a part of the answer."""
_PAD, _EOS, _BOS = 0, 1, 2
_SPREAD = 0.2
"""Of the weights: large enough that images and questions change the answers."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a random model is.

    Attributes:
        width: Of both networks' layers, a multiple of 32.
        layers: Of both networks, even.
    """

    width: int = 32
    layers: int = 2

    @property
    def text(self) -> dict[str, Any]:
        """Of a language model with four heads, two of them for keys and values."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 2 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "pad_token_id": _PAD,
            "eos_token_id": _EOS,
            "bos_token_id": _BOS,
        }

    @property
    def head(self) -> int:
        """Width of one head of the language model."""
        return self.width // 4

    @property
    def tower(self) -> dict[str, Any]:
        """Of a vision tower with two heads."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 2 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 2,
        }

    def types(self, kind: str) -> list[str]:
        """Layers of another kind, every second one with full attention."""
        return [kind, "full_attention"] * (self.layers // 2)


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What a family's folder is made from.

    Attributes:
        config: Name of the configuration's class.
        settings: Its arguments, without the size of the vocabulary.
        image_processor: Name of the image processor's class, and its arguments.
        processor: Name of the processor's class, and entries of ``processor_config.json``.
        image: How the chat template writes an image.
        named: Tokens that the tokenizer knows by name.
        more: Further special tokens.
        ids: Entry of the configuration -> token whose id it holds.
        video: Class of the video processor; None where there is none.
        audio: Class of the feature extractor for sound.
        turns: What marks turns in the chat template, where it is not as in most families.
    """

    config: str
    settings: dict[str, Any]
    image_processor: tuple[str, dict[str, Any]]
    processor: tuple[str, dict[str, Any]]
    image: str
    named: dict[str, str]
    ids: dict[str, str]
    more: Sequence[str] = ()
    video: str | None = None
    audio: str | None = None
    turns: Sequence[tuple[str, str]] = ()


def _gemma3(sizes: Sizes) -> Blueprint:
    text = sizes.text | {
        "head_dim": sizes.head,
        "sliding_window": 512,
        "query_pre_attn_scalar": sizes.head,
        "layer_types": sizes.types("sliding_attention"),
    }
    vision = {"image_size": 896, "patch_size": 14, "vision_use_head": False}
    return Blueprint(
        config="Gemma3Config",
        settings={
            "text_config": text,
            "vision_config": sizes.tower | vision,
            "mm_tokens_per_image": 256,
        },
        image_processor=("Gemma3ImageProcessor", {"size": {"height": 896, "width": 896}}),
        processor=("Gemma3Processor", {"image_seq_length": 256}),
        image="<start_of_image>",
        named={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        ids={
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "image_token_index": "<image_soft_token>",
        },
    )


def _gemma4(sizes: Sizes) -> Blueprint:
    text = sizes.text | {
        "head_dim": sizes.head,
        "global_head_dim": 2 * sizes.head,
        "sliding_window": 512,
        "layer_types": sizes.types("sliding_attention"),
        "hidden_size_per_layer_input": 8,
        "use_bidirectional_attention": "vision",
    }
    vision = {"num_key_value_heads": 2, "head_dim": sizes.width // 2, "default_output_length": 280}
    return Blueprint(
        config="Gemma4Config",
        settings={
            "text_config": text,
            "vision_config": sizes.tower | vision,
            "audio_config": None,
        },
        image_processor=("Gemma4ImageProcessor", {}),
        processor=("Gemma4Processor", {"image_seq_length": 280}),
        image="<|image|>",
        named={
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "image_token": "<|image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
        },
        more=["<|video|>"],
        ids={
            "boi_token_id": "<|image>",
            "eoi_token_id": "<image|>",
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "audio_token_id": "<|audio|>",
            "boa_token_id": "<|audio>",
            "eoa_token_index": "<audio|>",
        },
        video="Gemma4VideoProcessor",
        audio="Gemma4AudioFeatureExtractor",
        turns=_GEMMA_TURNS,
    )


_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


def _qwen2_5_vl(sizes: Sizes) -> Blueprint:
    half = sizes.head // 2
    sections = [half // 4, half // 4, half // 2]
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    vision = {
        "depth": sizes.layers,
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.width,
        "num_heads": 2,
        "out_hidden_size": sizes.width,
        "fullatt_block_indexes": [sizes.layers - 1],
    }
    return Blueprint(
        config="Qwen2_5_VLConfig",
        settings={"text_config": sizes.text | {"rope_parameters": rope}, "vision_config": vision},
        image_processor=("Qwen2VLImageProcessor", {}),
        processor=("Qwen2_5_VLProcessor", {}),
        image="<|vision_start|><|image_pad|><|vision_end|>",
        named=_QWEN_TOKENS,
        ids={f"{name}_id": token for name, token in _QWEN_TOKENS.items()},
        video="Qwen2VLVideoProcessor",
    )


def _qwen3_vl(sizes: Sizes) -> Blueprint:
    half = sizes.head // 2
    sections = [half // 2, half // 4, half // 4]
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    vision = {
        "depth": sizes.layers,
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.width,
        "num_heads": 2,
        "out_hidden_size": sizes.width,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [0],
    }
    return Blueprint(
        config="Qwen3VLConfig",
        settings={
            "text_config": sizes.text
            | {"head_dim": sizes.head, "rope_parameters": rope | {"mrope_interleaved": True}},
            "vision_config": vision,
        },
        image_processor=(
            "Qwen2VLImageProcessor",
            {
                "patch_size": 16,
                "size": {"shortest_edge": 65536, "longest_edge": 16777216},
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
            },
        ),
        processor=("Qwen3VLProcessor", {}),
        image="<|vision_start|><|image_pad|><|vision_end|>",
        named=_QWEN_TOKENS,
        ids={f"{name}_id": token for name, token in _QWEN_TOKENS.items()},
        video="Qwen3VLVideoProcessor",
    )


def _internvl(sizes: Sizes) -> Blueprint:
    return Blueprint(
        config="InternVLConfig",
        settings={
            "text_config": sizes.text | {"model_type": "qwen2"},
            "vision_config": sizes.tower | {"image_size": [448, 448], "patch_size": [14, 14]},
            "image_seq_length": 256,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
        },
        image_processor=(
            "GotOcr2ImageProcessor",
            {
                "size": {"height": 448, "width": 448},
                "crop_to_patches": True,
                "min_patches": 1,
                "max_patches": 12,
            },
        ),
        processor=("InternVLProcessor", {"image_seq_length": 256}),
        image="<IMG_CONTEXT>\n",
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        ids={"image_token_id": "<IMG_CONTEXT>"},
        video="InternVLVideoProcessor",
    )


def _smolvlm(sizes: Sizes) -> Blueprint:
    return Blueprint(
        config="SmolVLMConfig",
        settings={
            "text_config": sizes.text | {"model_type": "llama", "head_dim": sizes.head},
            "vision_config": sizes.tower | {"image_size": 512, "patch_size": 16},
            "scale_factor": 4,
            "pad_token_id": _PAD,
            "tie_word_embeddings": False,
        },
        image_processor=(
            "SmolVLMImageProcessor",
            {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
        ),
        processor=("SmolVLMProcessor", {"image_seq_len": 64}),
        image="<image>",
        named={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
            "video_token": "<video>",
        },
        more=[f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)],
        ids={"image_token_id": "<image>"},
        video="SmolVLMVideoProcessor",
    )


def _lfm2_vl(sizes: Sizes) -> Blueprint:
    text = sizes.text | {
        "layer_types": sizes.types("conv"),
        "block_auto_adjust_ff_dim": False,
        "conv_L_cache": 3,
    }
    return Blueprint(
        config="Lfm2VlConfig",
        settings={
            "text_config": text,
            "vision_config": sizes.tower
            | {"patch_size": 16, "num_patches": 256, "vision_use_head": False},
            "projector_hidden_size": sizes.width,
            "downsample_factor": 2,
        },
        image_processor=("Lfm2VlImageProcessor", {}),
        processor=("Lfm2VlProcessor", {}),
        image="<image>",
        named={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail": "<|img_thumbnail|>",
        },
        more=[f"<|img_row_{row}_col_{col}|>" for row in range(1, 11) for col in range(1, 11)],
        ids={"image_token_id": "<image>"},
    )


def _llava_onevision(sizes: Sizes) -> Blueprint:
    grids = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
    vision = {
        "model_type": "siglip_vision_model",
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return Blueprint(
        config="LlavaOnevisionConfig",
        settings={
            "text_config": sizes.text | {"model_type": "qwen2"},
            "vision_config": sizes.tower | vision,
            "image_grid_pinpoints": grids,
        },
        image_processor=(
            "LlavaOnevisionImageProcessor",
            {"size": {"height": 384, "width": 384}, "image_grid_pinpoints": grids},
        ),
        processor=(
            "LlavaOnevisionProcessor",
            {"num_image_tokens": 729, "vision_feature_select_strategy": "full"},
        ),
        image="<image>\n",
        named={"image_token": "<image>", "video_token": "<video>"},
        ids={"image_token_index": "<image>", "video_token_index": "<video>"},
        video="LlavaOnevisionVideoProcessor",
    )


def _minicpmv4_6(sizes: Sizes) -> Blueprint:
    text = sizes.text | {
        "model_type": "qwen3_5_text",
        "head_dim": sizes.head,
        "layer_types": sizes.types("linear_attention"),
        "linear_key_head_dim": sizes.head,
        "linear_value_head_dim": sizes.head,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
        },
    }
    vision = {"image_size": 980, "patch_size": 14, "insert_layer_id": 1}
    return Blueprint(
        config="MiniCPMV4_6Config",
        settings={
            "text_config": text,
            "vision_config": sizes.tower | vision | {"num_hidden_layers": max(4, sizes.layers)},
            "insert_layer_id": 1,
            "patch_size": 14,
        },
        image_processor=("MiniCPMV4_6ImageProcessor", {}),
        processor=("MiniCPMV4_6Processor", {}),
        image="<|image_pad|>",
        named={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "image_start_token": "<image>",
            "image_end_token": "</image>",
            "slice_start_token": "<slice>",
            "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>",
            "image_id_end_token": "</image_id>",
        },
        ids={"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
        video="MiniCPMV4_6VideoProcessor",
    )


TINY: Mapping[str, Callable[[Sizes], Blueprint]] = {
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "internvl": _internvl,
    "lfm2_vl": _lfm2_vl,
    "llava_onevision": _llava_onevision,
    "minicpmv4_6": _minicpmv4_6,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "smolvlm": _smolvlm,
}
"""By the ``model_type`` of their ``config.json``."""


def save_tiny(name: str, folder: StrPath, *, width: int = 32, layers: int = 2) -> Path:
    """Write a random model of a family with its processor and tokenizer.

    Args:
        name: A key of :data:`TINY`.
        folder: Where; made if it is not there.
        width: Of both networks' layers, a multiple of 32.
        layers: Of both networks, even.

    Returns:
        The folder.

    Raises:
        ModelError: If there is no such family.
    """
    if name not in TINY:
        raise ModelError(unknown_name("family", name, TINY))
    plan = TINY[name](Sizes(width=width, layers=layers))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(plan)
    ids = {entry: tokenizer.convert_tokens_to_ids(token) for entry, token in plan.ids.items()}
    settings = plan.settings | ids
    settings["text_config"] = settings["text_config"] | {"vocab_size": len(tokenizer)}
    if name == "gemma4":
        settings["text_config"]["vocab_size_per_layer_input"] = len(tokenizer)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        config = getattr(transformers, plan.config)(**settings)
        model = AutoModelForImageTextToText.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=_SPREAD)
    model.generation_config = GenerationConfig(
        eos_token_id=_EOS, pad_token_id=_PAD, bos_token_id=_BOS, do_sample=False
    )
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    save_processor(plan, place)
    return place


def make_tokenizer(plan: Blueprint) -> PreTrainedTokenizerFast:
    """Bytes and special tokens, no merges: every text can be written."""
    end = dict(plan.turns).get("<|im_end|>", "<|im_end|>")
    base = ["<pad>", end, "<bos>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bare = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(base)}, merges=[], unk_token="<unk>"
        )
    )
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        eos_token=end,
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens=dict(plan.named),
        padding_side="left",
        model_max_length=32768,
    )
    if plan.more:
        tokenizer.add_special_tokens({"additional_special_tokens": list(plan.more)})
    return tokenizer


def save_processor(plan: Blueprint, folder: Path) -> None:
    """Write the files of image processor, processor and chat template, without the tokenizer's."""
    kind, arguments = plan.image_processor
    image = {"image_processor_type": kind} | arguments
    processor, entries = plan.processor
    whole: dict[str, Any] = {"processor_class": processor} | entries
    if plan.video:
        whole["video_processor"] = {"video_processor_type": plan.video}
    if plan.audio:
        whole["feature_extractor"] = {"feature_extractor_type": plan.audio}
    for name, content in (("preprocessor_config", image), ("processor_config", whole)):
        text = json.dumps(content, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    chat = _CHAT.replace("IMAGE", plan.image)
    for common, own in plan.turns:
        chat = chat.replace(common, own)
    (folder / "chat_template.jinja").write_text(chat, encoding="utf-8")


def main() -> None:
    """Write one, as the command line says."""
    parser = argparse.ArgumentParser(description="Write a random model of a family.")
    parser.add_argument("family", choices=sorted(TINY))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    given = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    save_tiny(given.family, given.folder, width=given.width, layers=given.layers)


if __name__ == "__main__":
    main()
