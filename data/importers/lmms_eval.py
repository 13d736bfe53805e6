"""Runs of lmms-eval with ``--log_samples``: one run per option, or several over different tasks.

A run writes ``<date>_samples_<task>.jsonl`` beside ``<date>_results.json``
(``lmms_eval/loggers/evaluation_tracker.py``, ``save_results_samples``), one sample per line:
``doc_id``, ``target``, ``doc_hash``, ``input``, ``filtered_resps`` and the task's metrics, but not
the ``doc``. Versions without that module wrote ``<task>.json``, with ``doc`` and the rest under
``logs`` (``lmms_eval/__main__.py``). Single responses are nested once less since pull request 1103.

Of the run itself ``<date>_results.json`` has ``config``, ``git_hash`` and, since its tracker
measures them, ``total_evaluation_time_seconds`` and ``model_name``
(``lmms_eval/loggers/evaluation_tracker.py``, ``GeneralConfigTracker``). Versions since pull request
1108 count tokens: ``token_counts`` of a sample is a list with ``input_tokens``, ``output_tokens``
and ``reasoning_tokens`` of each response.

``process_results`` of a task gives its metrics per sample, each in the form its own aggregation
reads (``lmms_eval/tasks/<task>/utils.py``): a number (``exact_match`` of gqa, vqav2, textvqa),
``{"score": 1.0, ...}`` (pope, mme, ocrbench), ``{"pred": "A", "answer": "B", ...}`` (seedbench),
``{"pred": 1, "ground_truth": "1"}`` (egoschema), ``{"parsed_pred": [...], "answer": ...,
"question_type": ...}`` (mmmu), or ``{"prediction": ..., "answer": "A", "A": ..., "B": ...}``
(mmbench), which is scored here as labelling scores it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, listed
from m3router.data.importers.costs import Costs
from m3router.data.importers.joined import Runs, Sample, join, places, references_in
from m3router.data.importers.usage import NOTHING, CellUsage, amount, usage_in
from m3router.data.json_files import parse_json
from m3router.data.log.oracle_log import OracleLog
from m3router.data.media_files import leaves_folder
from m3router.data.paths import StrPath
from m3router.data.prices import Prices
from m3router.data.scoring.benchmark_rules import score_mmbench
from m3router.data.scoring.metrics import in_place
from m3router.data.sources.benchmarks.base import placed
from m3router.data.tables.image_cells import image_path

MARK = "_samples_"
_SECONDS = "total_evaluation_time_seconds"


def about_runs(paths: Sequence[Path]) -> dict[str, Any]:
    """Read what the runs of an option say: of one its entries, of several a list under "runs"."""
    about = [_about(path) for path in paths]
    if len(about) == 1:
        return about[0]
    return {"path": ", ".join(path.name for path in paths), "runs": about}


def usage_of(counts: Any) -> CellUsage:
    """Read what ``token_counts`` tells of a sample's first response.

    NOTE: reasoning is part of ``output_tokens``, as the servers count it that lmms-eval asks.

    >>> usage_of([{"input_tokens": 600, "output_tokens": 3, "reasoning_tokens": 0}]).tokens
    603
    >>> usage_of([None]).tokens is None
    True
    """
    first = counts[0] if isinstance(counts, list) and counts else counts
    if not isinstance(first, Mapping):
        return NOTHING
    return usage_in({name: one for name, one in first.items() if not isinstance(one, str)})


def tokens_of(samples: Mapping[str, Sample]) -> dict[str, Any]:
    """Sum the tokens of an option's prompts and answers; empty where none is logged."""
    found: dict[str, Any] = {}
    for name in ("answer_tokens", "prompt_tokens"):
        counts = [getattr(one.usage, name) for one in samples.values()]
        told = [count for count in counts if count is not None]
        if told:
            found |= {name: sum(told), f"mean_{name}": sum(told) / len(told)}
    return found


def _about(path: Path) -> dict[str, Any]:
    """Read what ``*results.json`` beside the samples says of a run; empty without one."""
    folder = path if path.is_dir() else path.parent
    start = path.stem.partition(MARK)[0] if path.is_file() and MARK in path.stem else ""
    found = sorted(folder.rglob(f"{start}*results.json"))
    if len(found) != 1:
        return {"path": path.name}
    try:
        results = parse_json(found[0].read_bytes(), nan=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{found[0]} cannot be read: {error}.") from error
    if not isinstance(results, dict) or not isinstance(results.get("config", {}), dict):
        raise DataError(f"{found[0]} is not a results file of lmms-eval: expected a JSON object.")
    config = results.get("config", {})
    seconds = _number(results.get(_SECONDS))
    known = {
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        "model_name": results.get("model_name"),
        "date": results.get("date"),
        "git_hash": results.get("git_hash"),
        "seconds": seconds,
        "samples": _effective(results.get("n-samples")),
        "throughput": results.get("throughput"),
        "usage": results.get("usage"),
    }
    return {"path": path.name, **{name: value for name, value in known.items() if value}}


def _number(value: Any) -> float | None:
    """Read seconds, which are written as a text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _effective(counts: Any) -> dict[str, Any]:
    """Read how many samples of each task were asked, to which the seconds belong."""
    if not isinstance(counts, Mapping):
        return {}
    return {
        str(task): one["effective"]
        for task, one in counts.items()
        if isinstance(one, Mapping) and "effective" in one
    }


ALL_TASKS = "*"
STRUCTURE = frozenset(
    {
        "doc_id",
        "doc",
        "target",
        "arguments",
        "input",
        "resps",
        "filtered_resps",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "token_counts",
    }
)
"""Fields of every sample that are not metrics (``lmms_eval/evaluator.py``, ``example``)."""

SCORE_FIELDS: dict[str, tuple[str, ...]] = {
    "ai2d": ("exact_match",),
    "chartqa": ("relaxed_overall",),
    "docvqa": ("anls",),
    "egoschema": ("score",),
    "gqa": ("exact_match",),
    "infovqa": ("anls",),
    "mme": ("mme_perception_score", "mme_percetion_score", "mme_cognition_score"),
    "mmbench": ("gpt_eval_score",),
    "mmmu": ("mmmu_acc",),
    "nextqa_mc": ("exact_match",),
    "ocrbench": ("ocrbench_accuracy",),
    "ok_vqa": ("exact_match",),
    "pope": ("pope_accuracy",),
    "scienceqa": ("exact_match",),
    "seedbench": ("seed_all",),
    "textvqa": ("exact_match",),
    "vizwiz_vqa": ("exact_match",),
    "vqav2": ("exact_match",),
}
"""Task, or the start of its name before an underscore -> fields that hold its score; the first
that a sample has counts. ``percetion`` is spelt as lmms-eval spells it."""


def metric_of(task: str, sample: Mapping[str, Any], chosen: Mapping[str, str]) -> str:
    """Find the field that holds the score of a sample.

    Args:
        task: The task's name.
        sample: One logged sample.
        chosen: Task, or ``"*"`` for all -> field, as the user asked; before :data:`SCORE_FIELDS`.

    Raises:
        DataError: The task is not known and nothing was chosen, or the sample lacks the field.
    """
    asked = chosen.get(task) or chosen.get(ALL_TASKS)
    known = [name for name in SCORE_FIELDS if task == name or task.startswith(f"{name}_")]
    fields = (asked,) if asked else SCORE_FIELDS[max(known, key=len)] if known else ()
    for name in fields:
        if name in sample:
            return name
    there = sorted(set(sample) - STRUCTURE)
    what = (
        f"The metric of the task {task!r} is not known"
        if not fields
        else f"A sample of the task {task!r} has no field {' or '.join(map(repr, fields))}"
    )
    raise DataError(
        f"{what}; its samples have {there}. Name the field that holds the score of a sample: "
        f"--metric {task}=FIELD."
    )


def score_of(value: Any) -> float | None:
    """Read a metric in any of the published forms.

    Args:
        value: What the metric's field holds.

    Returns:
        A score in [0, 1]; None where the log holds no score of this sample (a value that is
        missing or NaN, or an open question of mmmu, which only the aggregation scores).

    Raises:
        DataError: The form is not known, or the number is not in [0, 1]; the message says which.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list) and len(value) == 1:
        return score_of(value[0])
    if isinstance(value, str) and value.strip() in ("0", "1"):  # a judge's verdict
        return float(value)
    if isinstance(value, bool | int | float):
        if not 0 <= value <= 1:
            raise DataError(f"the score {value!r} is not in [0, 1]")
        return float(value)
    if isinstance(value, Mapping):
        if "score" in value:
            return score_of(value["score"])
        if {"pred", "answer"} <= set(value):
            return float(_bare(value["pred"]) == _bare(value["answer"]))
        if {"pred", "ground_truth"} <= set(value):
            return float(str(value["pred"]) == str(value["ground_truth"]))
        if {"prediction", "answer", "A", "B"} <= set(value):
            return _mmbench(value)
        if {"parsed_pred", "answer", "question_type"} <= set(value):
            return _mmmu(value)
        raise DataError(f"no score can be read from the fields {', '.join(sorted(value))}")
    raise DataError(f"no score can be read from {type(value).__name__} {str(value)[:60]!r}")


def _bare(text: object) -> str:
    """A letter as seedbench compares it: some of its versions ignore case."""
    return str(text).strip().lower()


def _mmbench(value: Mapping[str, Any]) -> float | None:
    """Score a question of mmbench by the option that is named; without an answer not at all."""
    if not _told(value["answer"]):
        return None
    texts = (value.get(letter) for letter in "ABCDE")
    choices = in_place(placed(text if _told(text) else None for text in texts))
    return score_mmbench(str(value["prediction"]), [value["answer"]], choices)


def _told(value: Any) -> bool:
    """Whether a field holds something: not None, NaN or its text."""
    return value not in (None, "", "nan") and value == value


def _mmmu(value: Mapping[str, Any]) -> float | None:
    """Score a multiple choice of mmmu: any parsed answer equals one of the right ones."""
    if value["question_type"] != "multiple-choice":
        return None
    right, given = value["answer"], value["parsed_pred"]
    answers = right if isinstance(right, list) else [right]
    return float(any(one in answers for one in (given if isinstance(given, list) else [given])))


IMAGE_FIELDS = ("image_id", "imageId", "image_path", "img_path", "image_name", "img_id", "image")
"""Fields of a ``doc`` that name its image, in the order they are looked for."""
METRIC_IMAGES = {"mme": "question_id"}
"""Task -> field of its metric that names the image: both questions of an MME pair have it."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def read_lmms_eval(
    runs: Runs,
    *,
    costs: Mapping[str, float] | str | None = None,
    prices: Mapping[str, Prices] | None = None,
    cost_unit: str | None = None,
    metric: Mapping[str, str] | None = None,
    images: str | None = None,
    groups: Mapping[str, StrPath] | None = None,
    skip_bad: bool = False,
) -> OracleLog:
    """Read the runs of each option and join them by task and ``doc_id``.

    The dataset is the task. The group is the image that the sample's ``doc`` names, else the
    example stands alone. ``doc_hash`` and ``target`` must agree between options. Scores are read
    as the module says. Tokens of answers are those of
    ``token_counts``, where samples have it. NOTE: chance is 0; the files do not tell it.

    Args:
        runs: Option -> samples file, or folder that holds the samples files of one run, or
            several of either over different tasks.
        costs: Option -> cost of an answer; or what of every answer is its cost: a member of
            :data:`m3router.data.importers.usage.QUANTITIES`, or a field of the samples. See
            :func:`m3router.data.importers.joined.join`.
        prices: Option -> prices of its tokens; the cost where there is no other.
        cost_unit: What the costs count.
        metric: Task, or ``"*"`` for all -> field that holds the score of a sample.
        images: Path of an image that no sample names, such as ``"{dataset}/{id}.png"``: task
            and ``doc_id``.
        groups: Data set, or ``"*"`` for all -> table that tells which of its questions share an
            image; see :func:`m3router.data.importers.group_tables.read_groups`.
        skip_bad: Leave samples out that cannot be read, and tell them, instead of refusing the run.

    Returns:
        The log; ``metadata["unmapped"]`` says in sentences what could not be mapped, and
        ``metadata["runs"]`` what the runs tell of themselves, seconds and tokens among it.

    Raises:
        DataError: A file cannot be read or is not of this form, a sample is doubled, or a score's
            field or form is not known.
        MismatchError: An example is not the same one in two options.
    """
    asked = Costs.given(costs, prices, cost_unit)
    notes: dict[str, list[str]] = {}
    read: dict[str, dict[str, Sample]] = {}
    about: dict[str, Any] = {}
    for option, given in runs.items():
        samples: dict[str, Sample] = {}
        files = _all_files(option, places(given))
        for task, file in sorted(files.items()):
            logged, bad = _logged(file, skip_bad)
            found, told = _samples(task, file, logged, metric or {}, asked.column, skip_bad)
            samples.update(found)
            for note in (*bad, *told):
                notes.setdefault(note, []).append(option)
        read[option] = samples
        about[option] = {**about_runs(places(given)), **tokens_of(samples)}
    return join(
        read,
        costs=asked,
        metadata={"source": "lmms-eval --log_samples", "runs": about},
        images=images,
        groups=groups,
        notes=notes,
        skip_bad=skip_bad,
    )


def _all_files(option: str, given: list[Path]) -> dict[str, Path]:
    """Find the samples files of an option by task."""
    files: dict[str, Path] = {}
    for path in given:
        for task, file in _files(path).items():
            if task in files:
                raise DataError(
                    f"Option {option!r} has the task {task!r} twice ({files[task]} and {file}): "
                    "give one run of each task."
                )
            files[task] = file
    return files


def _files(path: Path) -> dict[str, Path]:
    """Find a run's samples files by task."""
    if path.is_file():
        return {_task(path): path}
    if not path.is_dir():
        raise DataError(f"{path} does not exist: expected a samples file or a run's folder.")
    found = sorted(path.rglob(f"*{MARK}*.jsonl"))
    if not found:
        found = [file for file in sorted(path.glob("*.json")) if "results" not in file.stem]
    if not found:
        raise DataError(
            f"{path} holds no samples of lmms-eval: expected <date>{MARK}<task>.jsonl or "
            "<task>.json. Run lmms-eval with --log_samples and --output_path."
        )
    files: dict[str, Path] = {}
    for file in found:
        task = _task(file)
        if task in files:
            raise DataError(
                f"{path} holds the task {task!r} twice ({files[task].name} and {file.name}): it is "
                "more than one run. Give the folder or the file of one run."
            )
        files[task] = file
    return files


def _task(path: Path) -> str:
    """Read the task from ``<date>_samples_<task>.jsonl`` or ``<task>.json``."""
    return path.stem.partition(MARK)[2] or path.stem


def _logged(path: Path, skip_bad: bool) -> tuple[list[Any], list[str]]:
    """Read the samples of a file; a torn last line, or any, is left out and told."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if not text.strip():
        raise DataError(f"{path} is empty: the run stopped before it wrote samples. Run it again.")
    if path.suffix == ".json":
        return _old(path, text), []
    lines = [
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]
    logged: list[Any] = []
    bad: list[str] = []
    for number, line in lines:
        try:
            logged.append(parse_json(line, nan=True))
        except ValueError as error:
            if number == lines[-1][0] and logged:
                bad.append(f"{path.name}: its last line {number} is torn and was left out")
            elif skip_bad:
                bad.append(f"{path.name}: line {number} is not JSON and was left out")
            else:
                raise DataError(
                    f"{path} line {number} is not JSON: {error}. --skip-bad leaves such lines out."
                ) from error
    return logged, bad


def _old(path: Path, text: str) -> list[Any]:
    """Read ``<task>.json`` of older versions."""
    try:
        logged = parse_json(text, nan=True)["logs"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a samples file of lmms-eval ({error!r}): expected JSON with 'logs', or "
            "a .jsonl file. Run lmms-eval with --log_samples."
        ) from error
    if not isinstance(logged, list) or not logged:
        raise DataError(f"{path} holds no samples under 'logs'.")
    return logged


def _samples(
    task: str,
    path: Path,
    logged: list[Any],
    chosen: Mapping[str, str],
    cost: str | None,
    skip_bad: bool,
) -> tuple[dict[str, Sample], list[str]]:
    """Read one task's samples by example id; what is not used is noted."""
    samples: dict[str, Sample] = {}
    twice: list[str] = []
    bad: list[str] = []
    unused: set[str] = set()
    unasked = 0
    for number, raw in enumerate(logged, start=1):
        if not isinstance(raw, dict) or not isinstance(raw.get("doc_id"), int | str):
            if skip_bad:
                bad.append(f"sample {number} has no 'doc_id'")
                continue
            raise DataError(
                f"{path}, sample {number}, is not a sample of lmms-eval: it has no 'doc_id'."
            )
        field = metric_of(task, raw, chosen)
        try:
            sample = _sample(task, raw, field, cost)
        except DataError as error:
            if skip_bad:
                bad.append(f"doc_id {raw['doc_id']!r}: {error}")
                continue
            raise DataError(
                f"{path}, doc_id {raw['doc_id']!r}, field {field!r}: {error}. If another field "
                f"holds the score, name it: --metric {task}=FIELD."
            ) from error
        name = f"{task}/{raw['doc_id']}"
        twice += [name] if name in samples else []
        samples[name] = sample
        unused.update(key for key in raw if key not in {*STRUCTURE, field, cost})
        unasked += sample.question == name
    if twice and skip_bad:
        bad.append(f"{listed(twice)} more than once")
        samples = {name: one for name, one in samples.items() if name not in twice}
    elif twice:
        raise DataError(
            f"{path} has {len(twice)} samples twice ({listed(twice)}): the task has several "
            "filters, or two runs were written into one file. Keep one of each."
        )
    if not samples:
        raise DataError(f"{path}: no sample is left, all are bad ({listed(bad, 3)}).")
    told = [f"task {task}: bad samples were left out: {listed(bad, 3)}"] if bad else []
    if unasked:
        told.append(
            f"task {task}: {unasked} of {len(samples)} samples hold no prompt; their id stands for "
            "the question"
        )
    if unused:
        told.append(f"task {task}: fields not used: {', '.join(sorted(unused))}")
    return samples, told


def _sample(task: str, raw: Mapping[str, Any], field: str, cost: str | None) -> Sample:
    """Map one logged sample."""
    doc: dict[str, Any] = raw["doc"] if isinstance(raw.get("doc"), dict) else {}
    score = score_of(raw[field])
    group, image = _image(task, doc, raw[field])
    answers = _texts(raw.get("filtered_resps", raw.get("resps")))
    asked = doc.get("question")
    prompts = [asked] if isinstance(asked, str) and asked.strip() else []
    prompts += _texts(raw.get("input")) + _texts(raw.get("arguments"))
    identity = {name: str(raw[name]) for name in ("doc_hash", "target") if name in raw}
    return Sample(
        dataset=task,
        question=prompts[0] if prompts else f"{task}/{raw['doc_id']}",
        score=score,
        answer=answers[0] if answers else None,
        image=image,
        group=group,
        error=None if score is not None else f"the field {field!r} holds no score",
        identity=identity,
        references=_references(raw, doc),
        metric=field,
        usage=usage_of(raw.get("token_counts")),
        own_cost=None if cost is None else amount(raw.get(cost)),
    )


def _references(raw: Mapping[str, Any], doc: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Reference answers of a sample, whose ``target`` newer versions write as one text.

    NOTE: textvqa, vizwiz_vqa and vqav2 name a field ``answer`` that their data do not have; their
    target is then this word itself (``api/task.py``, ``doc_to_target``), and the answers, where a
    sample has its doc, are in ``answers``.
    """
    target = raw.get("target")
    if target == "answer":
        said = doc.get("answers")
        target = [
            one.get("answer") if isinstance(one, dict) else one
            for one in (said if isinstance(said, list) else [])
        ]
    if isinstance(target, str):
        return references_in(target) if target.strip() else None
    if isinstance(target, int | float) and not isinstance(target, bool):
        return (str(target),)
    return tuple(_texts(target)) or None


def _image(task: str, doc: Mapping[str, Any], metric: Any) -> tuple[str | None, str]:
    """Give the group and the image path that a sample names."""
    for start, field in METRIC_IMAGES.items():
        if task == start and isinstance(metric, dict) and metric.get(field):
            return f"{task}/{metric[field]}", ""
    for field in IMAGE_FIELDS:
        value = doc.get(field)
        if isinstance(value, int | str) and not isinstance(value, bool) and str(value).strip():
            named = (
                str(value).lower().endswith(IMAGES)
                and not leaves_folder(str(value))
                and not image_path(str(value))[1]
            )
            return f"{task}/{value}", str(value) if named else ""
    return None, ""


def _texts(value: Any) -> list[str]:
    """List the texts in a value that may be nested lists (versions nest differently)."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return []
