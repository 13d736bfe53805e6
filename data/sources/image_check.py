"""Whether the images of examples are there, found before anything is asked."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from m3router.data.errors import ImageError, listed
from m3router.data.images import check_header
from m3router.data.media_files import file_in, open_file
from m3router.data.videos import is_video

TOO_MANY = 0.1
"""Share of missing images from which on the folder or the names are wrong, not some files."""
SHOWN = 3
_MOST_NAMES, _COMPARED = 50_000, 2000
"""Names in the folder that are looked at, and compared letter by letter."""


@dataclass(frozen=True, kw_only=True)
class ImageCheck:
    """What was found of the images of some examples.

    Attributes:
        folder: Where they were looked for.
        images: How many different ones there are.
        missing: Names of those that are not there.
        unreadable: Name -> why what is there cannot be read, by the file's beginning alone.
    """

    folder: Path
    images: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]

    @property
    def is_hopeless(self) -> bool:
        """Whether so many are missing that labelling the others is hardly what is wanted.

        These are more than a tenth, or all that can be read.
        """
        lost = len(self.missing) + len(self.unreadable)
        return len(self.missing) > TOO_MANY * self.images or lost == self.images > 0

    @property
    def text(self) -> str:
        """How many there are, the first ones, and what is near them; "" where all is well."""
        told = []
        if self.missing:
            told.append(
                f"{len(self.missing)} of {_images(self.images)} {_are(len(self.missing))} not in "
                f"{self.folder}: {listed(self.missing, SHOWN)}."
            )
            told += [self.hint] if self.hint else []
        if self.unreadable:
            name, why = next(iter(self.unreadable.items()))
            told.append(
                f"{len(self.unreadable)} of {_images(self.images)} cannot be read, such as {name}: "
                f"{why}"
            )
        return " ".join(told)

    @cached_property
    def hint(self) -> str:
        """Where the missing images are, or what is called nearly alike; "" for nothing."""
        names = _Names(self.folder)
        best, count = names.best_folder(self.missing)
        if best is not None:
            whole = count == len(self.missing)
            found = ("It is" if count == 1 else "All of them are") if whole else f"{count} are"
            return f"{found} in {best}: give --images {best}."
        near = [(name, names.nearest(name)) for name in self.missing[:SHOWN]]
        told = [f"{name!r} is perhaps {close!r}" for name, close in near if close]
        return f"{', '.join(told)}." if told else ""


def check_images(names: Iterable[str], folder: Path) -> ImageCheck:
    """Look for images and read how they begin.

    Args:
        names: Of images and videos, as examples have them.
        folder: What they start from.
    """
    images = list(dict.fromkeys(names))
    missing, unreadable = [], {}
    for name in images:
        try:
            path = file_in(folder, name)
            if not os.path.lexists(path):
                missing.append(name)
            elif is_video(path):
                open_file(path, kind="Video").close()
            else:
                check_header(path)
        except ImageError as error:
            unreadable[name] = str(error)
        except (OSError, ValueError):
            missing.append(name)
    return ImageCheck(
        folder=folder, images=len(images), missing=tuple(missing), unreadable=unreadable
    )


class _Names:
    """What there is in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        walked = (
            os.path.relpath(os.path.join(place, file), folder).replace(os.sep, "/")
            for place, _, files in os.walk(folder)
            for file in files
        )
        self.names = sorted(islice(walked, _MOST_NAMES))
        self._folded: dict[str, str] = {}
        for name in self.names:
            for key in (name.casefold(), _stem(name)):
                self._folded.setdefault(key, name)
        self._by_file = {os.path.basename(name): name for name in self.names}

    def best_folder(self, missing: tuple[str, ...]) -> tuple[Path | None, int]:
        """The folder near this one in which most of them are, and how many."""
        places = {self.folder.parent, self.folder.parent / "images"}
        for name in missing[:SHOWN]:
            found = self._by_file.get(os.path.basename(name), "")
            if found.endswith(f"/{name}"):
                places.add(self.folder / found.removesuffix(f"/{name}"))
        counts = {
            place: sum(os.path.lexists(place / name) for name in missing)
            for place in sorted(places)
            if place != self.folder
        }
        best = max(counts, key=lambda place: counts[place], default=None)
        return (best, counts[best]) if best is not None and counts[best] else (None, 0)

    def nearest(self, name: str) -> str | None:
        """The same name in other letters or with another ending, or nearly the same name."""
        keys = (name.casefold(), _stem(name))
        for key in keys:
            if key in self._folded:
                return self._folded[key]
        close = difflib.get_close_matches(name, self.names[:_COMPARED], n=1, cutoff=0.8)
        return close[0] if close else None


def _stem(name: str) -> str:
    """A name without its ending, in small letters."""
    return os.path.splitext(name)[0].casefold()


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
