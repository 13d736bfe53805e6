"""Small image encoders: CLIP and SigLIP towers, from folders with and without a text tower."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from m3router.data.errors import ModelError
from m3router.m3core.encoders import load_encoder

TOWER = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 4,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 8,
    "projection_size": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def save(folder, kind):
    torch.manual_seed(0)
    if kind == "siglip":
        model = SiglipModel(SiglipConfig(vision_config=TOWER, text_config=TEXT))
        tower = model.vision_model
    else:
        model = tower = SiglipVisionModel(SiglipVisionConfig(**TOWER))
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return tower.eval()


@pytest.mark.parametrize("kind", ["siglip", "siglip_vision_model"])
def test_siglip_towers_give_the_tokens_of_the_last_layer_but_one(tmp_path, kind):
    tower = save(tmp_path, kind)
    encoder = load_encoder(str(tmp_path), device="cpu")
    assert encoder.grid.scales == (1, 4, 16, 64)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 48, 3), np.uint8))
    (encoding,) = encoder.encode([image])
    stretched = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
    pixels = torch.from_numpy((stretched - 0.5) / 0.5).permute(2, 0, 1)[None]
    with torch.inference_mode():
        hidden = tower(pixels, output_hidden_states=True).hidden_states[-2][0]
    assert encoding.features.shape == hidden.shape == (64, 16)
    torch.testing.assert_close(encoding.features, hidden, atol=1e-4, rtol=1e-4)


def test_a_tower_that_lacks_weights_is_refused(tmp_path):
    save(tmp_path, "siglip_vision_model")
    file = tmp_path / "model.safetensors"
    kept = {name: one for name, one in load_file(file).items() if "embeddings" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights of a vision tower"):
        load_encoder(str(tmp_path))
