"""From what a user names to a model that can be asked, whatever kind it is."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, ModelError
from m3router.data.json_files import parse_json
from m3router.data.registry import unknown_name
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.places import EMBEDDED, FAKE, resolve
from m3router.m3core.devices import chosen_device
from m3router.m3core.endpoint.connecting import from_spec as connect_again
from m3router.m3core.endpoint.keys import Key
from m3router.m3core.functions import is_reference, load_reference
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.pooling import AVERAGE
from m3router.m3core.options import OptionModel
from m3router.m3core.vlm.families import FAMILIES

MATRYOSHKA, VLM, FUNCTION, ENDPOINT = "matryoshka", "vlm", "function", "endpoint"
KINDS = (MATRYOSHKA, VLM, FUNCTION, ENDPOINT)


def parse_options(given: Sequence[str] | None) -> dict[str, dict[str, Any]] | None:
    """Options as they are written on a command line: ``NAME`` or ``NAME=JSON``.

    >>> parse_options(['low={"max_soft_tokens": 70}', "plain"])
    {'low': {'max_soft_tokens': 70}, 'plain': {}}

    Raises:
        DataError: If a name comes twice, or what follows ``=`` is no JSON object.
    """
    if not given:
        return None
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        name, _, written = text.partition("=")
        try:
            settings = parse_json(written) if written else {}
        except ValueError as error:
            raise DataError(
                f"--option {text}: what follows the = must be a JSON object, such as "
                f'{name}={{"max_soft_tokens": 70}}: {error}'
            ) from error
        if not isinstance(settings, dict):
            raise DataError(f"--option {text}: what follows the = must be a JSON object")
        if name in found:
            raise DataError(f"--option {name} is given twice: give each another name")
        found[name] = settings
    return found


def open_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_new_tokens: int | None = None,
    **matryoshka: Any,
) -> MultiScaleModel | OptionModel:
    """Load the model that a name stands for.

    Args:
        name: ``embedded``, ``fake``, ``package.module:thing`` (see
            :func:`m3router.m3core.functions.load_reference`), or the folder or hub id of a
            Matryoshka model or of a vision-language model of
            :data:`m3router.m3core.vlm.families.FAMILIES`.
        device: A torch device, or ``auto``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        options: Option's name -> settings, for a vision-language model or a function; None for the
            model's own. A Matryoshka model's options are its scales.
        max_new_tokens: Tokens of the longest answer where a request names no other limit.
        matryoshka: What only :func:`m3router.m3core.checkpoints.load_model` takes, such as
            ``pooling``.

    Raises:
        ModelError: If there is no such model, or it cannot be loaded.
        DataError: If options are given to a model that has its own.
    """
    chosen_device(device)
    if is_reference(name):
        _refuse(name, matryoshka)
        for option, settings in (options or {}).items():
            if settings:
                raise DataError(
                    f"--option {option}={json.dumps(settings)}: a function's options have names "
                    f"and nothing else; write --option {option}"
                )
        return load_reference(name, options=None if options is None else list(options))
    if name not in (EMBEDDED, FAKE):
        from m3router.m3core.vlm.loading import is_vlm, load_vlm  # transformers is slow to import

        folder = _folder(name)
        if is_vlm(folder):
            _refuse(name, matryoshka)
            return load_vlm(
                name, device=device, dtype=dtype, options=options, max_new_tokens=max_new_tokens
            )
    if options:
        raise DataError(
            f"{name} is a Matryoshka model: its options are its scales, so leave --option "
            f"{next(iter(options))} out"
        )
    return load_model(name, device=device, dtype=dtype, max_new_tokens=max_new_tokens, **matryoshka)


def _folder(name: str) -> Path:
    """The folder of a checkpoint.

    Raises:
        ModelError: If there is none; with the nearest names that there are.
    """
    try:
        return resolve(name)
    except ModelError as error:
        if ":" in name:
            hint = "A function is named package.module:function, without .py and folders"
        else:
            last = name.rstrip("/").rpartition("/")[2].casefold().replace("-", "_")
            known = (EMBEDDED, FAKE, *FAMILIES)
            near = difflib.get_close_matches(last, known, n=1)
            kinds = f"vision-language models of the families {', '.join(sorted(FAMILIES))}"
            hint = f"There are {EMBEDDED}, {FAKE}, and checkpoints of M3, MQT and {kinds}"
            if near and near[0] in FAMILIES:
                hint = f"Did you mean a checkpoint of the family {near[0]}? {hint}"
            elif near:
                hint = f"Did you mean {near[0]!r}? {hint}"
        raise ModelError(f"{error} {hint}.") from error


def _refuse(name: str, matryoshka: Mapping[str, Any]) -> None:
    """Refuse settings that would be ignored.

    Raises:
        DataError: If there are any.
    """
    if matryoshka:
        told = ", ".join("--" + setting.replace("_", "-") for setting in matryoshka)
        raise DataError(f"{told}: only a Matryoshka model can be loaded so, and {name} is none")


def reopen(
    spec: Mapping[str, Any], *, device: str = "auto", key: Key | None = None
) -> MultiScaleModel | OptionModel:
    """Make the model of a log again.

    Args:
        spec: :attr:`m3router.m3core.options.OptionModel.spec`, from the log's metadata.
        device: Where a local model runs.
        key: The key of an endpoint; None for the one from where it was read before.

    Raises:
        ModelError: If the spec names no model, or it cannot be loaded.
    """
    kind, name = str(spec.get("kind")), str(spec.get("name", ""))
    if kind not in KINDS:
        raise ModelError(unknown_name("kind of model", kind, KINDS))
    if kind == ENDPOINT:
        return connect_again(spec, key=key)
    if not name:
        raise ModelError(
            f"the log was made by a {kind} that has no name to find it by; give the model itself"
        )
    if kind == FUNCTION:
        return open_model(name, options={option: {} for option in spec.get("options", ())})
    if kind == VLM:
        from m3router.m3core.vlm.loading import load_vlm

        ladder = spec.get("options")
        return load_vlm(
            name,
            device=device,
            dtype=spec.get("dtype", "float32"),
            options=ladder and {option: ladder[option] for option in spec.get("order", ladder)},
            max_new_tokens=spec.get("max_new_tokens"),
        )
    visual = spec.get("visual", {})
    return load_model(
        name,
        device=device,
        pooling=visual.get("pooling", AVERAGE),
        grids=visual["grids"].split() if "grids" in visual else None,
        unlisted_grids=True,  # the log was made with these
        max_new_tokens=spec.get("max_new_tokens"),
    )
