"""An oracle log as a data set: a folder as data-set hubs lay it out, with its data card.

``datasets.load_dataset(folder)`` reads its rows;
:meth:`m3router.data.log.oracle_log.OracleLog.read` and ``m3router import exported`` read it back as
the same log, after checking its hash.
"""

from __future__ import annotations

import re

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from m3router.data.errors import DataError
from m3router.data.log.card import data_card
from m3router.data.log.files import HUB_PARQUET
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST, atomic_write_text
from m3router.data.paths import StrPath, as_path

README = "README.md"
NO_LICENCE = "unknown"

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def export_log(log: OracleLog, folder: StrPath, *, licence: str = NO_LICENCE) -> None:
    """Write rows, data card and manifest.

    Args:
        log: What to publish.
        folder: A new folder, or one that was exported to before.
        licence: Identifier as the hub writes it, such as ``"cc-by-4.0"``.

    Raises:
        DataError: The log is empty, the folder holds something else or cannot be written, or the
            licence is not an identifier.
    """
    folder = as_path(folder)
    if len(log) == 0:
        raise DataError("The oracle log is empty: there is nothing to export.")
    if not _LICENCE.fullmatch(licence):
        raise DataError(
            f"The licence must be an identifier such as 'cc-by-4.0' or 'apache-2.0', got "
            f"{licence!r}. See https://hf.co/docs/hub/repositories-licenses."
        )
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / HUB_PARQUET).is_file()
    ):
        raise DataError(f"{folder} holds something else than an exported log. Name a new folder.")
    log.write(folder, file=HUB_PARQUET)
    atomic_write_text(folder / README, data_card(log, licence=licence))


def read_exported(folder: StrPath) -> OracleLog:
    """Read an exported log back.

    Raises:
        DataError: The folder holds none, or it was changed since.
    """
    folder = as_path(folder)
    return OracleLog.read(folder)


def push_to_hub(folder: StrPath, name: str, *, private: bool) -> str:
    """Upload an exported log as a data set of the Hugging Face hub.

    The token is the one of ``hf auth login`` or of ``HF_TOKEN``. Nothing but the card, the rows
    and the manifest is uploaded.

    Args:
        folder: What :func:`export_log` wrote.
        name: ``user-or-organisation/data-set``; made if it does not exist.
        private: Make a new data set private.

    Returns:
        Its address.

    Raises:
        DataError: There is no token, no connection, no such name, or the hub refuses.
    """
    folder = as_path(folder)
    OracleLog.read(folder)
    if not _REPOSITORY.fullmatch(name):
        raise DataError(f"The data set's name must be 'owner/name', got {name!r}.")
    if get_token() is None:
        raise DataError(
            "There is no token for the Hugging Face hub: run `hf auth login`, or set HF_TOKEN to "
            "one that may write."
        )
    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            repo_type="dataset",
            allow_patterns=[README, MANIFEST, HUB_PARQUET],
            commit_message="Oracle log",
        )
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise DataError(
            f"{name} could not be uploaded ({type(error).__name__}: {error}). The folder {folder} "
            "is complete: check the connection, the name and what the token may do, and run the "
            "same command again."
        ) from error
    return f"{api.endpoint}/datasets/{name}"
