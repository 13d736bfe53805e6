"""What LLaVA and LLaVA-NeXT share: stock Hugging Face classes, filled from either layout.

Only stock classes are filled: transformers skips its key mappings for subclasses and leaves
their weights random with nothing but a printed report.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import save_torch_state_dict
from transformers import (
    BaseImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.checkpoint import Checkpoint, Layout, is_original
from m3router.m3core.checkpoints.families.base import Family, Sizes, Source
from m3router.m3core.checkpoints.file_checks import UNREADABLE
from m3router.m3core.checkpoints.parts import load_image_processor, load_tokenizer
from m3router.m3core.checkpoints.placement import DTYPES, Placement, own
from m3router.m3core.checkpoints.places import revision_of
from m3router.m3core.checkpoints.processors import write_processor
from m3router.m3core.checkpoints.tensors import (
    HUGGING_FACE,
    ORIGINAL,
    Tensors,
    account,
    as_published,
    folded,
    read_tensors,
    rename,
)
from m3router.m3core.checkpoints.tower import Tower, read_with_tower, tower_sizes
from m3router.m3core.checkpoints.translation import IMAGE_TOKEN, translated, valid_config
from m3router.m3core.checkpoints.writing import replaced, whole_folder
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import ScaleGrid

PAD_TOKEN = "<pad>"
MULTIPLE = 64
"""Embedding rows are padded to a multiple of this (llava-hf: 32 000 becomes 32 064)."""
VOCABULARY_KEYS = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_PROJECTOR = "model.multi_modal_projector."


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
    def settings(self) -> dict[str, Any]:
        """The config's entry ``matryoshka``."""
        return dict(getattr(self.config, "matryoshka", None) or {})

    @property
    def more_folders(self) -> list[Path]:
        """Folders beside the checkpoint's own that were read."""
        return [self.tower.folder] if self.tower and self.tower.folder else []


class StockFamily(Family):
    """A family around one stock Hugging Face class.

    Attributes:
        config_class: Of the stock model.
        stock_class: The stock model.
        processor_class: Name of its processor, which plain transformers asks for.
        aspects: Values of ``image_aspect_ratio`` in the original layout; None means no entry.
    """

    config_class: ClassVar[Any]
    stock_class: ClassVar[Any]
    processor_class: ClassVar[str]
    aspects: ClassVar[tuple[str | None, ...]]
    loads = (
        "'llava_llama' (the original LLaVA layout with a Llama or Vicuna inside), and 'llava' and "
        "'llava_next' in either layout"
    )

    @abstractmethod
    def own_config(self, checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a config in the original layout says beyond what all stock families share.

        Returns:
            Further arguments of :attr:`config_class`, and entries of ``matryoshka``.

        Raises:
            ModelError: If it is not valid.
        """

    @abstractmethod
    def plain_image_processor(
        self, config: Any, own: BaseImageProcessor, checkpoint: Checkpoint
    ) -> BaseImageProcessor:
        """The image processor with which plain transformers shows images as this project does.

        Args:
            config: Of the model, in the Hugging Face layout.
            own: What this project normalises with.
            checkpoint: Says how images are made square.
        """

    def implied(self, config: Any) -> Tensors:
        """Tensors that the original layout leaves out and the stock class wants all the same."""
        return {}

    def recognise(self, folder: Path, config: Mapping[str, Any]) -> Layout | None:
        """The original layout by how images are prepared, Hugging Face's by ``model_type``."""
        if is_original(config):
            return "original" if config.get("image_aspect_ratio") in self.aspects else None
        return "hugging_face" if config.get("model_type") == self.name else None

    def near_miss(self, config: Mapping[str, Any]) -> str | None:
        """The original layout with images prepared in a way that is not built in."""
        if not is_original(config):
            return None
        return (
            f"image_aspect_ratio {config.get('image_aspect_ratio')!r}; this version prepares "
            "images as 'pad' (LLaVA-1.5), 'square' or no entry (the centre is cropped), or "
            "'anyres' (LLaVA-NeXT) do"
        )

    def translate(self, checkpoint: Checkpoint, vision: CLIPVisionConfig) -> Any:
        """The Hugging Face config that describes a checkpoint in the original layout.

        Args:
            checkpoint: In the original layout.
            vision: Config of its tower.

        Returns:
            A config with our entry ``matryoshka``.

        Raises:
            ModelError: If it asks for something that this cannot express; all of it in one error.
        """
        common = translated(checkpoint, vision)
        arguments, settings = self.own_config(checkpoint)
        with valid_config(checkpoint.folder):
            config = self.config_class(**arguments, **common)
        config.matryoshka = {"prompt": "vicuna-1"} | checkpoint.settings | settings
        return config

    def _config(self, checkpoint: Checkpoint) -> Any:
        """The config in Hugging Face's layout."""
        with valid_config(checkpoint.folder):
            return self.config_class.from_pretrained(checkpoint.folder, local_files_only=True)

    def read(self, checkpoint: Checkpoint) -> Contents:
        """Read config and tensors; each tensor has its place and each place its tensor.

        Raises:
            ModelError: If anything is missing, unexpected, of another shape or unreadable.
        """
        folder, tower = checkpoint.folder, None
        if checkpoint.layout == "original":
            raw, tower = read_with_tower(checkpoint)
            config = self.translate(checkpoint, tower.config)
        else:
            raw = read_tensors(folder)
            config = self._config(checkpoint)
        with valid_config(folder), torch.device("meta"):
            skeleton = self.stock_class(config)
        expected = {key: tensor.shape for key, tensor in skeleton.state_dict().items()}
        patterns = ORIGINAL if checkpoint.layout == "original" else HUGGING_FACE
        tensors = rename(raw, patterns, expected=expected, folder=folder)
        if checkpoint.layout == "original":
            implied = _projector(checkpoint, config, tensors) | self.implied(config)
            tensors |= {key: one for key, one in implied.items() if key not in tensors}
        account(expected, tensors, optional=set(skeleton.all_tied_weights_keys), folder=folder)
        return Contents(config=config, tensors=tensors, tower=tower)

    def sizes(self, checkpoint: Checkpoint) -> Sizes:
        """What it costs where an image is seen whole, from configurations alone."""
        config = self.sized_config(checkpoint)
        return Sizes(
            family=self.name, grid=grid_of(checkpoint, config), shape=ModelShape.of(config)
        )

    def sized_config(self, checkpoint: Checkpoint) -> Any:
        """The config of the model that loading would give; reads no weights."""
        if checkpoint.layout == "original":
            config = self.translate(checkpoint, tower_sizes(checkpoint))
        else:
            config = self._config(checkpoint)
        rows = checkpoint.settings.get("vocabulary")
        if rows:
            config.text_config.vocab_size = rows  # what loading cuts a padded vocabulary back to
        return config

    def load(self, source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load a checkpoint of either layout.

        Returns:
            What the models of both stock families are made with, and the entry ``matryoshka``.

        Raises:
            ModelError: If any file or weight is missing, unexpected, damaged or of another shape.
            MismatchError: If the scales do not nest in the tower's grid, or the prompt is unknown.
        """
        checkpoint = source.checkpoint
        contents = self.read(checkpoint)
        config, settings = contents.config, contents.settings
        arguments: dict[str, Any] = {
            "grid": grid_of(checkpoint, config),
            "template": get_template(settings.get("prompt", "vicuna-1")),
            "tokenizer": _tokenizer(checkpoint, config),
            "image_processor": load_image_processor(
                checkpoint, config.vision_config, contents.tower
            ),
            "model": self._filled(checkpoint, contents, source.placement),
            "name": source.name,
            "revision": revision_of(checkpoint.folder, *contents.more_folders),
            "pooling": source.pooling,
        }
        return arguments, settings

    def _filled(self, checkpoint: Checkpoint, contents: Contents, placement: Placement) -> Any:
        """Fill a stock model and put it where it belongs, in evaluation mode.

        A vocabulary that ``m3router convert`` padded is cut back to the tokens that were trained,
        so that original and converted checkpoints give the same logits.

        Raises:
            ModelError: If transformers does not confirm that every weight was loaded.
        """
        tensors, config = dict(contents.tensors), contents.config
        rows = checkpoint.settings.get("vocabulary")
        if rows:
            config.text_config.vocab_size = rows
            config.text_config.pad_token_id = None  # one of the rows that are cut off
            tensors |= {key: tensors[key][:rows] for key in VOCABULARY_KEYS if key in tensors}
        try:
            model, info = self.stock_class.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                output_loading_info=True,
                **placement.keywords(),
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ModelError(
                f"the weights in {checkpoint.folder} cannot be loaded: {error}"
            ) from error
        _confirm(model, info, checkpoint.folder)
        if placement.bits is None and placement.device_map is None:
            model = model.to(placement.device)
        own(model, tensors)
        file = checkpoint.folder / "generation_config.json"
        if checkpoint.layout == "hugging_face" and file.is_file():
            try:
                model.generation_config = GenerationConfig.from_pretrained(
                    checkpoint.folder, local_files_only=True
                )
            except UNREADABLE as error:
                raise ModelError(
                    f"{file} cannot be used: {error}; download the file again"
                ) from error
        return model.eval()

    def convert(self, checkpoint: Checkpoint, destination: Path, *, dtype: str | None) -> None:
        """Write a checkpoint in the Hugging Face layout.

        Every tensor keeps its bits and its number format. As in the published Hugging Face LLaVA,
        the tokenizer gets ``<image>`` and ``<pad>`` and the embeddings are padded to a multiple of
        64. Plain transformers (``AutoProcessor``, ``LlavaForConditionalGeneration``) gives the
        same ids and, at the finest scale, the same answers. NOTE: it joins LLaVA-NeXT's crops by
        ``spatial_unpad`` alone.
        """
        self._write(checkpoint, self.read(checkpoint), destination, dtype=dtype)

    def write_trained(
        self,
        checkpoint: Checkpoint,
        weights: Mapping[str, torch.Tensor],
        destination: Path,
        *,
        scales: Sequence[int],
        dtype: str | None,
    ) -> None:
        """Write the Hugging Face layout, as :meth:`convert` does, with the scales in the config."""
        contents = self.read(checkpoint)
        tensors = replaced(contents.tensors, weights, dtype=dtype, folder=checkpoint.folder)
        contents.config.matryoshka = contents.settings | {"scales": list(scales)}
        contents = dataclasses.replace(contents, tensors=tensors)
        self._write(checkpoint, contents, destination, dtype=None)

    def _write(
        self, checkpoint: Checkpoint, contents: Contents, destination: Path, *, dtype: str | None
    ) -> None:
        config = contents.config
        template = get_template(contents.settings.get("prompt", "vicuna-1"))
        tokenizer = _tokenizer(checkpoint, config)
        processor = load_image_processor(checkpoint, config.vision_config, contents.tower)
        tensors = dict(contents.tensors)
        if checkpoint.layout == "original":
            _add_tokens(tokenizer, config)
            tensors = _padded(tensors, config)
        if dtype is not None:
            tensors = {
                key: tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor
                for key, tensor in tensors.items()
            }
        with whole_folder(destination) as work:
            config.architectures = [self.stock_class.__name__]
            config.dtype = str(tensors[VOCABULARY_KEYS[0]].dtype).removeprefix("torch.")
            config.save_pretrained(work)
            GenerationConfig.from_model_config(config).save_pretrained(work)
            kept = {key: tensor.contiguous() for key, tensor in tensors.items()}
            save_torch_state_dict(as_published(kept), work, metadata={"format": "pt"})
            write_processor(
                work,
                processor_class=self.processor_class,
                config=config,
                tokenizer=tokenizer,
                image_processor=self.plain_image_processor(config, processor, checkpoint),
                template=template,
            )


def grid_of(checkpoint: Checkpoint, config: Any) -> ScaleGrid:
    """The scales of a checkpoint in the grid of its tower."""
    vision = config.vision_config
    return ScaleGrid(scales=checkpoint.scales, side=vision.image_size // vision.patch_size)


def _tokenizer(checkpoint: Checkpoint, config: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(
        checkpoint, rows=config.text_config.vocab_size, image_token=config.image_token_index
    )


def _projector(checkpoint: Checkpoint, config: Any, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The identity behind a projector of one layer, which the original layout leaves out."""
    weight = tensors.get(_PROJECTOR + "linear_1.weight")
    if checkpoint.config.get("mm_projector_type", "linear") != "linear" or weight is None:
        return {}
    width = config.text_config.hidden_size
    return {
        _PROJECTOR + "linear_2.weight": torch.eye(width, dtype=weight.dtype),
        _PROJECTOR + "linear_2.bias": torch.zeros(width, dtype=weight.dtype),
    }


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


def _add_tokens(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """``<image>`` behind the model's vocabulary, ``<pad>`` behind it."""
    rows = config.text_config.vocab_size
    for index in range(len(tokenizer), rows):  # the ids must meet the rows that are added
        tokenizer.add_tokens([f"<unused_{index}>"], special_tokens=True)
    tokenizer.add_tokens([IMAGE_TOKEN, PAD_TOKEN], special_tokens=True)
    tokenizer.pad_token = PAD_TOKEN
    tokenizer.padding_side = "left"
    config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config.text_config.pad_token_id = tokenizer.convert_tokens_to_ids(PAD_TOKEN)


def _padded(tensors: Tensors, config: Any) -> Tensors:
    """Embeddings with rows for the new tokens, each the mean of the old rows.

    A mean of logits never exceeds the largest, so that plain Hugging Face code does not choose a
    padding token either; this project cuts the rows off again when it loads the folder.
    """
    rows = config.text_config.vocab_size
    new = -(-(rows + 2) // MULTIPLE) * MULTIPLE
    padded = dict(tensors)
    for key in VOCABULARY_KEYS:
        if key in tensors:
            mean = tensors[key].float().mean(0, keepdim=True).to(tensors[key].dtype)
            padded[key] = torch.cat([tensors[key], mean.expand(new - rows, -1)])
    config.matryoshka["vocabulary"] = rows
    config.text_config.vocab_size = new
    return padded
