"""What an image costs at every option of a vision-language model, without the model's weights.

Tokens and patches come from the real image processor, operations from
:mod:`m3router.m3core.cost.vision_language`. ``config.json`` suffices: what else is not there is
taken from the family's published files, and said.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from transformers import AutoConfig

from m3router.data.errors import ModelError
from m3router.data.registry import unknown_name
from m3router.m3core.checkpoints.places import read_json, resolve
from m3router.m3core.cost.vision_language import VisionLanguageShape
from m3router.m3core.options import options_named
from m3router.m3core.vlm.families import FAMILIES, Options
from m3router.m3core.vlm.preparing import Preparer
from m3router.m3core.vlm.probing import check_keywords
from m3router.m3core.vlm.processors import load_processor
from m3router.m3core.vlm.tiny import TINY, Blueprint, Sizes, make_tokenizer, save_processor

CONFIG = "config.json"
_IMAGE_PROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_SMALL = {".json", ".jinja", ".model", ".txt"}


@dataclass(frozen=True, kw_only=True)
class OptionCost:
    """What one answer costs at an option.

    Attributes:
        option: Name of the option.
        image_tokens: Tokens that stand for the image in the prompt.
        tower_flops: Operations of vision tower and connector.
        language_flops: Operations of the language model.
    """

    option: str
    image_tokens: int
    tower_flops: float
    language_flops: float

    @property
    def flops(self) -> float:
        """Operations of both."""
        return self.tower_flops + self.language_flops

    @property
    def tower_share(self) -> float:
        """The tower's part of all operations, in [0, 1]."""
        return self.tower_flops / self.flops


@dataclass(frozen=True, kw_only=True)
class VisualBudgets:
    """A vision-language model without its weights.

    Attributes:
        title: What people call its family.
        shape: Its sizes.
        options: Option's name -> keyword arguments of the image processor.
        preparer: Counts tokens and patches.
        markers: Whether tokens around the visual ones are counted, too.
        assumed: What was not there and was taken from the family, as sentences.
    """

    title: str
    shape: VisionLanguageShape
    options: Options
    preparer: Preparer
    markers: bool
    assumed: tuple[str, ...]

    def costs(
        self, size: tuple[int, int], *, text_tokens: int, answer_tokens: int
    ) -> list[OptionCost]:
        """What an image costs at every option.

        Args:
            size: Width and height in pixels.
            text_tokens: Tokens of the prompt beside those of the image.
            answer_tokens: Tokens of the answer, at least 1.

        Raises:
            ImageError: If the image processor refuses an image of this size.
        """
        found = []
        for option in self.options:
            counts = self.preparer.count(size, option)
            tokens = counts.image_tokens if self.markers else counts.visual_tokens
            tower = self.shape.tower_flops(counts.views, counts.visual_tokens)
            language = self.shape.language_flops(tokens + text_tokens, answer_tokens)
            found.append(
                OptionCost(
                    option=option,
                    image_tokens=tokens,
                    tower_flops=tower,
                    language_flops=language,
                )
            )
        return found


def read_budgets(name: str, *, options: Options | None = None) -> VisualBudgets:
    """Read a vision-language model's options and sizes.

    Args:
        name: A folder with a ``config.json``, such a file alone, or a hub id, of which only small
            files are downloaded.
        options: Option's name -> keyword arguments of the image processor, the coarsest first;
            None for the family's own ladder.

    Raises:
        ModelError: If it cannot be found or read, is of no known family, or its image processor
            needs something that is not installed.
        MismatchError: If an option names an unknown argument of the image processor.
    """
    place = Path(name) if Path(name).is_file() else resolve(name, weights=False)
    config = read_json(place if place.is_file() else place / CONFIG)
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ModelError(
            f"{name}: {unknown_name('model_type', kind, FAMILIES)} A Matryoshka model is named by "
            "its folder"
        )
    shape = VisionLanguageShape.of(config)
    parsed = AutoConfig.for_model(**config)
    plan, family = TINY[kind](Sizes()), FAMILIES[kind]
    with tempfile.TemporaryDirectory() as folder:
        given = _copied(place, Path(folder))
        assumed = _completed(Path(folder), given, plan, parsed)
        processor, _ = load_processor(Path(folder), family)
    ladder = dict(family.ladder(processor) if options is None else options)
    options_named(ladder)
    check_keywords(processor.image_processor, ladder)
    markers = not given.isdisjoint(_TOKENIZER)
    if not markers:
        token = plan.ids.get("image_token_id") or plan.ids["image_token_index"]
        own = processor.tokenizer.convert_tokens_to_ids(token)
        parsed = SimpleNamespace(image_token_id=own, vision_config=parsed.vision_config)
    return VisualBudgets(
        title=family.title,
        shape=shape,
        options=ladder,
        preparer=Preparer(processor, family, parsed, ladder),
        markers=markers,
        assumed=tuple(assumed),
    )


def _copied(place: Path, folder: Path) -> set[str]:
    """Copy a model's small files; what is beside a file that was named alone is not its own."""
    if place.is_file():
        shutil.copyfile(place, folder / CONFIG)
        return {CONFIG}
    small = {one for one in place.iterdir() if one.is_file() and one.suffix in _SMALL}
    for one in small:
        shutil.copyfile(one, folder / one.name)
    return {one.name for one in small}


def _completed(folder: Path, given: set[str], plan: Blueprint, config: Any) -> list[str]:
    """Write what is not there, from the family's published files; sentences on what it was."""
    kind, title = config.model_type, FAMILIES[config.model_type].title
    assumed = []
    with tempfile.TemporaryDirectory() as made:
        save_processor(_sized(plan, kind, config), Path(made))
        missing = {one.name for one in Path(made).iterdir()} - given
        if not given.isdisjoint((_IMAGE_PROCESSOR, _PROCESSOR)):
            missing -= {_IMAGE_PROCESSOR, _PROCESSOR}
        else:
            assumed.append(f"The image processor is assumed to be {title}'s published one.")
        if not given.isdisjoint(_TEMPLATES):
            missing -= set(_TEMPLATES)
        for name in missing:
            shutil.copyfile(Path(made) / name, folder / name)
    if given.isdisjoint(_TOKENIZER):
        make_tokenizer(plan).save_pretrained(folder)
        assumed.append("There is no tokenizer: marks before and behind an image are not counted.")
    return assumed


def _sized(plan: Blueprint, kind: str, config: Any) -> Blueprint:
    """A family's image processor for towers of a configuration's sizes."""
    if kind not in _SIZED:
        return plan
    image, processor = _SIZED[kind](config)
    kind_of_image, image_before = plan.image_processor
    kind_of_all, all_before = plan.processor
    changed = {
        "image_processor": (kind_of_image, {**image_before, **image}),
        "processor": (kind_of_all, {**all_before, **processor}),
    }
    return Blueprint(**{**vars(plan), **changed})


Settings = tuple[dict[str, Any], dict[str, Any]]
"""Of the image processor and of the processor."""


def _square(side: Any) -> dict[str, int]:
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return {"height": height, "width": width}


def _sized_qwen(config: Any) -> Settings:
    vision = config.vision_config
    names = {"patch_size": "patch_size", "merge_size": "spatial_merge_size"}
    return {name: getattr(vision, own) for name, own in names.items()}, {}


def _sized_gemma3(config: Any) -> Settings:
    return {"size": _square(config.vision_config.image_size)}, {
        "image_seq_length": config.mm_tokens_per_image
    }


def _sized_internvl(config: Any) -> Settings:
    return {"size": _square(config.vision_config.image_size)}, {
        "image_seq_length": config.image_seq_length
    }


def _sized_smolvlm(config: Any) -> Settings:
    side = config.vision_config.image_size
    patches = (side // config.vision_config.patch_size) ** 2
    image = {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}
    return image, {"image_seq_len": patches // config.scale_factor**2}


def _sized_llava_onevision(config: Any) -> Settings:
    vision = config.vision_config
    image = {
        "size": _square(vision.image_size),
        "image_grid_pinpoints": config.image_grid_pinpoints,
    }
    return image, {"num_image_tokens": math.floor(vision.image_size / vision.patch_size) ** 2}


_SIZED: Mapping[str, Callable[[Any], Settings]] = MappingProxyType(
    {
        "gemma3": _sized_gemma3,
        "internvl": _sized_internvl,
        "llava_onevision": _sized_llava_onevision,
        "qwen2_5_vl": _sized_qwen,
        "qwen3_vl": _sized_qwen,
        "smolvlm": _sized_smolvlm,
    }
)
"""Families whose image processors follow sizes of the configuration."""
