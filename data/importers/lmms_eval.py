"""Runs of lmms-eval with ``--log_samples``: one run per option, or several over different tasks.

A run writes ``<date>_samples_<task>.jsonl`` beside ``<date>_results.json``
(``lmms_eval/loggers/evaluation_tracker.py``, ``save_results_samples``), one sample per line:
``doc_id``, ``target``, ``doc_hash``, ``input``, ``filtered_resps`` and the task's metrics, but not
the ``doc``. Versions without that module wrote ``<task>.json``, with ``doc`` and the rest under
``logs`` (``lmms_eval/__main__.py``). Single responses are nested once less since pull request 1103.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.importers.image_cells import image_path
from data.importers.joined import Runs, Sample, join, listed, places
from data.importers.lmms_eval_runs import MARK, about_runs, output_tokens, tokens_of
from data.importers.lmms_eval_scores import STRUCTURE, metric_of, score_of
from data.importers.references import references_in
from data.oracle_log import OracleLog
from data.sources.paths import leaves_folder

IMAGE_FIELDS = ("image_id", "imageId", "image_path", "img_path", "image_name", "img_id", "image")
"""Fields of a ``doc`` that name its picture, in the order they are looked for."""
METRIC_IMAGES = {"mme": "question_id"}
"""Task -> field of its metric that names the picture: both questions of an MME pair have it."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def read_lmms_eval(
    runs: Runs,
    *,
    costs: Mapping[str, float] | None = None,
    cost_unit: str = "cost",
    metric: Mapping[str, str] | None = None,
    pictures: str | None = None,
    skip_bad: bool = False,
) -> OracleLog:
    """Read the runs of each option and join them by task and ``doc_id``.

    The dataset is the task. The group is the picture that the sample's ``doc`` names, else the
    example stands alone. ``doc_hash`` and ``target`` must agree between options. Scores are read
    as :mod:`data.importers.lmms_eval_scores` says. Tokens of answers are those of
    ``token_counts``, where samples have it. NOTE: chance is 0; the files do not tell it.

    Args:
        runs: Option -> samples file, or folder that holds the samples files of one run, or
            several of either over different tasks.
        costs: Option -> cost of an answer; see :func:`data.importers.joined.join`.
        cost_unit: What the costs count.
        metric: Task, or ``"*"`` for all -> field that holds the score of a sample.
        pictures: Path of a picture that no sample names, such as ``"{dataset}/{id}.png"``: task
            and ``doc_id``.
        skip_bad: Leave samples out that cannot be read, and tell them, instead of refusing the run.

    Returns:
        The log; ``metadata["unmapped"]`` says in sentences what could not be mapped, and
        ``metadata["runs"]`` what the runs tell of themselves, seconds and tokens among it.

    Raises:
        DataError: A file cannot be read or is not of this form, a sample is doubled, or a score's
            field or form is not known.
        MismatchError: An example is not the same one in two options.
    """
    notes: dict[str, list[str]] = {}
    read: dict[str, dict[str, Sample]] = {}
    about: dict[str, Any] = {}
    for option, given in runs.items():
        samples: dict[str, Sample] = {}
        files = _all_files(option, places(given))
        for task, file in sorted(files.items()):
            logged, bad = _logged(file, skip_bad)
            found, told = _samples(task, file, logged, metric or {}, skip_bad)
            samples.update(found)
            for note in (*bad, *told):
                notes.setdefault(note, []).append(option)
        read[option] = samples
        about[option] = {**about_runs(places(given)), **tokens_of(samples)}
    return join(
        read,
        costs=costs or {},
        cost_unit=cost_unit,
        metadata={"source": "lmms-eval --log_samples", "runs": about},
        pictures=pictures,
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
            logged.append(json.loads(line))
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
        logged = json.loads(text)["logs"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no samples file of lmms-eval ({error!r}): expected JSON with 'logs', or "
            "a .jsonl file. Run lmms-eval with --log_samples."
        ) from error
    if not isinstance(logged, list) or not logged:
        raise DataError(f"{path} holds no samples under 'logs'.")
    return logged


def _samples(
    task: str, path: Path, logged: list[Any], chosen: Mapping[str, str], skip_bad: bool
) -> tuple[dict[str, Sample], list[str]]:
    """Read one task's samples by example id; what is not used or left out is told."""
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
                f"{path}, sample {number}, is no sample of lmms-eval: it has no 'doc_id'."
            )
        field = metric_of(task, raw, chosen)
        try:
            sample = _sample(task, raw, field)
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
        unused.update(key for key in raw if key not in STRUCTURE and key != field)
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
        told.append(f"task {task}: fields not used: {sorted(unused)}")
    return samples, told


def _sample(task: str, raw: Mapping[str, Any], field: str) -> Sample:
    """Map one logged sample."""
    doc: dict[str, Any] = raw["doc"] if isinstance(raw.get("doc"), dict) else {}
    score = score_of(raw[field])
    group, image = _picture(task, doc, raw[field])
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
        answer_tokens=output_tokens(raw.get("token_counts")),
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


def _picture(task: str, doc: Mapping[str, Any], metric: Any) -> tuple[str | None, str]:
    """Give the group and the image path that a sample names."""
    for start, field in METRIC_IMAGES.items():
        if task == start and isinstance(metric, dict) and metric.get(field):
            return f"{task}/{metric[field]}", ""
    for field in IMAGE_FIELDS:
        value = doc.get(field)
        if isinstance(value, int | str) and not isinstance(value, bool) and str(value).strip():
            named = (
                str(value).lower().endswith(PICTURES)
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
