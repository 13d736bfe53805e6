"""The pages that a person sees, made and served for their pictures.

Each group is a context that yields its shots; what it started is stopped when it is left.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from experiments.screenshots.camera import Shot
from m3router.data.errors import DataError
from m3router.router.runs.run import Run

ROOT = Path(__file__).parents[2]
READER = "experiments.screenshots.resized_reader:model"
SCENES = 60
"""Scenes that the run with options is made of."""
SITE = {
    "home": ("Site: first page", "index.html"),
    "tutorial": ("Site: a tutorial", "tutorials/own-images.html"),
    "command": ("Site: a page of tables", "inspect.html"),
    "glossary": ("Site: glossary", "glossary.html"),
    "gallery": ("Site: gallery of reports", "gallery.html"),
}
"""Name to title and file; what this version does not have is left out."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the pages are made of.

    Attributes:
        run: A finished run of the quickstart.
        scenes: Its folder of examples and images.
        work: Folder for what is made here; what is there is used again.
    """

    run: Path
    scenes: Path
    work: Path

    @classmethod
    def of(cls, quickstart: Path, work: Path) -> Material:
        """The material of a quickstart's folder.

        Raises:
            DataError: If the quickstart was not finished there.
        """
        if not (quickstart / "run" / "report" / "report.html").is_file():
            raise DataError(
                f"{quickstart} holds no finished quickstart: run `m3router quickstart --out "
                f"{quickstart}` first, or name another with --quickstart."
            )
        made = quickstart.resolve()
        return cls(run=made / "run", scenes=made / "scenes", work=work.resolve())


@contextmanager
def report(material: Material) -> Iterator[list[Shot]]:
    """The report, drawn by this version of the code."""
    run = material.work / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(material.run, run)
    _m3router("report", run, "--images", material.scenes / "images")
    address = (run / "report" / "report.html").resolve().as_uri()
    yield [
        Shot(name="report-top", title="Report, above the fold", address=address, whole=False),
        Shot(name="report", title="Report", address=address, paper=True),
    ]


@contextmanager
def log_page(material: Material) -> Iterator[list[Shot]]:
    """The page of a log: as it opens, filtered with a question chosen, and with nothing found."""
    page = material.work / "log.html"
    images = material.scenes / "images"
    _m3router("inspect", material.run, "--images", images, "--html", page)
    first, finest, example = _steps(material)
    address = page.resolve().as_uri()
    lost = urlencode({"from": first, "to": finest, "change": "won", "id": example})
    nothing = urlencode({"text": "no question says this", "errors": "any"})
    yield [
        Shot(name="log", title="Log page", address=address, whole=False, paper=True),
        Shot(
            name="log-chosen",
            title="Log page, filtered, a question chosen",
            address=f"{address}#{lost}",
            whole=False,
        ),
        Shot(
            name="log-nothing",
            title="Log page, nothing found",
            address=f"{address}#{nothing}",
            whole=False,
        ),
    ]


def _steps(material: Material) -> tuple[str, str, str]:
    """Coarsest and finest option, and a question that only the finest answers."""
    log = Run(material.run).log()
    scores = log.scores
    only = (scores[:, 0] < 1) & (scores[:, -1] >= 1)
    return log.options[0], log.options[-1], str(log.ids[int(only.argmax())])


@contextmanager
def demo(material: Material) -> Iterator[list[Shot]]:
    """The demo of a Matryoshka model."""
    images = material.scenes / "images"
    with _serving("demo", material.run, "--examples", images, "--port", 0) as address:
        yield _demo_shots("demo", "Demo", address)


@contextmanager
def option_demo(material: Material) -> Iterator[list[Shot]]:
    """The demo of a model that is asked by option: image sizes."""
    run, images = material.work / "option-run", material.scenes / "images"
    if not (run / "policies" / "default.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        examples = material.work / "option-examples.jsonl"
        lines = (material.scenes / "examples.jsonl").read_text(encoding="utf-8").splitlines()
        wanted = list(dict.fromkeys(json.loads(line)["image"] for line in lines))[:SCENES]
        kept = [line for line in lines if json.loads(line)["image"] in wanted]
        examples.write_text("\n".join(kept) + "\n", encoding="utf-8")
        _m3router(
            "label", "--examples", examples, "--images", images, "--model", READER, "--out", run
        )
        _m3router("train", run)
        _m3router("calibrate", run, "--budget", 10)
    with _serving("demo", run, "--examples", images, "--port", 0) as address:
        yield _demo_shots("demo-options", "Demo of options", address)


def _demo_shots(name: str, title: str, address: str) -> list[Shot]:
    return [
        Shot(name=name, title=title, address=address, visit=_opened, slow=True),
        Shot(
            name=f"{name}-asked",
            title=f"{title}: asked at all options",
            address=address,
            visit=_asked,
            slow=True,
        ),
    ]


def _opened(page: Any) -> None:
    page.get_by_role("button", name="Ask", exact=True).wait_for()


def _asked(page: Any) -> None:
    """Ask the last of the first example's questions, then everywhere."""
    _opened(page)
    page.locator(".m3-sample").first.locator("button").last.click()
    page.locator(".m3-answer").first.wait_for()
    page.locator("#m3-everywhere").click()
    page.locator(".m3-card").first.wait_for()
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")


@contextmanager
def site(material: Material) -> Iterator[list[Shot]]:
    """The documentation's pages."""
    folder = material.work / "site"
    _done([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder])
    reference = sorted(path.relative_to(folder) for path in folder.glob("reference/*.html"))
    pages = dict(SITE)
    if reference:
        first = next((one for one in reference if one.stem in ("index", "m3router")), reference[0])
        pages["reference"] = ("Site: reference", first.as_posix())
    with _folder_server(folder) as address:
        yield [
            Shot(name=f"site-{name}", title=title, address=f"{address}/{path}", whole=False)
            for name, (title, path) in pages.items()
            if (folder / path).is_file()
        ]


GROUPS: Mapping[str, Callable[[Material], AbstractContextManager[list[Shot]]]] = {
    "report": report,
    "log": log_page,
    "demo": demo,
    "demo-options": option_demo,
    "site": site,
}
"""Name of a group of pages to what makes them."""


def _m3router(*arguments: object) -> None:
    _done([sys.executable, "-m", "m3router", *arguments])


def _done(command: list[object]) -> None:
    """Run a command to its end.

    Raises:
        DataError: With what it said, when it fails.
    """
    finished = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if finished.returncode:
        said = finished.stdout.strip()[-2000:]
        raise DataError(f"{' '.join(map(str, command[1:5]))} … failed: {said}")


@contextmanager
def _serving(*arguments: object) -> Iterator[str]:
    """A command that says `serving ADDRESS`, until the context is left."""
    command = [sys.executable, "-m", "m3router", *map(str, arguments)]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.send_signal, signal.SIGTERM)
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if not words:
            raise DataError(f"m3router {arguments[0]} ended before it served anything.")
        yield next(word for word in words if word.startswith("http"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


@contextmanager
def _folder_server(folder: Path) -> Iterator[str]:
    """A folder's files at an address of this machine."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
