"""What is typed in each session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Something that is typed.

    Attributes:
        said: What a page says before it.
        typed: A shell command.
    """

    said: str
    typed: str


@dataclass(frozen=True)
class Session:
    """A page.

    Attributes:
        title: Its heading.
        said: What it is about.
        steps: What is typed, in order, in one empty folder.
    """

    title: str
    said: str
    steps: tuple[Step, ...]


INSTALLED = """Everything below was typed in an empty folder, after installation:

```bash title="Not run by the tests: installs"
git clone ADDRESS m3router && cd m3router && make install
source .venv/bin/activate && mkdir ../tried && cd ../tried
```
"""

PHOTOGRAPHS = """\
cat > photographs.py <<'END'
import csv
from pathlib import Path

from PIL import Image

from m3router.data.scenes.drawing import render
from m3router.data.scenes.export import TEST_SEEDS
from m3router.data.scenes.questions import ask_about
from m3router.data.scenes.world import make_scene

folder = Path("photographs")
folder.mkdir()
with open("questions.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["image", "question", "answers"])
    for number in range(30):
        scene = make_scene(TEST_SEEDS.start + number)
        Image.fromarray(render(scene)).save(folder / f"{number:02}.png")
        for question in ask_about(scene, 3):
            rows.writerow([f"{number:02}.png", question.text, question.answer])
END
python photographs.py"""

OWN_IMAGES = Session(
    title="Thirty images of one's own, to a verdict",
    said="The embedded model reads drawn scenes only, so thirty of these stand in for somebody's "
    "photographs. The questions are a plain CSV file: an image, a question, and its answer.",
    steps=(
        Step("Thirty images in a folder, and a table of questions:", PHOTOGRAPHS),
        Step("", "ls photographs | wc -l && head -4 questions.csv"),
        Step(
            "The model answers every question at every scale:",
            "m3router label --examples questions.csv --images photographs --out answers",
        ),
        Step("Would routing pay?", "m3router advise answers --images photographs"),
        Step("What is there now:", "ls answers-advice answers-advice/report"),
    ),
)

RUNS = """\
cat > runs.py <<'END'
import hashlib
import json
import random
from pathlib import Path

draw = random.Random(0)
ASKED = {  # what is asked about -> how often it is read with 144, 576 and 2304 visual tokens
    "headline": (0.92, 0.95, 0.95),
    "shop sign": (0.75, 0.88, 0.90),
    "licence plate": (0.35, 0.70, 0.85),
    "label": (0.15, 0.45, 0.80),
    "receipt": (0.05, 0.25, 0.75),
}
lines = {tokens: [] for tokens in (144, 576, 2304)}
for number in range(800):
    thing, chances = draw.choice(list(ASKED.items()))
    luck = draw.random()
    for (tokens, samples), chance in zip(lines.items(), chances):
        right = luck < chance
        samples.append(
            {
                "doc_id": number,
                "target": f"text {number}",
                "filtered_resps": [f"text {number}" if right else "unreadable"],
                "doc_hash": hashlib.sha256(str(number).encode()).hexdigest(),
                "exact_match": float(right),
                "input": f"What is written on the {thing} in image {number}?",
            }
        )
for tokens, samples in lines.items():
    folder = Path("runs", str(tokens), "maker__model-7b")
    folder.mkdir(parents=True)
    text = "".join(json.dumps(one) + "\\n" for one in samples)
    (folder / "20260301_101500_samples_textvqa_val.jsonl").write_text(text)
    config = {"model": "model", "model_args": f"pretrained=maker/model-7b,tokens={tokens}"}
    (folder / "20260301_101500_results.json").write_text(json.dumps({"config": config}))
END
python runs.py"""

LMMS_EVAL = Session(
    title="A folder of lmms-eval runs, to a verdict",
    said="Somebody evaluated a model with lmms-eval and `--log_samples` at 144, 576 and 2 304 "
    "visual tokens. The runs here are made by a script and laid out as lmms-eval does; they are no "
    "measurement of any model.",
    steps=(
        Step("The runs:", RUNS),
        Step("", "find runs -type f | sort"),
        Step(
            "Would routing pay? The folders' names are the options and, as numbers, their costs:",
            'm3router advise runs --cost-unit "visual tokens"',
        ),
        Step(
            "The same again is only looked at, and its numbers can be had one by one:",
            "m3router evaluate runs-advice --draws 200 | grep held-out",
        ),
        Step("What somebody gets who mistypes:", "m3router advise run --cost-unit tokens"),
    ),
)

SESSIONS = {"own-images": OWN_IMAGES, "lmms-eval": LMMS_EVAL}
"""Name of the page in ``docs/sessions/`` -> the session."""
