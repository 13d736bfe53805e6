"""MQT-LLaVA: a LLaVA whose visual tokens are the first m outputs of a query transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import (
    BaseImageProcessor,
    CLIPVisionModel,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from m3router.data.errors import MismatchError
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.answering import AnsweringModel
from m3router.m3core.matryoshka.base import ANSWER_TOKENS, VisualEncoding
from m3router.m3core.matryoshka.models.query_abstractor import QueryAbstractor
from m3router.m3core.matryoshka.preprocessing import PAD, Preparer, aspect_note
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.matryoshka.scales import ScaleGrid


@dataclass(frozen=True, kw_only=True)
class QueryEncoding:
    """What the query transformer made of one image, once for all numbers of tokens.

    Attributes:
        features: The outputs of all queries, (Q, D). They stand in no grid: the first ones were
            trained to hold most.
    """

    features: torch.Tensor

    @property
    def views(self) -> int:
        """The tower saw the image once."""
        return 1

    def tokens(self, scale: int) -> int:
        """``scale`` itself."""
        return scale

    def at(self, scale: int) -> torch.Tensor:
        """The first ``scale`` outputs, (scale, D).

        Raises:
            MismatchError: If there are not so many.
        """
        if not 1 <= scale <= len(self.features):
            raise MismatchError(
                f"{scale} visual tokens are not available: this image has any number from 1 to "
                f"{len(self.features)}"
            )
        return self.features[:scale]

    def detail(self, coarse: int, fine: int, *, regions: int) -> torch.Tensor:
        """How far the tokens that a finer scale adds lie from the mean of those already there.

        Args:
            coarse: The coarser scale.
            fine: The finer scale.
            regions: Not used: tokens have no place, so each new one is a region of its own.

        Returns:
            (fine - coarse, 1, D), float32.
        """
        tokens = self.at(fine).float()
        return (tokens[coarse:] - tokens[:coarse].mean(0))[:, None]


class MqtLlava(AnsweringModel):
    """A language model that reads the first m of an image's query outputs.

    It answers at every m from 1 to the number of queries; its grid is the choice of m that it is
    labelled and routed at.

    Args:
        model: The language model, in evaluation mode.
        tower: The vision tower, in evaluation mode.
        abstractor: The query transformer, in evaluation mode.
        tokenizer: The language model's tokenizer.
        image_processor: Resizes and normalises.
        template: Prompt template.
        grid: Scales, without a side.
        name: How the user called the model.
        revision: Hash of its files.
        layer: Which of the tower's hidden states the queries read.
        max_new_tokens: Longest answer.
        context: Longest prompt and answer together; None takes the language model's positions.
        aspect: How images are made square, one of
            :data:`m3router.m3core.matryoshka.preprocessing.ASPECTS`.

    Raises:
        MismatchError: If the grid names more tokens than there are queries.
    """

    def __init__(
        self,
        *,
        model: LlamaForCausalLM,
        tower: CLIPVisionModel,
        abstractor: QueryAbstractor,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
        template: PromptTemplate,
        grid: ScaleGrid,
        name: str,
        revision: str,
        layer: int = -2,
        max_new_tokens: int = ANSWER_TOKENS,
        context: int | None = None,
        aspect: str = PAD,
    ) -> None:
        abstractor.check(grid.finest)
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            template=template,
            grid=grid,
            shape=ModelShape.of_parts(
                model.config,
                tower.config,
                connector=abstractor.cost(),
                tied=bool(model.config.tie_word_embeddings),
            ),
            visual={"queries": "the first"} | aspect_note(aspect),
            name=name,
            revision=revision,
            max_new_tokens=max_new_tokens,
            context=context,
        )
        self.tower = tower
        self.abstractor = abstractor
        self.image_processor = image_processor
        self.aspect = aspect
        self.prepare = Preparer(image_processor, tower.config.image_size, aspect)
        self.layer = layer

    def check_scale(self, scale: int) -> int:
        """Return a number of tokens that the queries can give, in the grid or not.

        Raises:
            MismatchError: If there are not so many queries.
        """
        return self.abstractor.check(scale)

    def patches(self, images: Sequence[Image.Image | torch.Tensor]) -> torch.Tensor:
        """What the tower sees of images, at least one, (B, S * S, W), without CLS."""
        pixels = torch.stack([self.prepared(image) for image in images])
        pixels = pixels.to(self.tower.device, self.tower.dtype)
        return self.tower(pixels, output_hidden_states=True).hidden_states[self.layer][:, 1:]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image | torch.Tensor]) -> list[VisualEncoding]:
        """Run tower and queries once for each image; see :class:`MultiScaleModel`."""
        if not images:
            return []
        outputs = self.abstractor(self.patches(images)).to(self.model.device)
        return [QueryEncoding(features=one) for one in outputs]
