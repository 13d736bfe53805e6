"""Every tutorial runs as it is written, and says what it shows."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.docs.fences import NOT_RUN, fences, missing_lines, run_page, steps

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted(
    path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.name != "index.md"
)
SECONDS = 900.0
"""Most for one tutorial on a busy machine; on an idle core it takes about 40."""


def name(path: Path) -> str:
    return path.stem


@pytest.mark.tutorial
@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_a_tutorial_runs_as_written(path, tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": "120",
    }
    page = path.read_text(encoding="utf-8")
    for step, output in run_page(page, folder=tmp_path, environment=environment, seconds=SECONDS):
        if step.expected is not None:
            missing = missing_lines(step.expected, output)
            assert not missing, f"line {step.fence.line}: {missing}\nwas not written:\n{output}"


@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_a_tutorial_has_its_parts(path):
    page = path.read_text(encoding="utf-8")
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings[0] == "## What you need"
    assert headings[-2:] == ["## What can go wrong", "## Where next"]
    assert len(steps(page)) >= 3
    goal = " ".join(page.partition("## ")[0].split())
    assert re.search(r"minutes of reading, [^.]* of computing", goal), "it says how long it takes"
    for fence in fences(page):
        if fence.title.startswith(NOT_RUN):
            assert ": " in fence.title, f"line {fence.line}: the title does not say why"


def test_all_tutorials_are_listed():
    page = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8")
    assert len(TUTORIALS) >= 5
    for path in TUTORIALS:
        assert f"]({path.name})" in page


class TestTheRunner:
    """What the tests above rest on."""

    PAGE = (
        '# A page\n\n```bash\nexport WHO=you\nfalse || echo "took 3.1 s for 4,000"\n```\n\n'
        '```text title="Output"\ntook 9 s for 4100\n```\n\n'
        '```bash title="Not run by the tests: needs two GPUs"\nexit 1\n```\n\n'
        "```python\nimport os\nprint('hello', os.environ['WHO'])\n```\n"
    )

    def test_runs_blocks_in_one_shell(self, tmp_path):
        (first, told), (second, hello) = run_page(
            self.PAGE, folder=tmp_path, environment={**os.environ}, seconds=60
        )
        assert missing_lines(str(first.expected), told) == []
        assert second.expected is None and hello == "hello you\n"
        assert (first.fence.line, second.fence.line) == (3, 16)

    def test_a_failing_block_is_named(self, tmp_path):
        page = "```bash\necho before\n```\n\n```bash\necho now\nfalse\n```\n"
        with pytest.raises(AssertionError, match="line 5 failed:\necho now\nfalse\n\nnow"):
            run_page(page, folder=tmp_path, environment={**os.environ}, seconds=60)

    @pytest.mark.parametrize(
        ("expected", "output"),
        [
            ("fixed 9   71.2", "fixed 9 99.0"),
            ("a\nb", "b\na"),
            ("right", "wrong"),
            ("1 of 2", "1 of 2 of 3"),
        ],
    )
    def test_what_was_not_written_is_missing(self, expected, output):
        assert missing_lines(expected, output)

    @pytest.mark.parametrize(
        ("expected", "output"),
        [
            ("fixed 9   71.2  -0.3", "noise\nfixed 9 69.0 +0.1\nnoise"),
            ("a\n...\nc", "a\nb\nc"),
            ("9 ███░░ 73.1% likely", "9 ████░ 70% likely"),
            ("", "anything"),
        ],
    )
    def test_machines_may_differ_a_little(self, expected, output):
        assert missing_lines(expected, output) == []
