"""The data card of an exported oracle log: front matter that hubs read, and what people read."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from m3router.data.log.files import HUB_PARQUET
from m3router.data.log.oracle_log import OracleLog

COLUMNS = {
    "example_id": "the question about an image; one row per option",
    "group": "examples of one image share it; keep them on one side of a split",
    "dataset": "where the example is from",
    "question": "what was asked",
    "image": "image, relative to a folder of images; images are not part of this data set",
    "scale": "the option that answered",
    "cost": "what the answer cost, in the cost unit",
    "answer": "what was answered",
    "score": "how right it is, in [0, 1]; empty where there is an error",
    "logprob": "log-probability of the answer in nats, summed over its tokens",
    "confidence": "top probability of the answer's first token",
    "answer_tokens": "tokens of the answer",
    "text_tokens": "tokens of the prompt that are text",
    "flops": "floating-point operations of the language model for the answer",
    "vision_flops": "those of vision tower and projector for the image at this option",
    "chance": "probability that a blind guess is right",
    "error": "why there is no score; a failed generation is never a wrong answer",
    "references": "reference answers; empty where there are none, null where they are not known",
    "metric": "how answers were compared with the references",
    "max_new_tokens": "tokens of the longest answer that was allowed",
    "finish": "`stop` where the model ended its answer, `length` where it was cut",
    "image_tokens": "all tokens of the prompt that stand for the image",
    "image_tokens_from": "`counted` in the prompt, `reported` by a server, or `derived`",
    "cached_tokens": "tokens of the prompt that a server had read before",
    "seconds": "wall-clock time of the answer",
    "attempts": "requests that were sent for it",
    "pixels": "width times height of the image as it was sent or shown",
    "price": "money for the answer",
}
"""Columns of the rows, as :data:`m3router.data.log.checks.SCHEMA` has them, in a reader's words."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_CITATION = """@inproceedings{cai2025matryoshka,
  title = {Matryoshka Multimodal Models},
  author = {Cai, Mu and Yang, Jianwei and Gao, Jianfeng and Lee, Yong Jae},
  booktitle = {International Conference on Learning Representations},
  year = {2025},
  eprint = {2405.17430},
  archivePrefix = {arXiv}
}"""
_MOST_ERRORS = 5
_MOST_DATASETS = 30


def data_card(log: OracleLog, *, licence: str) -> str:
    """Write the card.

    Args:
        log: At least one example.
        licence: Identifier as the hub writes it.

    Returns:
        Markdown with a YAML front matter.
    """
    frame, metadata = log.frame, log.metadata
    made = [[key, _short(value)] for key, value in metadata.items() if key != "unmapped"]
    told = [f"- {_plain(one)}" for one in metadata.get("unmapped", ())]
    parts = [
        _front(len(frame), licence),
        f"# Oracle log: {_plain(_short(metadata.get('model', metadata.get('source', 'a model'))))}",
        f"What {len(log)} questions about {len(set(log.groups))} images or other groups were "
        f"answered at each of {len(log.options)} options ({', '.join(map(_plain, log.options))}), "
        f"right or wrong. Costs count {_plain(log.cost_unit)}. A router learns from such a log "
        "which option suffices for a question.",
        "```python\nfrom datasets import load_dataset\n\n"
        'rows = load_dataset("this/dataset", split="train")\n```',
        "As a log again: download this folder, then `m3router import exported FOLDER --out run/`.",
        "## Accuracy by option",
        _table(
            ["option", "scored", "accuracy %", f"mean {log.cost_unit}", "no score"], _means(log)
        ),
        "## Accuracy % by data set",
        _table(["data set", "examples", *log.options], _by_dataset(log)),
        "## Errors",
        _errors(frame),
        "## How it was made",
        _table(["what", "value"], made) if made else "The log does not say.",
        *(["What its importer could not map:", "\n".join(told)] if told else []),
        "## Columns",
        _table(["column", "meaning"], [[f"`{name}`", text] for name, text in COLUMNS.items()]),
        "## Licence",
        "Not stated." if licence == "unknown" else licence,
        "Questions and answers come from the data sets named above, whose own terms hold too.",
        "## Citation",
        "Cite the data sets and the model that the log was made with. The oracle over scales is "
        "from:",
        f"```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _front(rows: int, licence: str) -> str:
    size = next((name for most, name in _SIZES if rows < most), _LARGEST)
    return "\n".join(
        [
            "---",
            f"license: {licence}",
            "pretty_name: Oracle log",
            "task_categories:",
            "- visual-question-answering",
            "tags:",
            "- m3router",
            "- oracle-log",
            "- model-routing",
            "size_categories:",
            f"- {size}",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            f"    path: {HUB_PARQUET}",
            "---",
        ]
    )


def _means(log: OracleLog) -> list[list[str]]:
    rows = []
    for place, option in enumerate(log.options):
        scores, costs = log.scores[:, place], log.costs[:, place]
        scored = np.isfinite(scores)
        known = costs[np.isfinite(costs)]
        rows.append(
            [
                option,
                str(int(scored.sum())),
                _percent(scores),
                f"{known.mean():.6g}" if known.size else "",
                str(int((~scored).sum())),
            ]
        )
    return rows


def _by_dataset(log: OracleLog) -> list[list[str]]:
    names, counts = np.unique(log.datasets.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows = [
        [names[i], str(counts[i]), *map(_percent, log.scores[log.datasets == names[i]].T)]
        for i in order[:_MOST_DATASETS]
    ]
    if len(names) > _MOST_DATASETS:
        rest = np.isin(log.datasets.astype(str), names[order[_MOST_DATASETS:]])
        more = f"{len(names) - _MOST_DATASETS} more"
        rows.append([more, str(int(rest.sum())), *map(_percent, log.scores[rest].T)])
    return rows


def _errors(frame: pd.DataFrame) -> str:
    """Count the rows without a score by cause."""
    causes = frame["error"].dropna().map(lambda text: text.splitlines()[0][:120] if text else "")
    if causes.empty:
        return "None: every row has a score."
    counts = causes.value_counts()
    rows = [[str(count), str(cause)] for cause, count in counts.head(_MOST_ERRORS).items()]
    if len(counts) > _MOST_ERRORS:
        rows.append([str(counts.iloc[_MOST_ERRORS:].sum()), "other causes"])
    return f"{len(causes)} rows have no score:\n\n{_table(['rows', 'cause'], rows)}"


def _percent(scores: np.ndarray) -> str:
    found = scores[np.isfinite(scores)]
    return f"{100 * found.mean():.1f}" if found.size else ""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _plain(text: str) -> str:
    """Make a text of the log's safe for one line of Markdown."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
