"""Questions about images with words in smaller and smaller cells, for the stand-in to answer.

python questions.py FOLDER
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from m3router.m3core.endpoint.stand_in import coded_image

WORDS = ("apple", "bread", "chair", "dream", "eagle", "flame", "grape", "house", "ivory", "joker")
NUMBER = 160


def main(folder: Path) -> None:
    """Write examples.jsonl and images/."""
    draw = random.Random(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "examples.jsonl").open("w") as file:
        for number in range(NUMBER):
            word, cells = draw.choice(WORDS), draw.choice((8, 8, 16, 32))
            name = f"{number}.png"
            coded_image(word, cells=cells, size=(640, 640)).save(folder / "images" / name)
            line = {"id": str(number), "image": name, "question": "Which word is written here?"}
            file.write(json.dumps({**line, "answers": [word]}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
