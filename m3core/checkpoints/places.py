"""Where a checkpoint lies: a folder, a hub id, or inside this package."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from m3router.data.errors import ModelError
from m3router.data.hub_reach import no_hub
from m3router.data.json_files import parse_json
from m3router.data.manifest import sha256_file
from m3router.data.paths import StrPath, as_path
from m3router.data.plain_files import open_file
from m3router.data.registry import nearest

EMBEDDED = "embedded"
FAKE = "fake"
_DECISIVE = {".json", ".safetensors", ".model", ".bin", ".txt"}
_OTHER_FRAMEWORKS = ["*.h5", "*.msgpack", "*.onnx", "*.ot"]
_NO_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.txt"]


def embedded_folder() -> Path:
    """Where the shipped checkpoint lies inside the package."""
    return Path(str(resources.files("m3router.m3core.embedded") / "checkpoint"))


def resolve(name: str, *, weights: bool = True) -> Path:
    """The local folder of a model; a hub id is looked up and downloaded by ``huggingface_hub``.

    Args:
        name: ``embedded``, a folder or a hub id.
        weights: Whether to download them, too, and not only the small files beside them.

    Raises:
        ModelError: If there is neither such a folder nor such a hub id within reach.
    """
    if name == EMBEDDED:
        return embedded_folder()
    if name and Path(name).is_dir():
        return Path(name)
    try:
        wanted = None if weights else _NO_WEIGHTS
        found = snapshot_download(
            name,
            allow_patterns=wanted,
            ignore_patterns=_OTHER_FRAMEWORKS,
            local_files_only=no_hub() is not None,
        )
        return Path(found)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(_not_found(name, error)) from error


def _not_found(name: str, error: Exception) -> str:
    """Say of a name that it stands for no model, and why as far as it is known."""
    if not name.strip():
        return f"The model's name is empty; there are {EMBEDDED}, {FAKE}, folders and hub ids."
    if Path(name).is_file():
        return f"{name} is a file; a model is a folder with a config.json, or a hub id."
    close = nearest(name, (EMBEDDED, FAKE))
    hint = f" Did you mean {close!r}?" if close else ""
    tried = (
        f"The model {name!r} is neither {EMBEDDED!r}, nor a folder here, nor a hub id that could"
    )
    if isinstance(error, HFValidationError):
        return f"{tried} be fetched.{hint} A hub id is OWNER/NAME; check the spelling."
    if isinstance(error, HfHubHTTPError):
        reason = "the hub does not have it, or not for you"
    else:
        reason = "it is not in the cache, and the hub cannot be reached"
    return f"{tried} be fetched ({reason}).{hint} Check the spelling or the connection."


def local_tower(name: str, folder: Path) -> Path | None:
    """The folder of a vision tower, if it is on this machine outside of the hub's cache.

    Args:
        name: ``mm_vision_tower`` of a LLaVA config: a path, possibly of the machine it was
            trained on, or a hub id such as ``openai/clip-vit-large-patch14-336``.
        folder: The checkpoint's folder.

    Returns:
        The first that is a folder: the path itself; the path from the checkpoint's folder or its
        parent; a folder of its last name in or beside the checkpoint's folder. Otherwise None.
    """
    last = Path(name).name
    places = [Path(name), folder / name, folder.parent / name, folder / last, folder.parent / last]
    return next((place for place in places if (place / "config.json").is_file()), None)


def revision_of(folder: StrPath, *more: StrPath) -> str:
    """SHA-256 over the files that decide a model's answers, in hexadecimal.

    Args:
        folder: The checkpoint.
        more: Further folders it reads, such as that of its vision tower.

    Raises:
        ModelError: If one of them is no folder.
    """
    digest = hashlib.sha256()
    for place in map(as_path, (folder, *more)):
        if not place.is_dir():
            raise ModelError(f"{place} is no folder of a checkpoint. Check the path.")
        for file in sorted(place.iterdir()):
            if file.suffix in _DECISIVE and not file.is_dir():
                digest.update(f"{file.name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: If the file is not valid JSON or holds something else.
    """
    try:
        with open_file(file) as opened:
            content = parse_json(opened.read())
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON: {error}; download the file again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object, found {type(content).__name__}")
    return content
