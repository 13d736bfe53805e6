"""Where a policy to be served is."""

from __future__ import annotations

from pathlib import Path

from data.errors import DataError
from router.runs.run import Run


def policy_place(path: Path) -> tuple[Path, str]:
    """The run folder and the name that a path to a policy means.

    Args:
        path: A run folder (its policy ``default``), ``<run>/policies/<name>.json``, or
            ``<run>/<name>`` for short.

    Raises:
        DataError: If there is no such policy.
    """
    if (path / "policies").is_dir():
        run, name = path, "default"
    elif path.suffix == ".json" and path.parent.name == "policies":
        run, name = path.parent.parent, path.stem
    else:
        run, name = path.parent, path.name
    policies = Run(run).policies
    if not policies.is_dir():
        raise DataError(
            f"{path} is no policy: {run} is no run folder with policies. Give a run folder, "
            "<run>/policies/<name>.json or <run>/<name>; `m3router calibrate` makes policies."
        )
    if not Run(run).policy(name).is_file():
        known = sorted(one.stem for one in policies.glob("*.json") if one.name != "manifest.json")
        raise DataError(
            f"{run} has no policy {name!r}; it has {', '.join(known) or 'none'}. Give one of "
            f"these, or make it: m3router calibrate {run} --name {name}"
        )
    return run, name
