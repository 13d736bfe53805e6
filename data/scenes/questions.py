"""Questions about a scene that have exactly one answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from m3router.data.scenes.world import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    WORDS,
    WORLD_VERSION,
    Item,
    Scene,
)


@dataclass(frozen=True, kw_only=True)
class SceneQuestion:
    """A question with its answer.

    Attributes:
        kind: What is asked for; a key of :data:`CHANCE`.
        text: The question.
        answer: Its one answer.
    """

    kind: str
    text: str
    answer: str


CHANCE = {
    "background": 1 / len(BACKGROUNDS),
    "shape color": 1 / len(COLORS),
    "shape kind": 1 / len(SHAPES),
    "presence": 1 / 2,
    "count": 1 / 6,
    "tag": 1 / 90,
    "sign": 1 / len(WORDS),
    "bar value": 1 / 9,
    "longest bar": 1 / 26,
    "entry": 1 / 10,
}
"""Kinds of questions, and how often a blind uniform guess over a kind's answers is right."""

_WEIGHTS = {
    "background": 0.4,
    "shape color": 1.0,
    "shape kind": 1.0,
    "presence": 0.5,
    "count": 0.6,
    "tag": 2.0,
    "sign": 1.2,
    "bar value": 1.5,
    "longest bar": 0.8,
    "entry": 2.5,
}
_MOST_COUNTED = 6


def _about_shapes(shapes: list[Item], rng: np.random.Generator) -> list[SceneQuestion]:
    questions = []
    kinds = Counter(item.shape for item in shapes)
    colors = Counter(item.color for item in shapes)
    for item in shapes:
        if kinds[item.shape] == 1:
            text = f"What color is the {item.shape}?"
            questions.append(SceneQuestion(kind="shape color", text=text, answer=item.color))
        if colors[item.color] == 1:
            text = f"What is the shape of the {item.color} thing?"
            questions.append(SceneQuestion(kind="shape kind", text=text, answer=item.shape))
    if 1 <= len(shapes) <= _MOST_COUNTED:
        text, answer = "How many shapes are there?", str(len(shapes))
        questions.append(SceneQuestion(kind="count", text=text, answer=answer))
    pairs = {(item.color, item.shape) for item in shapes}
    if pairs:
        color, shape = sorted(pairs)[rng.integers(len(pairs))]
        present = bool(rng.random() < 0.5)
        if not present:  # change the colour, so that the shape alone does not tell
            absent = sorted(set(COLORS) - {c for c, s in pairs if s == shape})
            color = absent[rng.integers(len(absent))] if absent else color
            present = not absent
        article = "an" if color[0] in "aeiou" else "a"
        text = f"Is there {article} {color} {shape}?"
        answer = "yes" if present else "no"
        questions.append(SceneQuestion(kind="presence", text=text, answer=answer))
    return questions


def _about_text(items: tuple[Item, ...]) -> list[SceneQuestion]:
    questions = []
    for item in items:
        if item.kind == "tag":
            text = f"What number is on the {item.color} tag?"
            questions.append(SceneQuestion(kind="tag", text=text, answer=item.text))
        elif item.kind == "sign":
            text = f"What word is on the {item.color} sign?"
            questions.append(SceneQuestion(kind="sign", text=text, answer=item.text))
        elif item.kind == "entry":
            text = f"What digit is next to the letter {item.text[0]}?"
            questions.append(SceneQuestion(kind="entry", text=text, answer=item.text[1]))
        elif item.kind == "bar":
            text = f"What is the value of bar {item.text[0]}?"
            questions.append(SceneQuestion(kind="bar value", text=text, answer=item.text[1]))
    bars = [item for item in items if item.kind == "bar"]
    best = max((item.text[1] for item in bars), default="")
    longest = [item.text[0] for item in bars if item.text[1] == best]
    if len(longest) == 1:
        text = "Which bar is the longest?"
        questions.append(SceneQuestion(kind="longest bar", text=text, answer=longest[0]))
    return questions


def all_questions(scene: Scene) -> list[SceneQuestion]:
    """Every question that the scene answers without ambiguity, in a fixed order."""
    rng = np.random.default_rng([WORLD_VERSION, scene.seed, 2])
    shapes = [item for item in scene.items if item.kind == "shape"]
    background = SceneQuestion(
        kind="background", text="What color is the background?", answer=scene.background
    )
    return [background, *_about_shapes(shapes, rng), *_about_text(scene.items)]


def ask_about(scene: Scene, count: int) -> list[SceneQuestion]:
    """Draw questions without repetition; kinds that need reading are drawn more often.

    Args:
        scene: The scene.
        count: Questions wanted; fewer come back where the scene has fewer.
    """
    questions = all_questions(scene)
    rng = np.random.default_rng([WORLD_VERSION, scene.seed, 3])
    per_kind = Counter(question.kind for question in questions)
    weights = np.array([_WEIGHTS[q.kind] / per_kind[q.kind] for q in questions])
    size = min(count, len(questions))
    drawn = rng.choice(len(questions), size=size, replace=False, p=weights / weights.sum())
    return [questions[index] for index in drawn]
