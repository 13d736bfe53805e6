"""A recognised checkpoint as a stock Hugging Face model, every tensor accounted for.

Only stock classes are filled: transformers skips its key mappings for subclasses and leaves
their weights random with nothing but a printed report.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    BitsAndBytesConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from data.errors import ModelError
from m3core.checkpoints.keys import HUGGING_FACE, ORIGINAL, account, folded, rename
from m3core.checkpoints.layouts import Checkpoint
from m3core.checkpoints.tower import Tower, read_with_tower
from m3core.checkpoints.translation import translate
from m3core.checkpoints.weights import Tensors, read_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STOCK: dict[str, tuple[Any, Any]] = {
    "llava": (LlavaConfig, LlavaForConditionalGeneration),
    "llava_next": (LlavaNextConfig, LlavaNextForConditionalGeneration),
}
_PROJECTOR = "model.multi_modal_projector."
_NEWLINE = "model.image_newline"
VOCABULARY_KEYS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_KEPT_WHOLE = ["vision_tower", "multi_modal_projector", "lm_head"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model goes and in which numbers.

    Attributes:
        device: A torch device.
        dtype: A key of :data:`DTYPES`.
        device_map: ``auto`` and the like spread the model over devices by ``accelerate``, and
            ``device`` is not used.
        bits: 8 or 4 for weights of the language model quantised by bitsandbytes.

    Raises:
        ModelError: For an unknown number format, or bits that cannot be had here.
    """

    device: str = "cpu"
    dtype: str = "float32"
    device_map: str | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked before any file is read."""
        if self.dtype not in DTYPES:
            raise ModelError(f"unknown dtype {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if self.bits is None:
            return
        if self.bits not in (4, 8):
            raise ModelError(f"bits must be 8 or 4, got {self.bits}; leave it out for all bits")
        lacking = []
        if importlib.util.find_spec("bitsandbytes") is None:
            lacking.append("the package bitsandbytes (`pip install 'm3router[quant]'`)")
        if not torch.cuda.is_available():
            lacking.append("a GPU")
        if lacking:
            raise ModelError(
                f"{self.bits}-bit weights need {' and '.join(lacking)}; use dtype bfloat16 instead"
            )

    def keywords(self) -> dict[str, Any]:
        """Arguments for ``from_pretrained``."""
        keywords: dict[str, Any] = {"dtype": DTYPES[self.dtype]}
        if self.bits is not None:
            keywords["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=self.bits == 8,
                load_in_4bit=self.bits == 4,
                bnb_4bit_compute_dtype=DTYPES[self.dtype],
                bnb_4bit_quant_type="nf4",
                llm_int8_skip_modules=_KEPT_WHOLE,
            )
            keywords["device_map"] = self.device_map or {"": self.device}
        elif self.device_map is not None:
            keywords["device_map"] = self.device_map
        return keywords


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint holds, under the names of a stock Hugging Face model.

    Attributes:
        config: ``LlavaConfig`` or ``LlavaNextConfig``.
        tensors: By their current names, mapped from the files, in the files' number formats.
        tower: The vision tower, in the original layout.
    """

    config: Any
    tensors: Tensors
    tower: Tower | None

    @property
    def more_folders(self) -> list[Path]:
        """Folders beside the checkpoint's own that were read."""
        return [self.tower.folder] if self.tower and self.tower.folder else []


def read_contents(checkpoint: Checkpoint) -> Contents:
    """Read config and tensors; each tensor has its place and each place its tensor.

    Raises:
        ModelError: If anything is missing, unexpected, of another shape or unreadable.
    """
    config_class, model_class = STOCK[checkpoint.family]
    folder = checkpoint.folder
    tower = None
    if checkpoint.layout == "original":
        raw, tower = read_with_tower(checkpoint)
        config = translate(checkpoint, tower.config)
    else:
        raw = read_tensors(folder)
        try:
            config = config_class.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
            raise ModelError(f"{folder}/config.json is not valid: {error}") from error
    with torch.device("meta"):
        skeleton = model_class(config)
    expected = {key: tensor.shape for key, tensor in skeleton.state_dict().items()}
    patterns = ORIGINAL if checkpoint.layout == "original" else HUGGING_FACE
    tensors = rename(raw, patterns, expected=expected, folder=folder)
    if checkpoint.layout == "original":
        tensors |= _implied(checkpoint, config, tensors)
    account(expected, tensors, optional=_tied(skeleton), folder=folder)
    return Contents(config=config, tensors=tensors, tower=tower)


def _tied(skeleton: PreTrainedModel) -> set[str]:
    return set(skeleton.all_tied_weights_keys)


def _implied(checkpoint: Checkpoint, config: Any, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """What the original layout leaves out because nothing of it was learned."""
    implied: Tensors = {}
    width = config.text_config.hidden_size
    weight = tensors.get(_PROJECTOR + "linear_1.weight")
    if checkpoint.config.get("mm_projector_type", "linear") == "linear" and weight is not None:
        implied[_PROJECTOR + "linear_2.weight"] = torch.eye(width, dtype=weight.dtype)
        implied[_PROJECTOR + "linear_2.bias"] = torch.zeros(width, dtype=weight.dtype)
    if checkpoint.family == "llava_next" and config.matryoshka["merge"] == "flat":
        # Never used: the flat merge has no line ends; Hugging Face's class wants it all the same.
        implied[_NEWLINE] = torch.zeros(width)
    return {key: tensor for key, tensor in implied.items() if key not in tensors}


def build_stock(checkpoint: Checkpoint, contents: Contents, placement: Placement) -> Any:
    """Fill a stock model and put it where it belongs, in evaluation mode.

    A vocabulary that ``m3router convert`` padded is cut back to the tokens that were trained, so
    that original and converted checkpoints give the same logits.

    Raises:
        ModelError: If transformers does not confirm that every weight was loaded.
    """
    tensors, config = dict(contents.tensors), contents.config
    rows = checkpoint.settings.get("vocabulary")
    if rows:
        config.text_config.vocab_size = rows
        config.text_config.pad_token_id = None  # one of the rows that are cut off
        tensors |= {key: tensors[key][:rows] for key in VOCABULARY_KEYS if key in tensors}
    _, model_class = STOCK[checkpoint.family]
    try:
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            output_loading_info=True,
            **placement.keywords(),
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"the weights in {checkpoint.folder} cannot be loaded: {error}") from error
    _confirm(model, info, checkpoint.folder)
    if placement.bits is None and placement.device_map is None:
        model = model.to(placement.device)
    own(model, tensors)
    file = checkpoint.folder / "generation_config.json"
    if checkpoint.layout == "hugging_face" and file.is_file():
        model.generation_config = GenerationConfig.from_pretrained(
            checkpoint.folder, local_files_only=True
        )
    return model.eval()


def _confirm(model: Any, info: Mapping[str, Any], folder: Path) -> None:
    """A second opinion: what transformers says, and that no parameter is left without data."""
    problems = {
        key: info.get(key) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    empty = [
        name
        for name, parameter in model.named_parameters()
        if parameter.is_meta and not hasattr(model, "hf_device_map")
    ]
    if any(problems.values()) or empty:
        raise ModelError(
            f"transformers did not load every weight of {folder}: "
            f"{ {key: value for key, value in problems.items() if value} } {folded(empty)}. This "
            "version of transformers may name them differently; install the pinned one"
        )


def own(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy parameters that are still the files' own memory, which a rewritten file would change."""
    mapped = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for parameter in model.parameters():
        if not parameter.is_meta and parameter.untyped_storage().data_ptr() in mapped:
            parameter.data = parameter.data.clone()
