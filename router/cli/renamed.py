"""Options as they were called before, for an error that names the new one; until 1.0.

docs/renames.md has the same list in words.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

_POLICY = "it is now --policy"
_GROUPS = "it is now --feature-group, once for each group: --feature-group image"
_SHARES = "it is now --split-share, once for each part: --split-share fit=0.5"
_IMAGES = "it is now --images"

RENAMED: dict[str, dict[str, str]] = {
    "ask": {"--run": "the run comes first: m3router ask RUN IMAGE QUESTION"},
    "calibrate": {"--name": _POLICY},
    "cost": {"--picture": "it is now --image-size"},
    "demo": {"--run": "the run comes first: m3router demo RUN"},
    "featurize": {"--tiers": _GROUPS},
    "fetch": {"--picture-file": "it is now --image-file"},
    "import": {
        "--pictures": _IMAGES,
        "--columns": "it is now --column, once for each column: --column id=sample_id",
    },
    "label": {"--tiers": _GROUPS},
    "monitor": {"--name": _POLICY},
    "serve": {
        "--wave": "it is now --encode-batch-size",
        "--pictures": "it is now --image-cache-size",
        "--seconds": "it is now --request-timeout",
        "--drain": "it is now --shutdown-timeout",
        "--open": "it is now --allow-unauthenticated",
        "--per-minute": "it is now --requests-per-minute",
        "--proxies": "it is now --trusted-proxy, once for each address",
    },
    "traffic": {
        "--list": "it is now m3router traffic list FOLDER",
        "--forget": "it is now m3router traffic forget FOLDER ID",
        "--purge": "it is now m3router traffic purge FOLDER",
        "--write": "it is now m3router traffic write FOLDER NAME",
        "--sheet": "it is now m3router traffic sheet FOLDER FILE",
        "--answers": "it is now m3router traffic answers FOLDER FILE",
    },
    "train": {"--tiers": _GROUPS, "--shares": _SHARES},
    "tune": {
        "--estimators": "it is now --estimator, once for each: --estimator logistic",
        "--shares": _SHARES,
    },
}
"""Command -> option as it was -> what it is now."""


def refuse_renamed(command: str, arguments: Sequence[str]) -> None:
    """Say what an option is called now.

    Raises:
        BadParameter: If one of the arguments is an option of before.
    """
    for word in arguments:
        if word == "--":
            return
        option = word.partition("=")[0]
        if option in RENAMED.get(command, {}):
            raise typer.BadParameter(RENAMED[command][option], param_hint=option)
