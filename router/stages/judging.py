"""The stage that scores a log's answers by a judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.log.checks import JUDGE
from m3router.data.log.oracle_log import OracleLog
from m3router.data.progress import as_counted, watched
from m3router.data.scoring.metrics import JUDGED
from m3router.data.sources.benchmarks.table import BENCHMARKS, benchmark
from m3router.m3core.judging.judge import IN_FLIGHT, Judge
from m3router.m3core.judging.protocols.table import PROTOCOLS
from m3router.m3core.judging.run import JudgingStopped, Progress, judge_log
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.tuning.stopping import stop_on_signals

BEFORE = "before"


def protocol_for(log: OracleLog) -> str:
    """The protocol that a log's answers are published with.

    By its metrics, else by the names of its data sets, where they are those of `m3router fetch`.

    Raises:
        DataError: when there is none, or more than one.
    """
    metrics = {str(name) for name in log.metrics}
    found = {name.removeprefix(JUDGED) for name in metrics if name.startswith(JUDGED)}
    names = {str(name).partition("/")[0] for name in log.datasets}
    found = found or {benchmark(one).judge for one in names if one in BENCHMARKS} - {""}
    if len(found) != 1:
        which = f"more than one ({', '.join(sorted(found))})" if found else "none"
        raise DataError(
            "Which protocol the judge is to follow must be said (--protocol): the log's metrics "
            f"and data sets name {which}. Known: {', '.join(PROTOCOLS)}."
        )
    return found.pop()


def verdicts_folder(run: Run, judge: Judge) -> Path:
    """Where the verdicts of a judge are kept: each judge and prompt has a folder of its own."""
    return run.root / "judging" / f"{judge.protocol.name}-{judge.fingerprint[:12]}"


def judge_stage(
    run: AnyRun,
    judge: Judge,
    *,
    examples: Iterable[Example] = (),
    datasets: Sequence[str] = (),
    in_flight: int = IN_FLIGHT,
    progress: Progress | bool | None = True,
) -> OracleLog:
    """Score the answers of a run's log by a judge; works on imported logs too.

    An interrupted run goes on where it stopped. The log is replaced when all verdicts are there;
    as it was before any judge it stays in `judging/before`.

    Args:
        run: must hold `log/`; receives `judging/`.
        judge: whom to ask.
        examples: those that the log was made from, where it lacks what the judge must know.
        datasets: judge these only; see `m3router.m3core.judging.judge_log`.
        in_flight: most requests at a time.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called with (verdicts that are there, verdicts in all).

    Returns:
        The log with the judge's scores.

    Raises:
        JudgingStopped: SIGTERM or Ctrl-C came; verdicts that are there are kept.
        DataError: when there is no log, or nothing in it that can be judged.
        ModelError: when the judge cannot be asked any more; verdicts that are there are kept.
    """
    run = as_run(run)
    log = run.log(as_labelled=True)
    folder = verdicts_folder(run, judge)
    with stop_on_signals() as stop, watched(progress, "judging", as_counted) as show:
        try:
            judged = judge_log(
                log,
                judge,
                folder=folder,
                examples=examples,
                datasets=datasets,
                in_flight=in_flight,
                progress=show,
                stopped=lambda: stop.asked,
            )
        except JudgingStopped as error:
            error.interrupted = stop.interrupted
            raise
    before = run.root / "judging" / BEFORE
    if JUDGE not in log.metadata:
        log.write(before)
    judged.write(run.log_folder, inputs={"before": before})
    return judged
