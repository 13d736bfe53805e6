"""Judging a log: each distinct answer once, journalled as verdicts come, then scores in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from m3router.data.errors import DataError, ModelError
from m3router.data.example import Example
from m3router.data.log.checks import ASKED, JUDGE
from m3router.data.log.journal import Journal
from m3router.data.log.oracle_log import OracleLog
from m3router.data.paths import StrPath, as_path
from m3router.data.registry import unknown_name
from m3router.data.scoring.judged import NOT_JUDGED, is_waiting
from m3router.data.scoring.metrics import JUDGED
from m3router.m3core.endpoint.caller import StoppedError
from m3router.m3core.judging.judge import COUNTS, IN_FLIGHT, Judge, Verdict
from m3router.m3core.judging.protocols.base import JudgeRequest, Protocol
from m3router.m3core.options import Failure, Usage

ALL = "all"
"""Value of a log's :data:`ASKED` where every option was asked for an answer."""
HOPELESS = 20
"""So many first verdicts that all cannot be had end a run: the next ones would not be better."""
VERDICT = "verdict"
"""What stands for the scale in a journal of verdicts; its examples are the keys of requests."""
_LOOK = 0.25  # seconds between looks at whether to stop

Progress = Callable[[int, int], None]
"""Called with (verdicts that are there, verdicts in all)."""


class JudgingStopped(Exception):
    """Judging ended before its end; verdicts so far are in the journal, and the log is as it was.

    Attributes:
        done: Verdicts that are there.
        total: Verdicts in all.
        interrupted: Whether it was Ctrl-C.
    """

    interrupted = False

    def __init__(self, done: int = 0, total: int = 0) -> None:
        super().__init__(f"{done} of {total} verdicts are there; go on with the same command")
        self.done = done
        self.total = total


def judge_log(
    log: OracleLog,
    judge: Judge,
    *,
    folder: StrPath,
    examples: Iterable[Example] = (),
    datasets: Sequence[str] = (),
    in_flight: int = IN_FLIGHT,
    progress: Progress | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> OracleLog:
    """Score the answers of a log by a judge.

    Equal answers to the same question, at several options say, are judged once. Verdicts that an
    earlier call left in ``folder`` are not asked for again; those that failed are.

    Args:
        log: With answers and their references.
        judge: Whom to ask.
        folder: Receives the journal of verdicts; another one for each judge.
        examples: Know what the log may lack: references, and what a judge is told of images.
        datasets: Judge these only, ``NAME`` or ``NAME/CATEGORY``; none for all examples of the
            protocol's metric, or for all where the log has none of it.
        in_flight: Most requests at a time, at least 1.
        progress: Called after every verdict.
        stopped: Whether to end: what is in flight is waited for.

    Returns:
        A log whose judged answers have the judge's scores and the metric ``judge:PROTOCOL``.
        Answers that could not be judged have error records. How the judge was asked, what it
        used, what the benchmark publishes of each option, and what scores were before is in the
        metadata (:data:`JUDGE`); the same of other protocols that judged other examples of the log
        before is in its key ``others``.

    Raises:
        JudgingStopped: ``stopped`` said so, or Ctrl-C came.
        DataError: If there is nothing that can be judged, the journal is damaged, or the disk is
            full (nothing is lost then).
        ModelError: If nothing can be asked any more, or all of the first verdicts failed.
    """
    folder = as_path(folder)
    if in_flight < 1:
        raise DataError(f"at least 1 request must be in flight, not {in_flight}")
    requests = requests_of(log, judge, examples=examples, datasets=datasets)
    distinct = dict(zip(map(judge.key, requests.values()), requests.values(), strict=True))
    with Journal.open(folder, judge.settings, retry_errors=True) as journal:
        waiting = {key: one for key, one in distinct.items() if not journal.has(key, [VERDICT])}
        state = _State(done=len(distinct) - len(waiting), total=len(distinct), progress=progress)
        state.show()
        _ask(judge, waiting, journal, state, in_flight=in_flight, stopped=stopped)
        rows = {row["example_id"]: row for row in journal.read_rows()}
    if all(rows[key]["error"] is not None for key in distinct):
        raise _no_verdicts(len(distinct), rows[next(iter(distinct))]["error"])
    verdicts = {row: rows[judge.key(request)] for row, request in requests.items()}
    return _judged(log, judge, verdicts)


def requests_of(
    log: OracleLog,
    judge: Judge,
    *,
    examples: Iterable[Example] = (),
    datasets: Sequence[str] = (),
) -> dict[int, JudgeRequest]:
    """What a judge is asked about a log: row of its frame -> request; see :func:`judge_log`.

    Raises:
        DataError: If there is nothing that can be judged, or something that it needs is missing.
    """
    if log.metadata.get(ASKED) not in (None, ALL):
        raise DataError(
            f"The log was labelled as {log.metadata[ASKED]!r}, so it does not hold an answer at "
            "every option that could be judged. Label into another folder, without that option."
        )
    frame = log.frame
    frame = frame[_chosen(frame, judge.protocol, datasets)]
    answered = frame["error"].isna() | frame["error"].map(is_waiting)
    frame = frame[answered & frame["answer"].notna()]
    if frame.empty:
        raise DataError("The log has no answers that could be judged: did its tool record them?")
    known = {one.id: one for one in examples}
    asked: dict[str, JudgeRequest] = {}
    missing: dict[str, list[str]] = {"reference answers": [], "context": []}
    first = frame.drop_duplicates("example_id")
    columns = (first[name] for name in ("example_id", "question", "references"))
    for name, question, recorded in zip(*columns, strict=True):
        example = known.get(name)
        references = recorded or (example.answers if example else ())
        context = example.context if example else ""
        if not references:
            missing["reference answers"].append(name)
        if judge.protocol.needs_context and not context:
            missing["context"].append(name)
        asked[name] = JudgeRequest(
            question=question, references=tuple(references), answer="", context=context
        )
    for what, lacking in missing.items():
        if lacking:
            raise DataError(
                f"{len(lacking)} examples, first {lacking[0]!r}, have no {what} for the judge: "
                "give the examples that the log was made from (--examples)."
            )
    return {
        int(place): replace(asked[str(example)], answer=str(answer))
        for place, example, answer in zip(
            frame.index, frame["example_id"], frame["answer"], strict=True
        )
    }


def metric_of(protocol: Protocol) -> str:
    """The metric that answers have in a log once they are judged by a protocol."""
    return f"{JUDGED}{protocol.name}"


def _chosen(frame: pd.DataFrame, protocol: Protocol, datasets: Sequence[str]) -> pd.Series:
    """Which rows are judged."""
    if datasets:
        names = frame["dataset"]
        parts = names.str.partition("/")[0]
        there = {*names.unique(), *parts.unique()}
        for name in datasets:
            if name not in there:
                raise DataError(unknown_name("data set", name, there))
        return names.isin(datasets) | parts.isin(datasets)
    own = frame["metric"] == metric_of(protocol)
    other = frame["metric"].fillna("").str.startswith(JUDGED) & ~own
    if not own.any() and other.any():
        raise DataError(
            f"The log's answers are judged as {frame['metric'][other].iloc[0]!r}, not by "
            f"{protocol.name!r}. Give that protocol, or name data sets (--dataset)."
        )
    return own if own.any() else pd.Series(True, index=frame.index)


@dataclass
class _State:
    """How far judging has come."""

    done: int
    total: int
    progress: Progress | None
    failed: int = 0
    verdicts: int = 0

    def count(self, verdict: Verdict | Failure) -> None:
        self.done += 1
        self.failed += isinstance(verdict, Failure)
        self.verdicts += isinstance(verdict, Verdict)
        self.show()

    @property
    def hopeless(self) -> bool:
        """Whether all of the first ones failed."""
        return self.failed == HOPELESS and not self.verdicts

    def show(self) -> None:
        if self.progress:
            self.progress(self.done, self.total)


def _ask(
    judge: Judge,
    waiting: Mapping[str, JudgeRequest],
    journal: Journal,
    state: _State,
    *,
    in_flight: int,
    stopped: Callable[[], bool],
) -> None:
    """Ask for verdicts and keep each as it comes; what is in flight at an end is waited for."""
    left = iter(waiting.items())
    pending: dict[Future[Verdict | Failure], str] = {}
    ending: ModelError | JudgingStopped | None = None
    with ThreadPoolExecutor(max_workers=in_flight) as pool:
        while True:
            if ending is None and stopped():
                ending = JudgingStopped()
                judge.stop.set()
            while ending is None and len(pending) < in_flight:
                key, request = next(left, ("", None))
                if request is None:
                    break
                pending[pool.submit(judge.judge, request)] = key
            if not pending:
                break
            for future in wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED).done:
                key = pending.pop(future)
                try:
                    verdict = future.result()
                except StoppedError:
                    continue
                except ModelError as error:
                    ending = ending or error
                    continue
                journal.append([_row(key, waiting[key], verdict)])
                state.count(verdict)
                if isinstance(verdict, Failure) and state.hopeless:
                    ending = ending or _no_verdicts(HOPELESS, verdict.message)
    if isinstance(ending, JudgingStopped):
        raise JudgingStopped(state.done, state.total)
    if ending is not None:
        raise ending


def _no_verdicts(count: int, cause: str) -> ModelError:
    return ModelError(
        f"none of the first {count} verdicts could be had, the last one because {cause}. Check the "
        "judge, its name, and whether it needs other fields of the request (--body)."
    )


def _row(key: str, request: JudgeRequest, verdict: Verdict | Failure) -> dict[str, Any]:
    """A line of the journal."""
    usage = verdict.usage or Usage()
    row: dict[str, Any] = {
        "example_id": key,
        "scale": VERDICT,
        "question": request.question,
        "answer": request.answer,
        **{name: getattr(usage, name) for name in COUNTS},
    }
    if isinstance(verdict, Failure):
        return {**row, "error": verdict.message}
    return {
        **row,
        "error": None,
        "score": verdict.score,
        "numbers": dict(verdict.numbers),
        "reply": verdict.reply,
        "model": verdict.model,
    }


def _judged(log: OracleLog, judge: Judge, verdicts: Mapping[int, Mapping[str, Any]]) -> OracleLog:
    """The log with the judge's scores."""
    frame, metric = log.frame, metric_of(judge.protocol)
    rows = list(verdicts)
    before = _means(frame.loc[rows])
    said = [verdicts[row] for row in rows]
    frame.loc[rows, "score"] = [one.get("score", np.nan) for one in said]
    errors = [None if one["error"] is None else f"{NOT_JUDGED}: {one['error']}" for one in said]
    frame.loc[rows, "error"] = pd.Series(errors, index=rows, dtype=object)
    of_judged = frame["example_id"].isin(frame.loc[rows, "example_id"].unique())
    frame.loc[of_judged, "metric"] = metric
    earlier = log.metadata.get(JUDGE, {})
    others = earlier.pop("others", {})
    if earlier and earlier["protocol"] != judge.protocol.name:
        others[earlier["protocol"]], earlier = earlier, others.pop(judge.protocol.name, {})
    recorded = {
        **judge.settings,
        "url": judge.url,
        "date": datetime.now(UTC).date().isoformat(),
        "source": judge.protocol.source,
        "published_judge": judge.protocol.judge,
        "deviations": list(judge.protocol.deviations),
        "system": judge.protocol.system,
        "prompt": judge.protocol.prompt,
        "models": sorted({one["model"] for one in said if one.get("model")}),
        "usage": _used(said),
        "published": _published(frame.loc[rows], judge.protocol, verdicts),
        "before": earlier.get("before", before),
        "others": others,
    }
    return OracleLog(
        frame,
        options=log.options,
        cost_unit=log.cost_unit,
        metadata={**log.metadata, JUDGE: recorded},
    )


def _used(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """What the verdicts cost, each distinct one once; None where no reply told."""
    distinct = {one["example_id"]: one for one in verdicts}.values()
    used: dict[str, float | None] = {"verdicts": len(distinct)}
    for name in COUNTS:
        known = [one[name] for one in distinct if one.get(name) is not None]
        used[name] = sum(known) if known else None
    return used


def _published(
    frame: pd.DataFrame, protocol: Protocol, verdicts: Mapping[int, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """What the benchmark publishes, of each option."""
    found = {}
    for option, rows in frame.groupby("scale", sort=False):
        said = [(rows["dataset"][row], verdicts[row].get("numbers")) for row in rows.index]
        found[str(option)] = protocol.summary([(name, one) for name, one in said if one])
    return found


def _means(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean scores so far: metric -> option -> mean; those that waited for a judge have none."""
    scored = frame[frame["score"].notna()]
    means: dict[str, dict[str, float]] = {}
    for metric, of_metric in scored.groupby(scored["metric"].fillna("unknown"), sort=False):
        of_option = of_metric.groupby("scale", sort=False)["score"].mean()
        means[str(metric)] = {str(option): float(mean) for option, mean in of_option.items()}
    return means
