"""Where a model goes and in which numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from m3router.data.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
        ModelError: For an unknown number format, or bits that are not available here.
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
            from transformers import BitsAndBytesConfig  # slow to import

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


def own(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy parameters that are still the files' own memory, which a rewritten file would change."""
    mapped = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for parameter in model.parameters():
        if not parameter.is_meta and parameter.untyped_storage().data_ptr() in mapped:
            parameter.data = parameter.data.clone()
