"""JSON merge patches (RFC 7396): how an option changes the body of a request."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a merge patch, as section 2 of RFC 7396 defines it.

    >>> merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}

    Args:
        target: Any JSON value; not changed.
        patch: Any JSON value. Objects are merged, None removes a member, anything else replaces.

    Returns:
        A new value that shares nothing with the two.
    """
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(dict(target)) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def joined_patches(first: Any, second: Any) -> Any:
    """One patch that does what two do one after the other.

    Unlike :func:`merge_patch`, it keeps the Nones that remove members. NOTE: where the first
    patch replaces what is not an object by an object, the result merges into the target's.

    >>> joined_patches({"a": 1, "b": None}, {"a": None, "c": {"d": None}})
    {'a': None, 'b': None, 'c': {'d': None}}
    """
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return copy.deepcopy(second)
    joined = copy.deepcopy(dict(first))
    for name, value in second.items():
        joined[name] = joined_patches(joined.get(name), value)
    return joined
