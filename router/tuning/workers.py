"""Which process runs a trial, and whether it still lives."""

from __future__ import annotations

import functools
import os
import secrets
import socket
import time
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

WORKER = "worker"
RETRY_OF = "retry_of"
STALE_AFTER = 6 * 3600.0
"""Seconds after which a trial of another machine is taken for lost."""


@functools.cache
def _token(pid: int) -> str:
    return secrets.token_hex(8)


def this_worker() -> dict[str, Any]:
    """This process and the time, as trials record them."""
    pid = os.getpid()
    began = time.time()
    return {"host": socket.gethostname(), "pid": pid, "token": _token(pid), "began": began}


def gone(trial: FrozenTrial) -> bool:
    """Whether the trial's process ran on this machine and has ended."""
    worker, ours = trial.user_attrs.get(WORKER), this_worker()
    if worker is None or worker["host"] != ours["host"]:
        return False
    if worker["pid"] == ours["pid"]:
        return bool(worker["token"] != ours["token"])
    try:
        os.kill(worker["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, as another user
        return False
    return False


def live(trial: FrozenTrial) -> bool:
    """Whether a running trial can still be hoped for.

    Not when its process is gone. Of other machines nothing is known, so their trials are not
    waited for after `STALE_AFTER` (a database, which has heartbeats, tells earlier). A trial
    whose process ended before it could write who it is has no worker.
    """
    worker = trial.user_attrs.get(WORKER)
    if worker is None or gone(trial):
        return False
    return bool(time.time() - worker["began"] < STALE_AFTER)


def fail_dead(study: optuna.Study) -> None:
    """Record running trials whose process is gone as failed, and have them tried once more."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if gone(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):  # another process was faster
                continue
            retry_once(study, trial)


def retry_once(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the setting of a killed trial again, unless it was killed before.

    A setting that needs more memory than there is must not end every process that resumes.
    """
    if trial.params and RETRY_OF not in trial.user_attrs:
        study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})
