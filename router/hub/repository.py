"""A repository of the hub: what it may hold, downloading it, writing to it.

What a repository holds is untrusted. Its listing is judged before any file is asked for: in the
folders of the layout only names of `router_files` or plain names of policies, none above its
limit. Only those are downloaded, all of the one commit that was listed, and they are read by the
functions that read a run: JSON with its own seal, safetensors, and LightGBM's text whose
structure is checked (`m3router.router.estimators.tree_audit`). Nothing else is opened.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError

from m3router.data.errors import DataError
from m3router.data.paths import StrPath, as_path_or_none
from m3router.router.estimators import estimator_files
from m3router.router.monitoring.familiarity import FILES as FAMILIARITY

logger = logging.getLogger(__name__)

CARD = "README.md"
FOLDERS = ("router", "policies", "cascades")
MOST_BYTES = {".json": 4 << 20, ".safetensors": 512 << 20, ".txt": 64 << 20}
"""Largest file by its ending, in bytes."""
MOST_FILES = 256
LONGEST_CARD = 1 << 20
"""Bytes of a card that is rewritten."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_POLICY = re.compile(r"(policies|cascades)/(?!manifest\.json)[A-Za-z0-9_-][\w.-]*\.json")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Fetched:
    """What lies here now.

    Attributes:
        folder: laid out as a run folder.
        origin: `owner/name@commit` with the commit's 40 digits; "" for a folder of this machine.
    """

    folder: Path
    origin: str


def fetch(
    name: StrPath,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: StrPath | None = None,
) -> Fetched:
    """Download a repository's router, policies and cascades, unless `name` is a folder here.

    Without a connection, what was downloaded earlier is used.

    Args:
        name: `owner/name` on the hub, or a folder laid out as a run folder.
        revision: branch, tag or commit; the newest by default.
        token: of the hub; by default the one of `hf auth login` or of `HF_TOKEN`.
        cache_dir: where downloads are kept; by default the hub's own cache.

    Raises:
        DataError: when there is no such repository or no access, it holds no router or something
            else where a router lies, a file is too large, or the download was cut short.
    """
    if Path(name).is_dir():
        return Fetched(Path(name), "")
    name = checked_name(str(name))
    place = _Place(name, token, cache_dir)
    try:
        info = HfApi(token=token).model_info(name, revision=revision, files_metadata=True)
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise DataError(f"The hub gave no commit for {name}, but {commit!r}.")
        sizes = wanted_files(name, {one.rfilename: one.size for one in info.siblings or ()})
        folder = place.download(revision, sorted(sizes))
        if folder.name != commit:
            raise DataError(f"{name} was changed during the download. Download it again.")
    except HfHubHTTPError as error:
        raise DataError(_refused(name, revision, error)) from error
    except (HTTPError, OSError, ValueError) as error:
        logger.info("%s could not be reached (%s): looking in the cache", name, error)
        folder = _cached(place, revision, error)
        commit, sizes = folder.name, wanted_files(name, _sizes_in(folder))
    for path, size in sizes.items():
        _check_whole(folder / path, size)
    logger.info("%s at the commit %s", name, commit)
    return Fetched(folder, f"{name}@{commit}")


def wanted_files(name: str, sizes: Mapping[str, int | None]) -> dict[str, int]:
    """The files of a listing that are a router's, with their sizes in bytes.

    Files outside of the layout's folders are not looked at, nor downloaded.

    Args:
        name: of the repository, for messages.
        sizes: path to size of everything in it.

    Raises:
        DataError: when there is no router, a file in the layout's folders is none of this
            package's, one is too large or of unknown size, or there are too many.
    """
    inside = {path: size for path, size in sizes.items() if path.split("/")[0] in FOLDERS}
    strange = sorted(path for path in inside if not is_ours(path))
    if strange:
        raise DataError(
            f"{name} holds {', '.join(strange[:3])}, which is not a file of a router, a policy or "
            "a cascade of this package (JSON, safetensors, LightGBM's text). Nothing was "
            "downloaded."
        )
    if "router/router.json" not in inside:
        held = ", ".join(sorted(sizes)[:5]) or "nothing"
        raise DataError(
            f"{name} holds no router of this package: there is no router/router.json, but {held}. "
            "Check the name and the revision."
        )
    if len(inside) > MOST_FILES:
        raise DataError(f"{name} holds {len(inside)} files; at most {MOST_FILES} are read.")
    found = {}
    for path, size in inside.items():
        most = MOST_BYTES[Path(path).suffix]
        if size is None or size > most:
            raise DataError(
                f"{path} of {name} has {'an unknown number of' if size is None else size} bytes; "
                f"at most {most} are read. Nothing was downloaded."
            )
        found[path] = size
    return found


def router_files() -> tuple[str, ...]:
    """Every file that a router is stored as, with any estimator of this package."""
    return ("router.json", *FAMILIARITY, *estimator_files())


def is_ours(path: str) -> bool:
    """Whether a path in a repository is one that this package writes and reads."""
    folder, _, file = path.partition("/")
    return bool(_POLICY.fullmatch(path)) or (folder == "router" and file in router_files())


def checked_name(name: str) -> str:
    """The name of a repository.

    Raises:
        DataError: unless it is `owner/name`.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise DataError(
            f"A repository of the hub is named 'owner/name'; {name!r} is neither that nor a folder."
        )
    return name


def publish(
    name: str,
    files: Mapping[str, bytes],
    *,
    message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    replace: bool = True,
) -> str:
    """Upload files in one commit; makes the repository when there is none.

    Args:
        name: `owner/name`.
        files: path in the repository to content.
        message: of the commit.
        private: of a new repository; None for the owner's default.
        token: one that may write; by default that of `hf auth login` or of `HF_TOKEN`.
        replace: delete what else lies in the layout's folders: it belongs to another router.

    Returns:
        Address of the commit, which is what `revision` wants at its end.

    Raises:
        DataError: when the hub refuses or cannot be reached.
    """
    checked_name(name)
    api = HfApi(token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        stale = _others(api, name, files) if replace else []
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationDelete(path) for path in stale
        ]
        operations += [CommitOperationAdd(path, content) for path, content in files.items()]
        return str(api.create_commit(name, operations, commit_message=message).commit_url)
    except HfHubHTTPError as error:
        raise DataError(_refused(name, None, error)) from error
    except (HTTPError, OSError, ValueError) as error:
        raise DataError(
            f"{name} could not be uploaded ({type(error).__name__}: {error}). Check the connection "
            "and run the same command again."
        ) from error


def card_of(origin: str, *, token: str | bool | None = None) -> str:
    """The card of what was fetched, up to a limit; "" where there is none.

    Args:
        origin: see `Fetched`.
        token: of the hub.
    """
    name, _, commit = origin.partition("@")
    try:
        path = Path(hf_hub_download(name, CARD, revision=commit, token=token))
    except EntryNotFoundError:
        return ""
    content = path.read_bytes()
    return content.decode("utf-8", "replace") if len(content) <= LONGEST_CARD else ""


def _others(api: HfApi, name: str, files: Iterable[str]) -> list[str]:
    present = api.list_repo_files(name)
    return sorted(one for one in set(present) - set(files) if one.split("/")[0] in FOLDERS)


@dataclass(frozen=True)
class _Place:
    """A repository and where its downloads are kept."""

    name: str
    token: str | bool | None
    cache_dir: StrPath | None

    def download(self, revision: str | None, patterns: list[str], *, local: bool = False) -> Path:
        return Path(
            snapshot_download(
                self.name,
                revision=revision,
                token=self.token,
                cache_dir=as_path_or_none(self.cache_dir),
                allow_patterns=patterns,
                local_files_only=local,
            )
        )


def _cached(place: _Place, revision: str | None, cause: Exception) -> Path:
    try:
        return place.download(revision, [f"{folder}/*" for folder in FOLDERS], local=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{place.name} could not be downloaded ({type(cause).__name__}: {cause}), and no "
            "earlier download of it is complete. Check the connection and try again."
        ) from error


def _sizes_in(folder: Path) -> dict[str, int | None]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _check_whole(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else 0
    if found != size:
        raise DataError(
            f"{path.name} was cut short: {found} of {size} bytes arrived. Download it again, with "
            f"another cache_dir or after removing {path}."
        )


def _refused(name: str, revision: str | None, error: Exception) -> str:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    at = f" at {revision}" if revision else ""
    advice = {
        401: "There is no such repository, or it needs a token: run `hf auth login`, set HF_TOKEN, "
        "or pass token.",
        403: "The token may not do this.",
        404: "Check the spelling of the name and of the revision.",
    }.get(status, "Try again later.")
    return f"The hub refused {name}{at} ({type(error).__name__}, status {status}). {advice}"
