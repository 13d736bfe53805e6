"""What comes next: after each stage one line with the very command for this run.

Printed among the notes (standard error), so that programs that read the results are not disturbed.
Words in capitals are what only the user knows, such as MODEL; a line before says what they are.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.log.checks import ASKED, UNTIL_CORRECT
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST
from m3router.data.plain_files import is_there
from m3router.data.scoring.judged import is_waiting
from m3router.m3core.options import SPEC
from m3router.router.cli.console import say
from m3router.router.evaluation.evaluate import default_budgets
from m3router.router.runs.run import BY_NAME, Run

MODEL = "MODEL: the folder or hub id of your model; or --endpoint URL in place of --model MODEL."
FOLDER = "IMAGES: the folder that the log's image paths start from."
ASKING = "IMAGE and QUESTION: your own."


def command(*words: object) -> str:
    """A command of this program as it is typed, with what is not plain quoted.

    >>> command("train", Path("my run"), "--gaps", "drop")
    "m3router train 'my run' --gaps drop"
    """
    return shlex.join(["m3router", *map(str, words)])


def show_next(*words: object, where: str = "") -> None:
    """Print the command that comes next.

    Args:
        words: Of it, without the program's name.
        where: What its words in capitals stand for.
    """
    if where:
        say(where)
    say(f"next: {command(*words)}")


def after_examples(examples: Path, images: Path, run: Path) -> None:
    """After examples were written: have a model answer them."""
    words = ["label", "--examples", examples, "--images", images, "--model", "MODEL", "--out", run]
    show_next(*words, where=MODEL)


def after_label(run: Run, log: OracleLog) -> None:
    """After `label`: have the answers judged, where a judge scores them, else train."""
    root = run.root
    if log.frame["error"].map(is_waiting).any():
        told = "URL and NAME: the judge's address and its name there."
        show_next("judge", root, "--judge", "URL", "--model", "NAME", where=told)
        return
    if is_there(run.features_folder / MANIFEST):
        show_next(*_train_words(run, log))
    elif log.complete.any():
        after_import(run, log)
    else:
        say("No question was answered at every option, so that nothing can be learned: see above.")


def after_import(run: Run, log: OracleLog) -> None:
    """After `import`: features."""
    if any(log.images.tolist()):
        show_next("featurize", run.root, "--images", "IMAGES", where=FOLDER)
    else:
        show_next("featurize", run.root)


def after_features(run: Run) -> None:
    """After `featurize`: train."""
    show_next(*_train_words(run, run.log()))


def after_train(run: Run, log: OracleLog) -> None:
    """After `train`: a budget between the cheapest option and the finest."""
    show_next("calibrate", run.root, "--budget", a_budget(log))


def a_budget(log: OracleLog) -> str:
    """A budget in the middle of those that are worth trying, as it is typed."""
    budgets = default_budgets(log.costs[np.isfinite(log.costs).all(axis=1)])
    return plain_above(budgets[len(budgets) // 2])


def plain_above(value: float) -> str:
    """A number of three digits, not below another.

    >>> plain_above(143.21), plain_above(0.012341), plain_above(12000.0), plain_above(64.0)
    ('144', '0.0124', '12000', '64')
    """
    if value <= 0:
        return "0"
    place = max(2 - math.floor(math.log10(value)), 0)
    while float(text := f"{value:.{place}f}") < value:
        value += 10.0**-place / 2
    return text.rstrip("0").rstrip(".") if "." in text else text


def after_judge(run: Run, log: OracleLog) -> None:
    """After `judge`: train, where there are features."""
    if is_there(run.features_folder / MANIFEST):
        show_next(*_train_words(run, log))
    else:
        after_import(run, log)


def after_monitor(found: Mapping[str, Any], run: Run, traffic: Run, policy: str) -> None:
    """After `monitor`: look again with more traffic, or learn from this one after an alarm."""
    if found["alarm"]:
        say("Learn from this traffic, then calibrate and monitor the new run:")
        show_next(*_train_words(traffic, traffic.log()))
    else:
        say("Label more traffic into the same folder, and judge it again:")
        show_next("monitor", run.root, "--traffic", traffic.root, "--policy", policy)


def after_report(run: Run) -> None:
    """After `report`: use it; or make a policy first, where there is none."""
    log, names = run.log(), run.policy_names()
    if not names:
        after_train(run, log)
        return
    policy = [] if "default" in names else ["--policy", names[0]]
    image = ["IMAGE"] if any(log.images.tolist()) else []
    where = ASKING if image else "QUESTION: your own."
    if "source" in log.metadata or not image:  # imported: what answered is not here
        show_next("route", run.root, *image, "QUESTION", *policy, where=where)
        return
    model = _model_words(run)
    if model:
        where = f"{where} {MODEL}" if "MODEL" in model else where
    show_next("ask", run.root, *image, "QUESTION", *policy, *model, where=where)


def _train_words(run: Run, log: OracleLog) -> list[object]:
    """`train`, with what it must be told of this log."""
    gaps = ["--gaps", "drop"] if log.n_gaps else []
    rule = ["--rule", "reached"] if log.metadata.get(ASKED) == UNTIL_CORRECT else []
    return ["train", run.root, *gaps, *rule]


def _model_words(run: Run) -> list[str]:
    """`--model`, where the model's own name does not find it."""
    name = str(run.log().metadata.get("model", ""))
    if name in BY_NAME or SPEC in run.log().metadata:
        return []
    return ["--model", name if Path(name).exists() or "/" in name else "MODEL"]
