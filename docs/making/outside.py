"""Hook of MkDocs: what the pages of `docs/` link to elsewhere in the repository joins the site.

The pages link to files beside `docs/` (recorded results, the model's card) as they do in the
repository. MkDocs knows nothing outside of its folder, so such files are added, Markdown as pages
and everything else as it is, and links between both worlds are written anew.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
TOP = "repository/"
LINK = re.compile(r"(?<=\]\()(?!<|#|/|[a-z]+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""The target of a relative link or image, and its anchor."""


def on_files(files: Files, config: Any) -> Files:
    """Add every file of the repository that is linked to, directly or by one that was added."""
    waiting = [file.src_uri for file in files if file.is_documentation_page()]
    while waiting:
        page = waiting.pop()
        known = files.get_file_from_path(page)
        if known is None or known.abs_src_path is None:
            continue
        text = Path(str(known.abs_src_path)).read_text(encoding="utf-8")
        for target in _targets(page, text):
            name = _in_site(target)
            if files.get_file_from_path(name) or not (ROOT / target).is_file():
                continue
            file = File.generated(config, name, abs_src_path=str(ROOT / target))
            files.append(file)
            if file.is_documentation_page():
                waiting.append(name)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Write links anew where page and target do not lie in the site as in the repository."""
    here = page.file.src_uri

    def anew(match: re.Match[str]) -> str:
        name = _in_site(_in_repository(here, match[1]))
        if files.get_file_from_path(name) is None:
            return match[0]
        return posixpath.relpath(name, posixpath.dirname(here) or ".") + (match[2] or "")

    return LINK.sub(anew, markdown)


def _targets(page: str, text: str) -> Iterator[str]:
    for match in LINK.finditer(text):
        yield _in_repository(page, match[1])


def _in_repository(page: str, link: str) -> str:
    """Path in the repository of what a page of the site links to."""
    own = page.removeprefix(TOP)
    if (ROOT / DOCS / page).is_file():
        own = DOCS + page
    return posixpath.normpath(posixpath.join(posixpath.dirname(own), link))


def _in_site(path: str) -> str:
    """Path in the site of a file of the repository; files at its top get a folder."""
    return path.removeprefix(DOCS) if "/" in path else TOP + path
