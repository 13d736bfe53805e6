"""Say who may ask a server.

The key file holds SHA-256 sums of tokens, never the tokens. A running `m3router serve` notices a
change within about a second.

```
m3router keys add keys.jsonl alice --requests-per-minute 60
m3router keys list keys.jsonl
m3router keys revoke keys.jsonl alice
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.router.cli.console import say, show_table
from m3router.router.cli.streams import out
from m3router.router.serve.guard.key_file import add_key, list_keys, revoke_key

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__
)

KeyFile = Annotated[Path, typer.Argument(help="The key file.", show_default=False)]
Name = Annotated[str, typer.Argument(help="Whose key.", show_default=False)]


@app.command("add")
def add(
    file: KeyFile,
    name: Name,
    requests_per_minute: Annotated[
        float | None,
        typer.Option(
            min=1, help="This key's own limit instead of the server's.", show_default=False
        ),
    ] = None,
) -> None:
    """Draw a token, print it once, and store its SHA-256 only.

    ```
    m3router keys add keys.jsonl alice --requests-per-minute 60
    ```
    """
    token = add_key(file, name, requests_per_minute=requests_per_minute)
    say(f"The token of {name}, shown once and stored nowhere:")
    out.file.write(token + "\n")


@app.command("list")
def show(file: KeyFile) -> None:
    """Show who has a key.

    ```
    m3router keys list keys.jsonl
    ```
    """
    rows = [
        [key.name, key.created, key.requests_per_minute or "", key.sha256[:12]]
        for key in list_keys(file)
    ]
    show_table(["name", "created", "requests a minute", "SHA-256"], rows)


@app.command("revoke")
def revoke(file: KeyFile, name: Name) -> None:
    """Take a key out.

    ```
    m3router keys revoke keys.jsonl alice
    ```
    """
    revoke_key(file, name)
    say(f"{name} is revoked.")
