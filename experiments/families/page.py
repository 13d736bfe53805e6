"""The page on families and options, from recorded counts and published sizes.

    python -m experiments.families.page [--check]

Writes ``docs/families.md``; with ``--check`` it only says whether the page is what the recorded
counts would give. Nothing is measured or counted here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.families.record import CONFIGS, COUNTS
from m3router.data.manifest import atomic_write_text
from m3router.m3core.cost.operations import StackShape
from m3router.m3core.cost.vision_language import VisionLanguageShape

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
LARGE, SMALL = "1600x1200", "300x200"
TEXT_TOKENS, ANSWER_TOKENS = 60, 10
MIX = (0.50, 0.25, 0.15, 0.10)
"""An example of what a router sends to four options, from the coarsest to the finest."""

LOOK = StackShape(
    layers=12, hidden=768, intermediate=3072, heads=12, kv_heads=12, head_dim=64, gated=False
)
LOOK_PATCHES, LOOK_VALUES = 196, 3 * 16**2
"""SigLIP B/16 at 224 pixels: the small encoder that a router looks with."""

INTRODUCTION = """\
# Families and their options

Written by `python -m experiments.families.page` from
[counts of the real image processors](../experiments/families/results/counts.json) and
[sizes of public models](../experiments/families/configs); do not edit it by hand. **All operations
here are computed, none is a measured time.** The sizes were entered by hand, as the models' files
could not be fetched when this was written: trust `m3router cost` on the real file more. For a model
of your own, `m3router cost --model FOLDER --image 1600x1200` prints the same table: `config.json`
suffices, a hub id is fetched without its weights.

## What an option gives

The default options of each family, the settings of its image processor that they stand for, and
the visual tokens of an image of {large} and one of {small} pixels. An option is an upper bound:
options tie on small images, and some families enlarge small images. So costs are kept for every
question and option, never for an option alone.

"""
COSTS = """
## What they cost

An image of {large} pixels, {text} text tokens in the prompt and {answer} tokens of the answer, in
10^12 operations (a multiply and an add are two). *Tower* is the vision tower and what connects it
to the language model, *language* is the prompt, every token of the answer, and their logits.

"""
SAVINGS = """
## What routing can save

With an *illustrative* mix of {mix} % of the questions from the coarsest to the finest of four
options, at {large} pixels. *Before encoding*: the router looks with a small encoder of its own
(SigLIP B/16 at 224 pixels, {look} TFLOP, counted here) and the tower then runs at the chosen option
only. *After encoding*: the tower always runs at the finest option and only the language model is
spared, as with a Matryoshka model. What your questions need is not known from here: label some,
and `m3router evaluate` says what routing saves at which loss.

"""
NOTES = """
## What is counted

Products of matrices, and attention over the full score matrix at prefill, as eager and `sdpa`
attention compute it; a sliding window counts while decoding. Norms, activations and look-ups are
left out. Tests compare every family with torch's `FlopCounterMode` on a small random model, equal
to the operation; where one side counts what the other does not, the test says what. The prefill of
every model above was compared at full size as well, equal to the operation, and all but Gemma 4
have as many weights as is said of the published models.

- **Gemma 4 E2B and E4B** share keys between layers, and transformers reads the prompt in the
  sharing layers with its last token only. {shared} A server that does not skip them pays that.
- **Qwen2.5-VL** attends within windows in most of its tower; windows that an image's edge cuts are
  counted as full ones (under 1 %).
- **MiniCPM-V 4.6**: transformers 5.23 computes the logits of the whole prompt, which no answer
  needs; they are not counted. The triangular systems of its linear attention (under 1 % of a
  layer) are not either.
- **LFM2-VL and MiniCPM-V 4.6** have no table of costs, because no configuration of a published
  model was at hand; `m3router cost` computes it from theirs.
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Operations of an answer at an option.

    Attributes:
        option: Its name.
        tokens: Visual tokens.
        tower: Operations of the tower.
        language: Operations of the language model.
    """

    option: str
    tokens: int
    tower: float
    language: float

    @property
    def both(self) -> float:
        """All operations."""
        return self.tower + self.language


def page() -> str:
    """The whole page."""
    models = json.loads(COUNTS.read_text(encoding="utf-8"))["models"]
    known = {name: one for name, one in models.items() if (CONFIGS / f"{name}.json").is_file()}
    costs = {name: _costs(name, one) for name, one in known.items()}
    words = {
        "large": _pixels(LARGE),
        "small": _pixels(SMALL),
        "text": TEXT_TOKENS,
        "answer": ANSWER_TOKENS,
        "mix": " / ".join(f"{100 * share:.0f}" for share in MIX),
        "look": _tera(_look()),
        "shared": " ".join(_shared(name, costs[name]) for name in known if "-E" in name),
    }
    parts = [
        INTRODUCTION,
        _lines(_options(models)),
        COSTS,
        _lines(_table(costs)),
        SAVINGS,
        _lines(_savings(costs)),
        NOTES,
    ]
    return "".join(
        part.format(**words) if part in (INTRODUCTION, COSTS, SAVINGS, NOTES) else part
        for part in parts
    )


def _costs(name: str, counted: Mapping[str, Any]) -> list[Cost]:
    shape = _shape(name)
    found = []
    for option, one in counted["images"][LARGE].items():
        tokens = one["visual_tokens"]
        found.append(
            Cost(
                option=option,
                tokens=tokens,
                tower=shape.tower_flops(one["views"], tokens),
                language=shape.language_flops(tokens + TEXT_TOKENS, ANSWER_TOKENS),
            )
        )
    return found


def _shape(name: str) -> VisionLanguageShape:
    config = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return VisionLanguageShape.of(config)


def _options(models: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """One row for each option of each family, counted with its first model."""
    yield "family", "option", "image processor", f"tokens at {LARGE}", f"at {SMALL}"
    seen = set()
    for name, one in sorted(models.items(), key=lambda pair: (pair[1]["title"], pair[0])):
        if one["family"] in seen:
            continue
        seen.add(one["family"])
        title = f"{one['title']} ({name})" if name != one["title"] else name
        for option, settings in one["options"].items():
            sizes = [str(one["images"][size][option]["visual_tokens"]) for size in (LARGE, SMALL)]
            yield title, option, f"`{json.dumps(settings)}`", *sizes


def _table(costs: Mapping[str, Sequence[Cost]]) -> Iterator[Sequence[str]]:
    yield "model", "option", "tokens", "tower", "language", "tower's share", "of the finest"
    for name, rows in costs.items():
        for one in rows:
            share, rest = one.tower / one.both, one.both / rows[-1].both
            counts = [str(one.tokens), _tera(one.tower), _tera(one.language)]
            yield name, one.option, *counts, f"{share:.0%}", f"{rest:.0%}"


def _savings(costs: Mapping[str, Sequence[Cost]]) -> Iterator[Sequence[str]]:
    yield "model", "options", "before encoding", "after encoding", "labelling all options", "look"
    for name, rows in costs.items():
        if len(rows) < len(MIX):
            continue
        chosen = [*rows[: len(MIX) - 1], rows[-1]]
        finest = chosen[-1]
        pairs = list(zip(MIX, chosen, strict=True))
        before = _look() + sum(share * one.both for share, one in pairs)
        after = finest.tower + sum(share * one.language for share, one in pairs)
        yield (
            name,
            ", ".join(one.option for one in chosen),
            f"saves {1 - before / finest.both:.0%}",
            f"saves {1 - after / finest.both:.0%}",
            f"{sum(one.both for one in rows) / finest.both:.2f} x the finest",
            f"{_look() / finest.both:.2%} of the finest",
        )


def _look() -> float:
    return LOOK.flops(LOOK_PATCHES) + 2.0 * LOOK_PATCHES * LOOK_VALUES * LOOK.hidden


def _shared(name: str, rows: Sequence[Cost]) -> str:
    """What the finest option costs where every layer reads the whole prompt."""
    shape, finest = _shape(name), rows[-1]
    groups = tuple(replace(group, last_only=False) for group in shape.language.groups)
    whole = replace(shape.language, groups=groups)
    language = whole.flops(finest.tokens + TEXT_TOKENS, ANSWER_TOKENS)
    return (
        f"{name} at {finest.option}: {_tera(finest.language)} TFLOP so, {_tera(language)} if all "
        f"layers read all of it (tower's share {finest.tower / (finest.tower + language):.0%})."
    )


def _tera(value: float) -> str:
    tera = value / 1e12
    return f"{tera:.0f}" if tera >= 100 else f"{tera:.3g}"


def _pixels(size: str) -> str:
    return size.replace("x", " x ")


def _lines(rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table; what a cell shares with the one above is left empty."""
    head = next(rows)
    lines = [head, ["---"] * len(head)]
    before = ""
    for first, *others in rows:
        lines.append(["" if first == before else first, *others])
        before = first
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` only say whether it is fresh."""
    text = page()
    if arguments != ["--check"]:
        atomic_write_text(PAGE, text)
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/families.md is stale: run `python -m experiments.families.page`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
