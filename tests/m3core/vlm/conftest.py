"""A random model of each family, written and loaded once for all tests of a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.utils import is_torchvision_available

from m3router.m3core.vlm import FAMILIES, load_vlm
from m3router.m3core.vlm.model import VisionLanguageModel
from m3router.m3core.vlm.tiny import save_tiny


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    known: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if FAMILIES[name].torchvision and not is_torchvision_available():
            pytest.skip(f"{FAMILIES[name].title} needs torchvision")
        if name not in known:
            known[name] = save_tiny(name, tmp_path_factory.mktemp(name))
        return known[name]

    return folder


@pytest.fixture(scope="session")
def model_of(folder_of) -> Callable[[str], VisionLanguageModel]:
    known: dict[str, VisionLanguageModel] = {}

    def model(name: str) -> VisionLanguageModel:
        folder = folder_of(name)
        if name not in known:
            known[name] = load_vlm(str(folder), device="cpu", max_new_tokens=6)
        return known[name]

    return model


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        spots = np.random.default_rng(seed).integers(
            0, 255, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8
        )
        return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)

    return make
