"""Which patches a visual token of MQT-LLaVA attends to in an image: Grad-CAM (Figure 4 of MQT).

The authors publish the figure but not its code. Implemented is Grad-CAM itself (Selvaraju et al.,
ICCV 2017, equations 1 and 2), with the tower's patch tokens as the activation maps and the
token's Euclidean length as the score, since a visual token has no class to score.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from m3router.data.errors import MismatchError
from m3router.m3core.matryoshka.models.mqt import MqtLlava
from m3router.m3core.matryoshka.models.query_abstractor import QueryAbstractor


def grad_cam(
    abstractor: QueryAbstractor, patches: torch.Tensor, tokens: Sequence[int]
) -> torch.Tensor:
    """Heat maps of chosen visual tokens over the patches of one image.

    With A the patch tokens, one activation map for each of their W channels, and y the length of
    the chosen visual token: a channel weighs the mean of dy / dA over the patches (equation 1),
    and the map is the positive part of the weighted sum of the channels (equation 2).

    Args:
        abstractor: The query transformer.
        patches: Tower tokens of the image, (S * S, W).
        tokens: Indices of the wanted visual tokens, from 0; T of them.

    Returns:
        (T, S, S), at least 0, not normalised; of the dtype of ``patches``.

    Raises:
        MismatchError: If no token is named or one does not exist.
    """
    wrong = [token for token in tokens if not 0 <= token < abstractor.queries]
    if wrong or not tokens:
        raise MismatchError(
            f"name the visual tokens to show by their indices from 0 to {abstractor.queries - 1}, "
            f"got {list(tokens)}"
        )
    with torch.inference_mode(False), torch.enable_grad():
        # One copy of the image for each token, so that one backward pass serves them all.
        maps = patches.detach().clone().expand(len(tokens), -1, -1).clone().requires_grad_()
        outputs = abstractor(maps)  # (T, Q, D)
        chosen = outputs[torch.arange(len(tokens)), torch.tensor(tokens)]  # (T, D)
        (slopes,) = torch.autograd.grad(chosen.norm(dim=-1).sum(), maps)  # (T, S * S, W)
    weights = slopes.mean(1, keepdim=True)  # equation 1
    heat = (weights * patches).sum(-1).relu()  # equation 2
    return heat.unflatten(-1, (abstractor.side, abstractor.side))


def token_heat_maps(model: MqtLlava, image: Image.Image, tokens: Sequence[int]) -> torch.Tensor:
    """Heat maps of chosen visual tokens over the square of an image that the model sees.

    Args:
        model: The model.
        image: An RGB image.
        tokens: Indices of the wanted visual tokens, from 0; T of them.

    Returns:
        (T, S, S), float32 on the CPU, at least 0, not normalised.

    Raises:
        MismatchError: If no token is named or one does not exist.
    """
    with torch.no_grad():
        (patches,) = model.patches([image])
    return grad_cam(model.abstractor, patches, tokens).float().cpu()
