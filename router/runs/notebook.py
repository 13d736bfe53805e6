"""What a notebook shows of a run: the stages done, the sizes, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3router.data.cards import card, soft, strong, table
from m3router.data.errors import DataError
from m3router.data.manifest import MANIFEST, read_manifest
from m3router.data.plain_files import is_there

if TYPE_CHECKING:
    from m3router.router.runs.run import Run


def run_card(run: Run) -> str:
    """The card; it reads manifests only, so that it is quick, and never fails."""
    stages = (
        ("label", "log", run.log_folder, "label, or import another tool's log"),
        ("featurize", "features", run.features_folder, "featurize"),
        ("train", "train", run.arm(), "train"),
        ("calibrate", "calibrate", run.policies_folder, "calibrate"),
        ("evaluate", "evaluate", run.evaluation_folder, "evaluate"),
        ("report", "report", run.report_folder, "report"),
    )
    found = {name: _manifest(folder, stage) for name, stage, folder, _ in stages}
    following = next((todo for name, *_, todo in stages if found[name] is None), None)
    rows = [
        [name, "done" if found[name] is not None else "–", _about(run, name, found[name])]
        for name, *_ in stages
    ]
    return card(
        f"Run {run.root}",
        table(["stage", "", ""], rows, numbers=False),
        f"Next: {following}" if following else strong("All stages are done."),
        soft(".log(), .features(), .router(), .policies() and .evaluation() read its parts"),
    )


def _manifest(folder: Path, stage: str) -> dict[str, Any] | None:
    if not is_there(folder / MANIFEST):
        return None
    try:
        return read_manifest(folder, stage=stage)
    except DataError as error:
        return {"damaged": str(error)}


def _about(run: Run, stage: str, manifest: dict[str, Any] | None) -> str:
    """What is worth knowing of a stage in a few words."""
    if manifest is None:
        return ""
    if "damaged" in manifest:
        return str(manifest["damaged"])
    if stage == "label":
        model = manifest.get("metadata", {}).get("model", "imported")
        options = [str(one) for one in manifest.get("options", ())]
        count = manifest.get("n_examples", "?")
        asked = f"{count:,}" if isinstance(count, int) else count
        return f"{asked} examples, {model}, options {', '.join(options)}"
    if stage == "calibrate":
        return "policies " + ", ".join(run.policy_names())
    if stage == "train":
        return "router " + ", ".join(one for one in run.arms() if one != "router")
    return ""
