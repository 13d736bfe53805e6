"""What comes next: after each stage one line with the very command for this run.

Printed among the notes (standard error), so that programs that read the results are not disturbed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.json_files import read_json_object
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST
from m3router.data.plain_files import is_there
from m3router.router.cli.console import say
from m3router.router.runs.run import Run

SHARE = 4
"""A budget that is suggested is the finest option's mean cost over this."""


def command(*words: object) -> str:
    """A command of this program as it is typed, with what is not plain quoted.

    >>> command("train", Path("my run"), "--gaps", "drop")
    "m3router train 'my run' --gaps drop"
    """
    return shlex.join(["m3router", *(str(word) for word in words if str(word))])


def show_next(*words: object, why: str = "") -> None:
    """Print the command that comes next."""
    say(f"next: {command(*words)}{f'  ({why})' if why else ''}")
