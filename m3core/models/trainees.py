"""What the Matryoshka objective asks of a family, and the two families that answer.

Notation for shapes: ``B`` images, ``P`` patches, ``Dv`` width of the tower, ``V`` visual tokens of
the finest scale, ``D`` width of the language model.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from data.errors import MismatchError
from m3core.models.llava import LlavaM3
from m3core.models.mqt import MqtLlava
from m3core.models.parts import project, tower_tokens
from m3core.pooling import AVERAGE, average_pool
from m3core.scales import check_nesting


class Trainee(Protocol):
    """A model in training.

    Attributes:
        module: Holds every weight.
    """

    module: nn.Module

    @property
    def tower(self) -> Any:
        """The vision tower, a Hugging Face model."""
        ...

    @property
    def connector(self) -> nn.Module:
        """What stands between tower and language model."""
        ...

    @property
    def language(self) -> Any:
        """The decoder without its head, a Hugging Face model."""
        ...

    @property
    def embeddings(self) -> nn.Module:
        """From ids to the decoder's inputs."""
        ...

    @property
    def head(self) -> nn.Module:
        """From the decoder's outputs to logits."""
        ...

    def check_scale(self, scale: int) -> int:
        """Return a scale that can be trained.

        Raises:
            MismatchError: If the model has no such scale.
        """
        ...

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode once for all scales, with gradients.

        Args:
            images: Normalised pixels (B, 3, H, W), or tower tokens (B, P, Dv) computed earlier.

        Returns:
            (B, V, D), behind the connector.
        """
        ...

    def at(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """The visual tokens of a scale, (B, scale, D), from what :meth:`encode` gave."""
        ...


class LlavaTrainee:
    """A stock LLaVA: tokens are averaged behind the projector (M3, section 3.1).

    Args:
        model: The model.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        self.module = model

    @property
    def tower(self) -> Any:
        """See :class:`Trainee`."""
        return self.module.model.vision_tower

    @property
    def connector(self) -> nn.Module:
        """See :class:`Trainee`."""
        return self.module.model.multi_modal_projector

    @property
    def language(self) -> Any:
        """See :class:`Trainee`."""
        return self.module.model.language_model

    @property
    def embeddings(self) -> nn.Module:
        """See :class:`Trainee`."""
        return self.module.get_input_embeddings()

    @property
    def head(self) -> nn.Module:
        """See :class:`Trainee`."""
        return self.module.lm_head

    def check_scale(self, scale: int) -> int:
        """See :class:`Trainee`."""
        vision = self.module.config.vision_config
        side = vision.image_size // vision.patch_size
        check_nesting((scale, side**2), side)
        return scale

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`Trainee`."""
        tokens = tower_tokens(self.module, images) if images.dim() == 4 else images
        return project(self.module, tokens)

    def at(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """See :class:`Trainee`."""
        return average_pool(features, scale)


class MqtTrainee:
    """An MQT-LLaVA: a scale is the first so many query outputs.

    Args:
        model: The model, whose three parts are trained in place.
    """

    def __init__(self, model: MqtLlava) -> None:
        self.module: Any = nn.ModuleDict(
            {"model": model.model, "tower": model.tower, "abstractor": model.abstractor}
        )
        self._layer = model.layer

    @property
    def tower(self) -> Any:
        """See :class:`Trainee`."""
        return self.module["tower"]

    @property
    def connector(self) -> nn.Module:
        """See :class:`Trainee`."""
        return self.module["abstractor"]

    @property
    def language(self) -> Any:
        """See :class:`Trainee`."""
        return self.module["model"].model

    @property
    def embeddings(self) -> nn.Module:
        """See :class:`Trainee`."""
        return self.module["model"].get_input_embeddings()

    @property
    def head(self) -> nn.Module:
        """See :class:`Trainee`."""
        return self.module["model"].lm_head

    def check_scale(self, scale: int) -> int:
        """See :class:`Trainee`."""
        return self.module["abstractor"].check(scale)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`Trainee`. All queries; each output depends on its own query alone."""
        if images.dim() == 4:
            output = self.module["tower"](images, output_hidden_states=True)
            images = output.hidden_states[self._layer][:, 1:]
        return self.module["abstractor"](images)

    def at(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """See :class:`Trainee`."""
        return features[:, :scale]


def trainee_of(model: object) -> LlavaTrainee | MqtTrainee:
    """The trainable side of a loaded model; training changes that model's own weights.

    Raises:
        MismatchError: If its family cannot be trained, or it pools in another way than M3.
    """
    if isinstance(model, MqtLlava):
        return MqtTrainee(model)
    if isinstance(model, LlavaM3):
        if model.pooling != AVERAGE:
            raise MismatchError(
                f"{model.name} is used with pooling {model.pooling!r}, and training averages; "
                "load it without a pooling"
            )
        return LlavaTrainee(model.model)
    raise MismatchError(
        f"a {type(model).__name__} cannot be trained: training knows LLaVA-1.5-type models "
        "(LlavaM3) and MQT-LLaVA (MqtLlava); load a checkpoint of one of these"
    )
