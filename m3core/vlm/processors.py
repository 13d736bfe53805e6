"""A family's own processor for images and text; what only videos and sound need is left out.

``AutoProcessor`` builds a video processor wherever a family has one, and that needs torchvision.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoTokenizer

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.file_checks import is_unreadable
from m3router.m3core.vlm.families import Family


class _LeftOut:
    """Stands where a processor asks for a part that nothing here uses."""

    model_input_names: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> None:
        return None


def load_processor(folder: Path, family: Family) -> tuple[Any, str]:
    """The processor of a folder, and which library its image processor computes with.

    Pixels of the two libraries differ by some 1e-5, so which one it was belongs in a log. It is
    Pillow wherever a family allows it, whatever else is installed.

    Args:
        folder: With the files of processor and tokenizer.
        family: Of the model.

    Returns:
        The processor, and ``pil`` or ``torchvision``.

    Raises:
        ModelError: If a file is missing or damaged, or torchvision is missing and needed.
    """
    backend = "torchvision" if family.torchvision else "pil"
    try:
        image_processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend=backend
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = _assembled(folder, family.processor, image_processor, tokenizer)
    except Exception as error:
        if not (isinstance(error, ImportError) or is_unreadable(error)):
            raise
        if family.torchvision and not transformers.utils.is_torchvision_available():
            raise ModelError(
                f"the image processor of {family.title} needs torchvision: install the version "
                "that belongs to your torch, `pip install torchvision`"
            ) from error
        raise ModelError(
            f"{folder} lacks a usable processor for {family.title}: {error}; download its files "
            "again"
        ) from error
    if not processor.chat_template:
        raise ModelError(
            f"{folder} has no chat template (chat_template.jinja), so nothing says how to ask; "
            "download a checkpoint that was trained to answer"
        )
    return processor, backend


def _assembled(folder: Path, name: str, image_processor: Any, tokenizer: Any) -> Any:
    whole = getattr(transformers, name)
    parts = {"image_processor": image_processor, "tokenizer": tokenizer}
    left_out = [part for part in whole.get_attributes() if part not in parts]
    known = inspect.signature(whole.__init__).parameters
    described, _ = whole.get_processor_dict(folder, local_files_only=True)
    settings = {
        key: value
        for key, value in described.items()
        if key in known and key not in whole.get_attributes()
    }
    settings.setdefault("chat_template", tokenizer.chat_template)
    with _without_num2words(whole):
        return _without(whole)(**parts, **dict.fromkeys(left_out, _LeftOut()), **settings)


def _without(whole: type) -> type:
    """The class itself, which does not insist on parts that are left out."""

    def check(self: Any, name: str, argument: Any) -> Any:
        if isinstance(argument, _LeftOut):
            return _LeftOut
        return whole.check_argument_for_proper_class(self, name, argument)  # type: ignore[attr-defined]

    return type(whole.__name__, (whole,), {"check_argument_for_proper_class": check})


@contextmanager
def _without_num2words(whole: type) -> Iterator[None]:
    """SmolVLM's processor insists on num2words, with which it counts the frames of videos."""
    module = sys.modules[whole.__module__]
    missing = getattr(module, "num2words", whole) is None
    if missing:
        module.num2words = _LeftOut  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if missing:
            module.num2words = None  # type: ignore[attr-defined]
