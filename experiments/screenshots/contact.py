"""All pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from experiments.screenshots.camera import Taken
from m3router.data.manifest import atomic_write_text

INDEX = "index.html"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; }
h2 { margin: 2rem 0 .3rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
figure { margin: 0; }
img { display: block; height: 16rem; width: auto; max-width: 100%; object-fit: cover;
  object-position: top; border: 1px solid #8888; }
figcaption { font-size: .85rem; }
.fault { border-left: 4px solid #d55e00; padding-left: .6rem; }
"""


def write_index(folder: Path, taken: Sequence[Taken]) -> Path:
    """Write the page that shows every picture small and links it.

    Args:
        folder: That of the pictures.
        taken: In the order in which they are shown.
    """
    parts = Markup("").join(_section(one) for one in taken)
    page = Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>Screenshots</title><style>{style}</style></head><body><h1>Screenshots</h1>"
        "{parts}</body></html>\n"
    ).format(style=Markup(_STYLE), parts=parts)
    path = folder / INDEX
    atomic_write_text(path, str(page))
    return path


def _section(taken: Taken) -> Markup:
    faults = Markup("").join(
        Markup('<p class="fault">{}</p>').format(fault) for fault in taken.faults
    )
    printed = (
        Markup('<p><a href="{0}">{0}</a></p>').format(taken.printed)
        if taken.printed
        else Markup("")
    )
    pictures = Markup("").join(
        Markup(
            '<figure><a href="{name}"><img src="{name}" alt="" loading="lazy"></a>'
            "<figcaption>{width} px, {scheme}</figcaption></figure>"
        ).format(name=name, width=width, scheme=scheme)
        for (width, scheme), name in taken.files.items()
    )
    return Markup('<h2>{}</h2>{}{}<div class="row">{}</div>').format(
        taken.shot.title, faults, printed, pictures
    )
