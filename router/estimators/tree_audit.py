"""Trees in LightGBM's text format, judged before LightGBM's own parser sees them.

That parser trusts what it reads (``src/boosting/gbdt_model_text.cpp``, ``src/io/tree.cpp`` of
LightGBM 4): sizes, offsets and node numbers are used as they stand, so that a file that somebody
made to harm could read or write elsewhere in memory, or never end. A hash only says that a file
is the one that was published. Here every number is checked against the few shapes that this
package writes: numerical splits, constant leaves, no categories.
"""

from __future__ import annotations

import re

import numpy as np

from m3router.data.errors import DataError

_END = "end of trees"
_HEADER = (
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "feature_names",
    "feature_infos",
    "tree_sizes",
)
_SPLITS = (
    "split_feature",
    "split_gain",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "internal_value",
    "internal_weight",
    "internal_count",
)
_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_SINGLE = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_INFO = re.compile(r"none|\[[-+.\deE]+:[-+.\deE]+\]")
_MOST_LEAVES = 1 << 16


def audited(text: str, *, features: int, outputs: int) -> str:
    """The trees of a text, without the rest of it, which is not needed to predict.

    Args:
        text: as LightGBM wrote it.
        features: columns of the inputs.
        outputs: trees of a round.

    Returns:
        The text up to the end of its trees.

    Raises:
        DataError: when a number is out of its range, or anything is not as LightGBM writes it.
    """
    try:
        _check(text, features=features, outputs=outputs)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise DataError(
            f"The trees are not such as this package writes ({error}), so that they are not "
            "loaded: the file was made or changed by something else."
        ) from error
    return text[: text.index(f"\n{_END}\n") + len(_END) + 2]


def _check(text: str, *, features: int, outputs: int) -> None:
    head, _, rest = text.partition("\n\n")
    if not text.isascii():
        raise ValueError("text that is not ASCII")
    first, *lines = head.split("\n")
    header = _entries(lines, known=_HEADER)
    if first != "tree" or header["version"] != "v4" or header["label_index"] != "0":
        raise ValueError("another format or version than tree, v4")
    for name, number in (
        ("num_class", outputs),
        ("num_tree_per_iteration", outputs),
        ("max_feature_idx", features - 1),
    ):
        if header[name] != str(number):
            raise ValueError(f"{name} is {header[name][:20]} in place of {number}")
    infos = header["feature_infos"].split(" ")
    if not len(infos) == len(header["feature_names"].split(" ")) == features:
        raise ValueError(f"not {features} feature names and ranges")
    if not all(map(_INFO.fullmatch, infos)):
        raise ValueError("a feature without a range")
    sizes = [int(size) for size in header["tree_sizes"].split(" ")]
    if min(sizes) < 1 or len(sizes) % outputs or not rest[sum(sizes) :].startswith(f"{_END}\n"):
        raise ValueError("sizes of trees that do not add up")
    start = 0
    for number, size in enumerate(sizes):
        _check_tree(rest[start : start + size], number, features)
        start += size


def _check_tree(block: str, number: int, features: int) -> None:
    first, *lines = block.rstrip("\n").split("\n")
    if first != f"Tree={number}" or not block.endswith("\n"):
        raise ValueError(f"tree {number} does not begin where it should")
    tree = _entries(lines, known=(*_SINGLE, *_SPLITS, *_LEAVES))
    leaves = int(tree["num_leaves"])
    if not 1 <= leaves <= _MOST_LEAVES or (tree["num_cat"], tree["is_linear"]) != ("0", "0"):
        raise ValueError(f"tree {number} has {leaves} leaves, categories or linear leaves")
    if not np.isfinite(float(tree["shrinkage"])):
        raise ValueError(f"tree {number} has no shrinkage")
    splits = {
        name: _numbers(tree[name], leaves - 1, f"{name} of tree {number}") for name in _SPLITS
    }
    for name in _LEAVES:
        # A tree of one leaf is written with its value alone.
        if leaves > 1 or tree.get(name):
            _numbers(tree[name], leaves, f"{name} of tree {number}")
    _whole(splits["split_feature"], 0, features - 1, f"features of tree {number}")
    kinds = _whole(splits["decision_type"], 0, 15, f"decisions of tree {number}")
    if np.any(kinds % 2):
        raise ValueError(f"tree {number} splits by category")
    children = [
        _whole(splits[side], -leaves, leaves - 2, f"{side} of tree {number}")
        for side in ("left_child", "right_child")
    ]
    nodes = np.arange(leaves - 1)
    if any(np.any((one >= 0) & (one <= nodes)) for one in children):
        raise ValueError(f"tree {number} leads back to a node above")
    if sorted(np.concatenate(children).tolist()) != [
        *range(-leaves, 0),
        *range(1, leaves - 1),
    ] and (leaves > 1):
        raise ValueError(f"tree {number} is not a tree")


def _entries(lines: list[str], *, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition("=")
        if not mark or name not in known or name in found:
            raise ValueError(f"an unknown or second entry {name[:20]!r}")
        found[name] = value
    return found


def _numbers(text: str, count: int, what: str) -> np.ndarray:
    found = np.array(text.split(" ") if text else [], dtype=np.float64)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{len(found)} {what} in place of {count}, or one is not finite")
    return found


def _whole(values: np.ndarray, low: int, high: int, what: str) -> np.ndarray:
    found = values.astype(np.int64)
    if np.any(found != values) or np.any(found < low) or np.any(found > high):
        raise ValueError(f"{what} outside of {low} to {high}")
    return found
