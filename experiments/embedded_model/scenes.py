"""Makes what the embedded model's images are compared with: `router/monitoring/checkpoint`.

```
python -m experiments.embedded_model.scenes
```

Draws scenes that neither training nor tests use, makes some of them larger or smaller or keeps them
as JPEG, and learns what their pixels look like. A quarter of a minute on one core.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.numpy import save

from m3router.data.manifest import atomic_write_bytes
from m3router.data.scenes.drawing import render
from m3router.data.scenes.export import VALIDATION_SEEDS
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.router.monitoring.familiarity import Aspect
from m3router.router.monitoring.scenes import FILE, REVISION, scene_cues

LEARNED, REFERENCES, HELD_OUT = 600, 500, 999
FIRST = VALIDATION_SEEDS.start + 5_000_000
SMALLEST, LARGEST = 0.75, 4.0
"""Times the size of a scene."""
QUALITIES = (60, 97)
"""Of a JPEG."""
_FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def varied(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A scene as somebody may have kept it."""
    if random.random() < 0.5:
        times = np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST)))
        side = round(image.width * times)
        image = image.resize((side, side), _FILTERS[random.integers(len(_FILTERS))])
    if random.random() < 0.5:
        kept = io.BytesIO()
        image.save(kept, "JPEG", quality=int(random.integers(*QUALITIES)))
        image = Image.open(kept).convert("RGB")
    return image


def cues(seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Of one scene after the other."""
    random = np.random.default_rng(seed)
    for number in range(LEARNED + REFERENCES + HELD_OUT):
        yield scene_cues(varied(Image.fromarray(render(make_scene(FIRST + number))), random))


def made(revision: str, *, seed: int) -> bytes:
    """The file."""
    all_cues = np.stack(list(cues(seed)))
    learned, references, held_out = np.split(all_cues, [LEARNED, LEARNED + REFERENCES])
    columns = np.arange(all_cues.shape[1])
    aspect = Aspect.learn("scene", "cues", columns, learned, references)
    stored = aspect.arrays()
    read = Aspect.of_arrays("scene", "cues", stored)
    scores = np.sort([read.score(one) for one in held_out])
    told = np.frombuffer(revision.encode("ascii"), dtype=np.uint8)
    return save({**stored, "scores": scores, REVISION: told})


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    path = Path(__file__).resolve().parents[2] / "router" / "monitoring" / FILE
    path.parent.mkdir(exist_ok=True)
    content = made(load_model("embedded", device="cpu").revision, seed=arguments.seed)
    atomic_write_bytes(path, content)
    print(f"{path}: {len(content)} bytes")


if __name__ == "__main__":
    main()
