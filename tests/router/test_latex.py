from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.router.reports.latex import cell, escape, latex_table, write_latex

NASTY = "50 % of a_b & {c} \\input{/etc/passwd} $x^2$ #1 ~ --- ?` <é> [x] * 日本 \x07"
COMMANDS = {
    "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
    "textquotedbl", "leq", "geq", "cdot", "to", "times", "footnotesize",
}  # fmt: skip


def read_cell(text: str) -> None:
    """A strict reader of one cell: balanced groups and dollars, known commands, nothing bare."""
    depth, maths, at = 0, False, 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            command = re.match(r"\\([A-Za-z]+|[&%$#_{}])", text[at:])
            assert command, text[at:]
            assert len(command[1]) == 1 or command[1] in COMMANDS, command[1]
            at += command.end()
            continue
        assert letter not in "&%#~", (letter, text)
        assert letter not in "^_" or maths, text
        depth += {"{": 1, "}": -1}.get(letter, 0)
        maths ^= letter == "$"
        assert depth >= 0
        assert letter.isprintable()
        at += 1
    assert depth == 0
    assert not maths


def body(tex: str) -> list[str]:
    inside = tex.split("\\midrule\n")[1].split("\n\\bottomrule")[0]
    lines = inside.split("\n")
    assert all(line.endswith(r" \\") for line in lines)
    return [line.removesuffix(r" \\") for line in lines]


@given(st.text(max_size=60))
def test_any_text_is_a_readable_cell(text):
    found = escape(text)
    read_cell(found)
    if not {"–", "—"} & set(text):
        assert not re.search(r"--|``|''|,,|[?!]`", found)  # no ligature that was not there
    assert not found.startswith(("[", "*"))


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**9), 10**9),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_any_number_is_a_readable_cell_with_four_digits(value):
    found = cell(value)
    read_cell(found)
    if isinstance(value, float) and value:
        shown = found.strip("$").replace(r"\cdot 10^{", "e").rstrip("}")
        assert float(shown) == pytest.approx(value, rel=6e-4)


def test_intervals_become_one_column_and_rows_stay_rows():
    header = ["name", "score", "score_low", "score_high", "n"]
    rows = [[NASTY, 0.98765, 0.97, None, 12], ["[b]", None, None, None, 0]]
    tex = latex_table((header, rows), caption=NASTY, label="a_b c")
    assert r"\label{tab:a-b-c}" in tex
    assert r"\begin{tabular}{lrr}" in tex
    assert [len(re.split(r"(?<!\\) & ", line)) for line in body(tex)] == [3, 3]
    assert r"0.9877 {\footnotesize [0.97, --]} & 12" in tex
    assert body(tex)[1] == r"{[}b{]} & -- & 0"
    for line in body(tex):
        for part in re.split(r"(?<!\\) & ", line):
            read_cell(part)
    for rule in ("toprule", "midrule", "bottomrule"):
        assert tex.count("\\" + rule) == 1


def test_only_tables_with_a_caption_are_written(tmp_path):
    tables = {"a": (["x"], [[1]]), "b": (["x"], [[2]])}
    (path,) = write_latex(tables, tmp_path, captions={"a": "A.", "missing": "None."})
    assert path.name == "a.tex"
    assert path.read_text().startswith(r"\begin{table}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(tmp_path):
    tex = latex_table((["name", "n"], [[NASTY, 1]]), caption=NASTY, label="x")
    whole = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "x.tex").write_text(whole + tex + r"\end{document}")
    subprocess.run(
        ["pdflatex", "-halt-on-error", "x.tex"], cwd=tmp_path, check=True, capture_output=True
    )
