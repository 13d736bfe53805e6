"""How what a report shows was made, in sentences: answers, features, router, measurement, versions.

Every kind of log is told in its own words: of a Matryoshka model, another vision-language model, a
server, a function, or one that another tool wrote. What a log says beyond that follows in the same
form. Metadata are anybody's, so any value of any shape is put into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from m3router.data.log.checks import ASKED, JUDGE, UNTIL_CORRECT
from m3router.router.evaluation.documents import Document, by_agreement
from m3router.router.text.numbers import number, plain
from m3router.router.text.words import Words, words_in

PARTS = {
    "fit": "to train",
    "tune": "to validate",
    "calibrate": "to calibrate",
    "test": "to test",
}
UNTOLD = (
    *("cost_unit", "grid", "n_examples", "examples_sha256", "padding", "deciding", "spec"),
    ASKED,
)
"""Entries of a log that are told elsewhere on the page, or only machines compare."""
DIGITS = 12
"""Of a revision or fingerprint."""
LONGEST = 400
MOST = 12
"""Letters, and entries, of a value that a log says beyond what is asked for here."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One paragraph.

    Attributes:
        title: what it is about.
        sentences: in their order.
    """

    title: str
    sentences: list[str]


def origin(document: Document, *, created: str = "") -> list[Origin]:
    """How the evaluation came about, in its order.

    Args:
        document: the evaluation.
        created: when it was made, as its manifest says.
    """
    told = document["provenance"]
    words = words_in(document)
    paragraphs = [
        Origin(title="Questions", sentences=_questions(document, words)),
        Origin(title="Answers", sentences=_answers(document, words)),
        Origin(title="Features", sentences=_features(told, words)),
        Origin(title="Router", sentences=_router(document)),
        Origin(title="Measurement", sentences=_measurement(document, created, words)),
    ]
    return [one for one in paragraphs if one.sentences]


def plain_value(value: Any) -> str:
    """Any JSON value in words, without brackets or braces of ours.

    >>> plain_value({"pooling": "average", "grids": [1, 4]}), plain_value([]), plain_value(True)
    ('pooling average, grids 1 and 4', 'none', 'yes')
    """
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = [f"{_name(key)} {plain_value(one)}" for key, one in [*value.items()][:MOST]]
        more = len(value) - MOST
        return ", ".join([*parts, f"{more} more"] if more > 0 else parts) or "none"
    if isinstance(value, list | tuple):
        more = len(value) - MOST
        texts = [plain_value(one) for one in value[:MOST]]
        return together([*texts, f"{more} more"] if more > 0 else texts)
    text = plain(value) if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def together(texts: Sequence[str]) -> str:
    """Several things in a sentence.

    >>> together(["a"]), together(["a", "b", "c"]), together([])
    ('a', 'a, b and c', 'none')
    """
    if not texts:
        return "none"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _questions(document: Document, words: Words) -> list[str]:
    told = document["provenance"]
    parts = [
        f"{size['examples']:,} {PARTS.get(part, part)}{_about(size['pictures'], words)}"
        for part, size in told["sizes"].items()
    ]
    by = words.of("by image, so that no image is in two parts")
    found = [
        f"{_count(told['examples'], 'question')}, split {by} (seed {told['split']['seed']}): "
        f"{together(parts)}."
    ]
    if failed := told.get("examples_with_gaps"):
        found.append(
            f"{_count(failed, 'question')} without an answer at every option "
            f"{'was' if failed == 1 else 'were'} left out."
        )
    return [*found, f"Fingerprint of the split: {short(told['split']['fingerprint'])}."]


def _about(images: int, words: Words) -> str:
    return f" ({_count(images, 'image' if words.images else 'group')})"


def _answers(document: Document, words: Words) -> list[str]:
    """Who answered, how, and what a log says of it beyond that."""
    log: dict[str, Any] = {k: v for k, v in document["provenance"]["log"].items() if v is not None}
    kind = _mapping(log.get("spec")).get("kind")
    if "source" in log:
        found = _imported(log)
    elif kind == "endpoint":
        found = _of_server(log)
    elif kind == "function":
        found = _of_function(log)
    elif kind == "vlm" or (kind and kind != "matryoshka"):
        found = _of_vlm(log)
    else:
        found = _of_matryoshka(log)
    options = [str(option) for option in document["options"]]
    found.append(
        f"{words.of('Scales' if words.scales else 'Options')}, cheapest first: "
        f"{together(options)}; the cost is counted in {document['cost_unit']}."
    )
    if "max_new_tokens" in log:
        found.append(f"{_longest(log.pop('max_new_tokens'))}")
    found += _scored(document, log, words)
    if "sha256" in log:
        found.append(f"SHA-256 of the log: {short(log.pop('sha256'))}.")
    dropped = (
        "cost_unit",
        "grid",
        "n_examples",
        "examples_sha256",
        "padding",
        "deciding",
        "spec",
        ASKED,
    )
    more = {name: value for name, value in log.items() if name not in dropped}
    return found + [f"{_name(name, begin=True)}: {plain_value(one)}." for name, one in more.items()]


def _of_matryoshka(log: dict[str, Any]) -> list[str]:
    log.pop("provenance", None)
    name, visual = log.pop("model", None), _mapping(log.pop("visual", None))
    if name is None:
        return []
    made = [f"prompt {log.pop('prompt')}"] if "prompt" in log else []
    made += [f"{_name(key)} of visual tokens: {plain_value(one)}" for key, one in visual.items()]
    made += [f"numbers in {log.pop('dtype')}"] if "dtype" in log else []
    how = f" ({', '.join(made)})" if made else ""
    return [
        f"The Matryoshka model {plain_value(name)}{_revision(log)} encoded each image once and "
        f"answered at every scale{how}."
    ]


def _of_vlm(log: dict[str, Any]) -> list[str]:
    made = dict(_mapping(log.pop("provenance", None)))
    family, backend = made.pop("family", None), made.pop("backend", None)
    of = f" of the family {family}" if family else ""
    by = f", run by {backend}" if backend else ""
    found = [
        f"The vision-language model {plain_value(log.pop('model', ''))}{_revision(log)}{of}{by}."
    ]
    return found + [f"{_name(name, begin=True)}: {plain_value(one)}." for name, one in made.items()]


def _of_server(log: dict[str, Any]) -> list[str]:
    made = dict(_mapping(log.pop("provenance", None)))
    log.pop("revision", None)
    models, host = _models(log.pop("model", "")), _host(made.pop("url", ""))
    at = f" at {host}" if host else ""
    found = [f"The {models} answered, asked through an OpenAI-compatible server{at}."]
    if "prompt" in made:
        found.append(f"Each request: {plain_value(made.pop('prompt'))}.")
    listed = made.pop("options", None)
    for option in listed if isinstance(listed, list) else ():
        settings = {k: v for k, v in _mapping(option).items() if v not in (None, "", [], {})}
        name = settings.pop("name", None)
        if name is not None and settings:
            found.append(f"Option {name}: {plain_value(settings)}.")
    for name in ("backend", "stream", "images"):
        made.pop(name, None)
    made = {k: v for k, v in made.items() if v not in (None, "", {}, [])}
    return found + [f"{_name(name, begin=True)}: {plain_value(one)}." for name, one in made.items()]


def _of_function(log: dict[str, Any]) -> list[str]:
    made = _mapping(log.pop("provenance", None))
    name = made.get("function") or log.get("model", "")
    log.pop("model", None)
    by = f" in Python {made['python']}" if "python" in made else ""
    return [f"The function {plain_value(name)}{_revision(log)} answered{by}."]


def _imported(log: dict[str, Any]) -> list[str]:
    models = log.pop("model", None)
    of = f", of the {_models(models)}" if models else ""
    found = [f"The answers were imported: {plain_value(log.pop('source'))}{of}."]
    for option, run in _mapping(log.pop("runs", None)).items():
        if known := {k: v for k, v in _mapping(run).items() if isinstance(v, str | int | float)}:
            found.append(f"Option {option}: {plain_value(known)}.")
    unmapped = log.pop("unmapped", None)
    if isinstance(unmapped, list):
        found += [plain_value(one) for one in unmapped]
    if "columns" in log:
        found.append(f"Columns of the table: {plain_value(log.pop('columns'))}.")
    return found


def _models(names: Any) -> str:
    many = isinstance(names, list) and len(names) > 1
    return f"model{'s' if many else ''} {plain_value(names)}"


def _scored(document: Document, log: dict[str, Any], words: Words) -> list[str]:
    found = []
    if by_agreement(document):
        found.append(
            words.of("There are no reference answers: an answer counts as right where it agrees ")
            + words.of("with that of the finest option")
            + f", {document['options'][-1]}."
        )
    if log.get(ASKED) == UNTIL_CORRECT:
        found.append(words.of("Scales were asked from the coarsest on, until one was right."))
    judge = _mapping(log.pop(JUDGE, None))
    if judge:
        who = plain_value(judge.get("models") or judge.get("model") or "not named")
        protocol = judge.get("protocol")
        by = f", by the protocol {plain_value(protocol)}" if protocol else ""
        on = f" on {judge['date']}" if "date" in judge else ""
        found.append(f"Answers were scored by a language model as judge, {who}{by}{on}.")
    if frames := log.pop("frames", None):
        found.append(f"Of a video, {_count(frames, 'frame')} were shown.")
    return found


def _features(told: Mapping[str, Any], words: Words) -> list[str]:
    about, blocks = dict(told["features"]), told["router"]["blocks"]
    read = [f"{name} ({_count(width, 'number')})" for name, width in blocks.items()]
    found = [f"For each question the router reads: {together(read)}."]
    if source := about.get("source"):
        found.append(f"Those of the {words.of('image')} were made by {plain_value(source)}.")
    for name, facts in _mapping(about.get("blocks")).items():
        encoder = _mapping(_mapping(facts).get("made_with")).get("encoder")
        if encoder and encoder != "model":
            found.append(f"The features {name} are of the encoder {plain_value(encoder)}.")
    encoder = about.get("question_encoder")
    if encoder:
        whose = "the model's own" if encoder == "model" else plain_value(encoder)
        found.append(f"The question encoder is {whose}.")
    return found


def _router(document: Document) -> list[str]:
    router, rule = document["provenance"]["router"], document["rule"]
    settings = {k: v for k, v in router["hyperparameters"].items() if k != "seed"}
    parts = [
        f"{'no ' if value is False else ''}{_name(name)}"
        if isinstance(value, bool)
        else f"{_name(name)} {plain_value(value)}"
        for name, value in settings.items()
    ]
    with_ = f", with {', '.join(parts)}" if parts else ""
    return [
        f"The estimator is {router['estimator']}{with_} (seed {router['seed']}).",
        f"It was trained by the rule {rule['name']}: {rule['meaning']}.",
        f"Fingerprint of the router: {short(router['fingerprint'])}.",
    ]


def _measurement(document: Document, created: str, words: Words) -> list[str]:
    draws, seed = document["bootstrap"]["draws"], document["bootstrap"]["seed"]
    on = f" on {day(created)}" if created else ""
    versions = [f"{_library(k)} {v}" for k, v in document["provenance"]["versions"].items()]
    return [
        words.of("Intervals are by image, ")
        + f"from {_count(draws, 'bootstrap draw')} (seed {seed}).",
        f"Evaluated{on} with {together(versions)}.",
    ]


def day(created: str) -> str:
    """A date as people write it.

    >>> day("2026-11-30T11:27:07+00:00")
    '2026-11-30, 11:27 UTC'
    """
    date, _, time = created.partition("T")
    return f"{date}, {time[:5]} UTC" if time.endswith(("+00:00", "Z")) else created


def short(digest: Any) -> str:
    """The beginning of a fingerprint."""
    return str(digest)[:DIGITS]


def _longest(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = [f"{limit} tokens for {_count(n, 'question')}" for limit, n in value.items()]
        return f"Longest answers: {together(parts)}."
    return f"An answer has at most {plain_value(value)} tokens."


def _revision(log: dict[str, Any]) -> str:
    revision = log.pop("revision", None)
    return f" (revision {short(revision)})" if revision else ""


def _host(url: Any) -> str:
    """The place of a server, without what a URL may hold of a password or query."""
    try:
        parts = urlsplit(str(url))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.hostname or ''}{port}{parts.path}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(count: Any, what: str) -> str:
    return f"{number(count) if isinstance(count, int) else count} {what}{'' if count == 1 else 's'}"


def _name(key: Any, *, begin: bool = False) -> str:
    text = plain_value(key).replace("_", " ")
    return text[:1].upper() + text[1:] if begin else text


def _library(name: str) -> str:
    return "Python" if name == "python" else name
