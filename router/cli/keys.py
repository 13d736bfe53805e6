"""`m3router keys`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Action(StrEnum):
    """What is done with a key file."""

    ADD = "add"
    LIST = "list"
    REVOKE = "revoke"


def keys(
    action: Annotated[Action, typer.Argument(help="add, list or revoke.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The key file.", show_default=False)],
    name: Annotated[
        str | None, typer.Argument(help="Whose key; not for list.", show_default=False)
    ] = None,
    requests_per_minute: Annotated[
        float | None,
        typer.Option(
            min=1, help="add: this key's own limit instead of the server's.", show_default=False
        ),
    ] = None,
) -> None:
    """Say who may ask a server.

    `add` draws a token, prints it once and stores its SHA-256 only; `revoke` takes a key out;
    `list` shows names. A running `m3router serve` notices within about a second.

    ```
    m3router keys add keys.jsonl alice --requests-per-minute 60
    m3router keys list keys.jsonl
    m3router keys revoke keys.jsonl alice
    ```
    """
    from router.cli.console import out, say, show_table
    from router.serve.guard.key_file import add_key, list_keys, revoke_key

    if (name is None) != (action is Action.LIST):
        need = "takes no NAME" if name else "needs a NAME"
        raise typer.BadParameter(f"{action.value} {need}")
    if requests_per_minute is not None and action is not Action.ADD:
        raise typer.BadParameter("--requests-per-minute: for add only")
    if action is Action.LIST:
        rows = [
            [key.name, key.created, key.requests_per_minute or "", key.sha256[:12]]
            for key in list_keys(file)
        ]
        show_table(["name", "created", "requests a minute", "SHA-256"], rows)
    elif action is Action.ADD:
        token = add_key(file, str(name), requests_per_minute=requests_per_minute)
        say(f"The token of {name}, shown once and stored nowhere:")
        out.file.write(token + "\n")
    else:
        revoke_key(file, str(name))
        say(f"{name} is revoked.")
