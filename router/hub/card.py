"""The card of a published router: YAML that the hub reads, and what people read.

It says what a router belongs to, how it was trained and what it was measured to do. Nothing of
the machine that made it is on it, and no question or answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from m3router.data.errors import DataError
from m3router.router.cascade.rule import Cascade
from m3router.router.evaluation.row_metrics import NOTHING
from m3router.router.policies.guarantee_text import told_by
from m3router.router.policies.policy import Policy
from m3router.router.reports.tables import headline
from m3router.router.text.numbers import number, plain
from m3router.router.training.scale_router import ScaleRouter

START, END = "<!-- policies -->", "<!-- end of policies -->"

_ELSEWHERE = "See the model's and the data's own terms too."
_PATH = re.compile(r"(?<![\w./])(?:[A-Za-z]:[\\/]|~?[\\/]|\.\.?[\\/])\w\S*|(?<![\w:])[\\/]{2}\w\S*")
_CITATION = """```bibtex
@inproceedings{cai2025matryoshka,
  title = {Matryoshka Multimodal Models},
  author = {Cai, Mu and Yang, Jianwei and Gao, Jianfeng and Lee, Yong Jae},
  booktitle = {International Conference on Learning Representations},
  year = {2025},
  eprint = {2405.17430},
  archivePrefix = {arXiv}
}
```"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a router does not know of itself.

    Attributes:
        name: `owner/name` of its repository.
        licence: identifier as the hub writes it; None for not stated.
        base_model: hub id of the model that was labelled, where it has one.
        datasets: hub ids of what was labelled.
        trained: manifest of the training stage.
        evaluation: the document of the evaluation.
    """

    name: str
    licence: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    trained: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what the hub would.

        Raises:
            DataError: for a name that no repository can have, or an empty licence.
        """
        given = {"repository": [self.name], "dataset": self.datasets}
        given["base model"] = [] if self.base_model is None else [self.base_model]
        for what, names in given.items():
            for name in names:
                try:
                    validate_repo_id(name)
                except HFValidationError as error:
                    raise DataError(
                        f"{name!r} cannot be the name of a {what} on the hub. A name is OWNER/NAME "
                        "of letters, digits, -, _ and ., such as me/my-router."
                    ) from error
        if self.licence is not None and not self.licence.strip():
            raise DataError("The licence is empty; give its identifier, such as apache-2.0.")


def model_card(
    router: ScaleRouter,
    policies: Mapping[str, Policy],
    cascades: Mapping[str, Cascade],
    facts: Facts,
) -> str:
    """Write the card.

    Args:
        router: what is published.
        policies: by name, calibrated for it.
        cascades: by name, calibrated for it.
        facts: the rest.

    Returns:
        Markdown with a YAML front matter.
    """
    model = facts.base_model or router.model or "a model"
    scales = ", ".join(router.options)
    parts = [
        _front(facts),
        f"# Router for {_plain(model)}",
        f"For an image and a question, this router estimates at which of the scales {scales} "
        f"({_plain(router.cost_unit)}) the Matryoshka multimodal model {_plain(model)} answers "
        "rightly; a policy then picks the cheapest that is worth it. It was made with `m3router`, "
        "and holds no weights of the model itself.",
        "## What it belongs to",
        _table(["what", "value"], _belongs(router, model)),
        "It is refused for another model, revision or scale grid.",
        "## How to use it",
        _use(model, facts.name, policies),
        "## How it was trained",
        _table(["what", "value"], _trained(router, facts)),
        "## Evaluation",
        _evaluation(facts.evaluation),
        "## Policies",
        _policies(policies, cascades),
        "## Limits",
        _LIMITS,
        "## Licence",
        f"{_plain(facts.licence or 'Not stated')}. {_ELSEWHERE}",
        "## Citation",
        "The scales and the oracle over them are from:",
        _CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def with_policies(
    card: str, policies: Mapping[str, Policy], cascades: Mapping[str, Cascade]
) -> str:
    """A card with its list of policies replaced; unchanged where it has no such list."""
    before, start, rest = card.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{_policies(policies, cascades)}{after}" if start and end else card


def local_path_in(value: Any) -> str:
    """The first text in nested values that has a path of a machine in it; "" for none.

    >>> local_path_in({"encoder": "sentence:/home/me/encoder", "model": "owner/name"})
    'sentence:/home/me/encoder'
    """
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next((found for one in value if (found := local_path_in(one))), "")
    return value if isinstance(value, str) and _PATH.search(value) else ""


_LIMITS = """- Estimates hold for questions and images like those it was trained on. On others,
  label some, evaluate, and calibrate again.
- A budget is met on average on such questions, not by each of them. A guarantee is about the draw
  of the calibration images, and about one calibration.
- Only the language model works less. The vision tower sees every image in full."""


def _front(facts: Facts) -> str:
    data = ModelCardData(
        license=facts.licence,
        library_name="m3router",
        pipeline_tag="visual-question-answering",
        tags=["m3router", "model-routing", "matryoshka"],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _belongs(router: ScaleRouter, model: str) -> list[list[str]]:
    log, features = router.metadata.get("log", {}), router.metadata.get("features", {})
    rows: list[list[Any]] = [
        ["model", model],
        ["its revision (SHA-256 of its files)", log.get("revision")],
        ["scales", ", ".join(router.options)],
        ["cost of a scale", router.cost_unit],
        ["prompt version", log.get("prompt")],
        *[[f"visual: {key}", one] for key, one in log.get("visual", {}).items()],
        ["number format", log.get("dtype")],
        ["features", ", ".join(f"{n} ({w})" for n, w in router.blocks.items())],
        ["features of", features.get("source")],
        ["question encoder", features.get("question_encoder")],
        ["frames of a video", features.get("frames")],
    ]
    return _stated(rows)


def _trained(router: ScaleRouter, facts: Facts) -> list[list[str]]:
    manifest, metadata = facts.trained or {}, router.metadata
    provenance = (facts.evaluation or {}).get("provenance", {})
    settings = metadata.get("hyperparameters", {})
    parts = provenance.get("sizes") or metadata.get("n", {})
    rule = str(manifest.get("params", {}).get("rule", ""))
    judged = (facts.evaluation or {}).get("rule", {})
    meaning = f"({judged['meaning']})" if judged.get("name") == rule else ""
    rows: list[list[Any]] = [
        ["estimator", router.estimator_name],
        ["settings", ", ".join(f"{key} = {value}" for key, value in settings.items())],
        ["a scale suffices by", " ".join(filter(None, (rule, meaning)))],
        *[[f"part: {part}", _size(size)] for part, size in parts.items()],
        ["questions without all answers", metadata.get("gaps")],
        ["probabilities corrected by", router.calibration.method],
        ["seed", metadata.get("seed")],
        ["split", metadata.get("split")],
        ["labelled questions", metadata.get("log", {}).get("examples_sha256")],
        ["fingerprint of the router", router.fingerprint],
        ["date", str(manifest.get("created", ""))[:10]],
        *[[f"version of {library}", one] for library, one in manifest.get("versions", {}).items()],
    ]
    return _stated(rows)


def _stated(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[str(what), str(value)] for what, value in rows if value not in (None, "")]


def _size(size: Any) -> str:
    if isinstance(size, Mapping):
        return f"{size.get('examples')} questions, {size.get('pictures')} images"
    return f"{size} questions"


def _evaluation(document: Mapping[str, Any] | None) -> str:
    if document is None:
        return "Not evaluated."
    n, level = document["n"], document["bootstrap"]["level"]
    rows: list[list[Any]] = [
        [
            row.name,
            _interval(row.estimates["accuracy"] or NOTHING, 100, ".1f"),
            _interval(row.estimates["cost"] or NOTHING, 1, ".4g"),
            _interval(row.estimates["minus_best_fixed"] or NOTHING, 100, "+.1f"),
        ]
        for row in headline(document)
    ]
    names = [str(one["dataset"]) for one in document.get("datasets", ())]
    return "\n\n".join(
        [
            f"{n['test']} test questions about {n['test_groups']} images that nothing was "
            f"trained, tuned or calibrated on; {level:.0%} intervals by bootstrap over images. "
            f"Best fixed scale: {_plain(str(document['best_fixed']))}.",
            _table(
                ["answered by", "accuracy %", f"mean {document['cost_unit']}", "Δ vs. best fixed"],
                rows,
            ),
            "The last column is against the best fixed scale.",
            f"Kinds of questions or data sets: {', '.join(map(_plain, names)) or 'not named'}.",
        ]
    )


def _policies(policies: Mapping[str, Policy], cascades: Mapping[str, Cascade]) -> str:
    if not policies:
        return f"{START}\n\nNone yet.\n\n{END}"
    rows, certified = [], []
    for name, policy in policies.items():
        one = cascades.get(name, policy)
        knob = ", ".join(f"{key} {plain(value)}" for key, value in one.knob.items()) or policy.kind
        found = one.calibration
        cost = number(found["mean_cost"], digits=4) if "mean_cost" in found else ""
        rows.append(
            [
                name,
                knob + (f" (fell back: {policy.reason})" if policy.fallback else ""),
                cost,
                f"{100 * found['accuracy']:.1f}" if "accuracy" in found else "",
                "yes" if name in cascades else "no",
                _guaranteed(one.guarantee),
            ]
        )
        if sentence := told_by(one):
            certified.append(f"`{_plain(name)}`: {_plain(sentence)}")
    header = ["policy", "asked for", "mean cost", "accuracy %", "asks again", "guarantee"]
    told = "Mean cost and share of right answers are those on the calibration split."
    return "\n\n".join([START, _table(header, rows), told, *certified, END])


def _guaranteed(guarantee: Mapping[str, Any]) -> str:
    if not guarantee:
        return "none"
    if guarantee.get("max_loss") is not None:
        kept = f"accuracy at most {100 * guarantee['max_loss']:.3g} points lower"
    else:
        kept = f"at most {guarantee['max_regret']:.2%} of answers lost"
    return (
        f"{kept}, with {guarantee['confidence']:.0%} confidence ({guarantee['bound']}, by "
        f"{guarantee['pictures']} images)"
    )


def _use(model: str, name: str, policies: Mapping[str, Policy]) -> str:
    policy = "default" if "default" in policies or not policies else next(iter(policies))
    return f"""```
pip install m3router
```

```python
from m3router.router.hub import load_pipeline

pipeline = load_pipeline({name!r}, model={model!r}, policy={policy!r})
answer = pipeline.ask("image.png", "What number is on the red tag?")
print(answer.text, answer.option, answer.estimates)
```

`revision=` takes a commit, so that it stays what it is."""


def _interval(value: Mapping[str, float | None], factor: float, style: str) -> str:
    found = [value[one] for one in ("value", "low", "high")]
    known = [None if one is None else factor * one for one in found]
    if known[0] is None:
        return ""
    middle, low, high = (format(one, style) if one is not None else "?" for one in known)
    return middle if low == middle == high else f"{middle} ({low} to {high})"


def _plain(text: str) -> str:
    """A text for one line of Markdown, without any path of a machine."""
    line = " ".join(_PATH.sub("…", text).split())
    return line.replace("|", "\\|").replace("<", "&lt;")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)
