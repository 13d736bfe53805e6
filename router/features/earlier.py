"""Blocks that a features folder holds already: which of them still say what they would say now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.manifest import MANIFEST, read_manifest
from m3router.data.plain_files import is_there
from m3router.data.videos import is_video
from m3router.router.features.examples import FeatureInput, examples_key
from m3router.router.features.featurizer import Featurizer, source_of
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.features.store import key_of
from m3router.router.features.table import STAGE, FeatureTable

BLOCKS = "blocks"
"""Key of a table's metadata: name of a block -> what it was made of."""
MEASURED = "measured"
"""Key of the manifest's parameters: name of a block -> what it took. Not of the metadata: a router
keeps these, and should be the same whenever and wherever its features were computed."""


def measured_costs(folder: Path) -> dict[str, dict[str, float]]:
    """What the blocks of a table took where they were computed.

    Args:
        folder: The features' folder.

    Returns:
        Name of a block -> `milliseconds_per_example`; where the questions about an image share
        a part of it also `milliseconds_per_picture`, and where the language model ran
        `flops_per_example`. A tower's run is not counted: it is the answer's own. Empty for
        blocks of which it is not known.

    Raises:
        DataError: When the folder has no manifest of features.
    """
    told = read_manifest(folder, stage=STAGE)["params"].get(MEASURED, {})
    return {str(name): dict(cost) for name, cost in told.items()}


def block_facts(
    featurizer: Featurizer, name: str, rows: Sequence[FeatureInput], digests: Mapping[str, str]
) -> dict[str, Any]:
    """What a block is made of, as its table's metadata tell.

    Args:
        featurizer: What makes it.
        name: Of the feature group.
        rows: Examples, in the order of the block's rows.
        digests: Image path -> SHA-256 of its file.

    Returns:
        `version`, `made_with`, SHA-256 sums of the `examples` (ids, images' names, questions)
        and of the `pictures` (the images' files; None where the feature group looks at none), and
        the `key` over all.
    """
    feature_group = FEATURE_GROUPS[name]
    looks = (
        feature_group.of_encoding
        or feature_group.of_peek
        or (feature_group.of_image and featurizer.images)
    )
    videos = any(is_video(row.image) for row in rows)
    seen = [digests.get(row.image, "") for row in rows]
    facts: dict[str, Any] = {
        "version": feature_group.version,
        "made_with": featurizer.made_with(name),
        "examples": examples_key(rows),
        "pictures": key_of(seen, featurizer.frames if videos else None) if looks else None,
    }
    return facts | {"key": key_of(facts)}


class Earlier:
    """What can be taken from the table that lies in the folder.

    Args:
        folder: The features' folder; a table in it that is damaged counts as none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table: FeatureTable | None = None
        self._costs: dict[str, dict[str, float]] = {}
        if is_there(folder / MANIFEST):
            try:
                self.table = FeatureTable.read(folder)
                self._costs = measured_costs(folder)
            except DataError:  # it is computed anew
                self.table = None
        self._row = {name: row for row, name in enumerate(self.table.ids if self.table else ())}
        self._same: set[str] = set()

    @property
    def has_keys(self) -> bool:
        """Whether there is a table that tells what its blocks are made of."""
        return self.table is not None and BLOCKS in self.table.metadata

    def facts(self, name: str) -> dict[str, Any]:
        """What the table tells of a block; empty where it tells nothing."""
        told = {} if self.table is None else self.table.metadata.get(BLOCKS, {})
        return dict(told.get(name, {}))

    def cost(self, name: str) -> dict[str, float]:
        """What a block took, as was measured; empty where it is not known."""
        return dict(self._costs.get(name, {}))

    def check(
        self, featurizer: Featurizer, asked: Mapping[str, FeatureInput], digests: Mapping[str, str]
    ) -> None:
        """Find out which blocks of the featurizer's feature groups would come out the same again.

        Args:
            featurizer: What is asked for.
            asked: Id -> example.
            digests: Image path -> SHA-256 of its file.
        """
        self._same = set()
        if self.table is None or not set(self.table.ids) <= asked.keys():
            return
        rows = [asked[name] for name in self.table.ids]
        for name in featurizer.feature_groups:
            known = self.facts(name).get("key")
            if known and known == block_facts(featurizer, name, rows, digests)["key"]:
                self._same.add(name)

    def covers(self, name: str, example: str) -> bool:
        """Whether an example's row of a block can be taken as it is."""
        return name in self._same and example in self._row

    def has_row(self, example: str) -> bool:
        """Whether the table has an example."""
        return example in self._row

    def rows(self, name: str, examples: Sequence[str]) -> np.ndarray:
        """The rows of a block for examples that the table has, (N, d)."""
        if self.table is None:
            raise MismatchError(f"{self.folder} holds no features.")
        return self.table.blocks[name][[self._row[example] for example in examples]]

    def others(
        self,
        featurizer: Featurizer,
        asked: Mapping[str, FeatureInput],
        digests: Mapping[str, str],
        examples_sha256: str | None,
    ) -> tuple[str, ...]:
        """Blocks that are not asked for and stay in the table.

        Raises:
            MismatchError: When one was made of other examples, images or by another model.
        """
        if self.table is None:
            return ()
        names = tuple(name for name in self.table.blocks if name not in featurizer.feature_groups)
        for name in names:
            reason = self._foreign(name, featurizer, asked, digests, examples_sha256)
            if reason:
                raise MismatchError(
                    f"{self.folder} holds the block {name!r}, which was made {reason}. Ask for it "
                    f"too, so that it is made again (--feature-group {name}), or remove the folder."
                )
        return names

    def _foreign(
        self,
        name: str,
        featurizer: Featurizer,
        asked: Mapping[str, FeatureInput],
        digests: Mapping[str, str],
        examples_sha256: str | None,
    ) -> str | None:
        assert self.table is not None
        source = self.table.metadata.get("source")
        if featurizer.model is not None and source not in (None, source_of(featurizer.model)):
            return f"by {source}, not by {source_of(featurizer.model)}"
        facts = self.facts(name)
        if not facts:  # of a version before blocks had keys
            theirs = self.table.metadata.get("examples_sha256")
            return "of other examples" if theirs != examples_sha256 else None
        if not set(self.table.ids) <= asked.keys():
            return "of other examples"
        rows = [asked[one] for one in self.table.ids]
        if facts["examples"] != examples_key(rows):
            return "of other examples"
        if name in FEATURE_GROUPS and digests and facts["pictures"] is not None:
            now = block_facts(featurizer, name, rows, digests)["pictures"]
            return None if facts["pictures"] == now else "of other images"
        return None
