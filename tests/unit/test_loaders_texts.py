"""Plain text, mark-up languages, notebooks and source code."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.loaders.markdown import markdown_outline, markdown_words
from semsearch.loaders.text import plain_outline, underlined_titles
from tests.unit.loaders_fixtures import failure, only, outline, section, write

MARKDOWN = """---
title: The page
tags: [a, b]
date: 2024-05-01
---
# First { #first }

Text.

```python
# not a heading
~~~
## nor this
```

## A [link](https://example.org) and `code_x` **bold** ##

Setext
------

~~~~
# fenced by tildes
```
~~~~

#no-space is no heading
"""


def test_markdown_front_matter_headings_and_fences(tmp_path):
    document = only(write(tmp_path / "page.md", MARKDOWN))
    assert document.id == document.source == str(tmp_path / "page.md")
    assert document.title == "The page"
    assert document.metadata == {"title": "The page", "tags": ["a", "b"], "date": "2024-05-01"}
    assert document.text.lstrip().startswith("# First { #first }\n")
    assert outline(document) == [(1, "First"), (2, "A link and code_x bold"), (2, "Setext")]
    assert section(document, "A link and code_x bold").startswith("## A [link]")
    assert section(document, "Setext").startswith("Setext\n---")


@pytest.mark.parametrize(
    "front",
    [
        "",
        "---\ntitle: T\n---\n",
        "---\ntitle: T\n\ntags:\n- a\n...\n\n",
        "+++\ntitle = 'T'\n[a]\nb = 1\n+++\n\n",
        "\n\n",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_of_the_text_are_those_of_the_file(tmp_path, front, line_end):
    source = front + "# Title\n\nwords\n"
    for name in ("a.md", "a.txt", "a.rst", "a.adoc", "a.tex", "a.org", "a.py", "a.sh", "a.js", "README"):
        text = only(write(tmp_path / name, source.replace("\n", line_end))).text
        assert text.count("\n", 0, text.index("# Title")) + 1 == source.split("\n").index("# Title") + 1, name
        assert text.count("\n") == source.count("\n"), name


def test_headings_after_front_matter_have_their_line_in_the_file(tmp_path):
    document = only(write(tmp_path / "page.md", MARKDOWN))
    lines = [document.text.count("\n", 0, heading.start) for heading in document.outline]
    assert [MARKDOWN.split("\n")[line][:9] for line in lines] == ["# First {", "## A [lin", "Setext"]


def test_markdown_of_nothing_but_front_matter_is_skipped(tmp_path):
    assert failure(write(tmp_path / "a.md", "---\ntitle: T\n---\n")).skipped


def test_markdown_title_falls_back_to_the_first_heading_of_level_1(tmp_path):
    assert only(write(tmp_path / "a.md", "## Second\n\n# Top\n\ntext")).title == "Top"
    assert only(write(tmp_path / "b.MD", "just text")).title == ""


@pytest.mark.parametrize(
    ("front", "kept"),
    [
        ("---\n- a list\n---\nbody\n", "- a list"),
        ("---\nNote: this: is prose\nof several lines.\n---\nbody\n", "of several lines"),
        ("---\n\nbody\n", "---"),
        ("+++\ntitle: no TOML\n+++\nbody\n", "no TOML"),
        ("+++\nopen = 1\n\nbody\n", "open"),
        ("+++\n" + "a." * 300 + "b = 1\n+++\nbody\n", "a.a"),
        ("+++\na = " + "[" * 30_000 + "\n+++\nbody\n", "[[["),
    ],
)
def test_what_is_no_front_matter_stays_in_the_text(tmp_path, front, kept):
    document = only(write(tmp_path / "a.md", front))
    assert kept in document.text and document.metadata == {}


def test_front_matter_in_toml(tmp_path):
    front = (
        'title = "The page"\ndate = 2024-05-01\nat = 07:32:00\nratio = nan\ntags = ["a", "b"]\n[author]\nname = "Ada"\n'
    )
    document = only(write(tmp_path / "a.md", f"+++\n{front}+++\n# Top\nbody\n"))
    assert document.title == "The page"
    assert document.metadata == {
        "title": "The page", "date": "2024-05-01", "at": "07:32:00", "ratio": None, "tags": ["a", "b"],
        "author": {"name": "Ada"},
    }  # fmt: skip
    assert document.text.strip() == "# Top\nbody" and outline(document) == [(1, "Top")]


def test_front_matter_that_is_no_valid_yaml_is_read_value_by_value(tmp_path):
    front = (
        "title: Guide: part two\nyear: 2024\n# a remark\ndate: 2024-13-45\nauthor: @me\nlink: {{ page.title }}\n"
        "kind: !odd x\ntags:\n- a\n- b\nopen: [c,\n  d\n"
    )
    document = only(write(tmp_path / "a.md", f"---\n{front}---\nbody\n"))
    assert document.title == "Guide: part two"
    assert document.metadata == {
        "title": "Guide: part two", "year": 2024, "date": "2024-13-45", "author": "@me", "link": "{{ page.title }}",
        "kind": "!odd x", "tags": ["a", "b"], "open": "[c,\n  d",
    }  # fmt: skip
    assert document.text.strip() == "body" and document.text.count("\n") == front.count("\n") + 3


def test_exponential_yaml_is_not_expanded(tmp_path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    document = only(write(tmp_path / "a.md", "---\n" + "\n".join(levels) + "\n---\nbody\n"))
    assert document.metadata == {} and document.text.endswith("body\n")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("`__init__.py` files", "__init__.py files"),
        ("*Very* **strong** _word_ snake_case_name", "Very strong word snake_case_name"),
        ("An ![image](x.png) <b>tag</b> <!-- note -->", "An image tag"),
        ("`List<T>` and [`dict`][ref]", "List<T> and dict"),
        (r"Not \*emphasis\* { #x .y }", "Not *emphasis*"),
        ("C# and F#", "C# and F#"),
    ],
)
def test_markdown_words(raw, words):
    assert markdown_words(raw) == words


def test_restructured_text_levels_follow_the_order_of_adornments(tmp_path):
    text = (
        ".. _target:\n\n*****\nTitle\n*****\n\n:mod:`csv` --- files\n====================\n\ntext\n\n"
        "The ``with`` statement\n----------------------\n\n"
        "Back :ref:`up <x>`\n==================\n\n中文标题\n--------\n"
    )
    document = only(write(tmp_path / "a.rst", text))
    assert outline(document) == [
        (1, "Title"),
        (2, "csv --- files"),
        (3, "The with statement"),
        (2, "Back up"),
        (3, "中文标题"),
    ]
    assert document.title == "Title"
    assert section(document, "Title").startswith("*****\nTitle")
    assert section(document, "csv --- files").startswith(":mod:`csv`")


def test_asciidoc_titles_of_one_and_two_lines_outside_blocks(tmp_path):
    text = "= The Guide\n\n== One `x`\n\n----\n== not a title\nTwo\n---\n----\n\n[[id]]\nOld style\n~~~~~~~~~\n\ntext\n"
    for name in ("a.adoc", "a.txt"):
        document = only(write(tmp_path / name, text))
        assert outline(document) == [(1, "The Guide"), (2, "One x"), (3, "Old style")]
        assert document.title == "The Guide"


def test_plain_text_underlines_capitals_and_numbers(tmp_path):
    underlined = only(write(tmp_path / "a.txt", "Title\n=====\n\nPart one\n--------\nbody\n\na  b\n-- --\n"))
    assert outline(underlined) == [(1, "Title"), (2, "Part one")]
    assert underlined.title == "Title"
    manual = only(write(tmp_path / "b.txt", "NAME\n    ls - list\n\nSEE ALSO\n    cp\n"))
    assert outline(manual) == [(1, "NAME"), (1, "SEE ALSO")]
    numbered = "\n\n".join(f"{k}.1. Section {k}\n\nbody" for k in range(1, 7))
    assert outline(only(write(tmp_path / "c.txt", numbered)))[0] == (2, "1.1. Section 1")


def test_prose_has_no_outline(tmp_path):
    assert only(write(tmp_path / "a.txt", "Some text\nmore text\n---\nafter a rule\n")).outline == ()


def test_line_ends_nul_and_form_feed(tmp_path):
    document = only(write(tmp_path / "a.txt", b"one\r\ntwo\rthree\x00 four\n" + b"long enough to be text " * 10))
    assert document.text.startswith("one\ntwo\nthree\ufffd four\n")


def test_latex_and_org(tmp_path):
    latex = only(write(tmp_path / "a.tex", "\\title{A \\emph{fine} paper}\n\\section{Intro}\nx\n\\subsection*{More}\n"))
    assert latex.title == "A fine paper"
    assert outline(latex) == [(2, "Intro"), (3, "More")]
    org = only(write(tmp_path / "a.org", "#+TITLE: Notes\n* TODO First :tag:\n** Second\n"))
    assert org.title == "Notes" and outline(org) == [(1, "First"), (2, "Second")]


def test_notebook(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Study\n", "Words."]},
        {
            "cell_type": "code",
            "source": "# comment\nprint('```')",
            "outputs": [
                {"output_type": "stream", "text": ["line\n"] * 50},
                {"output_type": "display_data", "data": {"image/png": "AAAA"}},
                {"output_type": "error", "traceback": ["noise"]},
            ],
        },
        {"cell_type": "markdown", "source": "## Result"},
    ]
    notebook = {"nbformat": 4, "metadata": {"kernelspec": {"language": "python"}}, "cells": cells}
    document = only(write(tmp_path / "a.ipynb", json.dumps(notebook)))
    assert document.title == "Study"
    assert document.metadata == {"language": "python"}
    assert outline(document) == [(1, "Study"), (2, "Result")]
    assert "````python\n# comment\nprint('```')\n````" in document.text
    assert document.text.count("line") == 20
    assert "AAAA" not in document.text and "noise" not in document.text


def test_what_is_no_notebook(tmp_path):
    assert failure(write(tmp_path / "a.ipynb", "plain words")).reason == (
        "is not a Jupyter notebook (it is not valid JSON)"
    )
    assert "holds no cells" in failure(write(tmp_path / "b.ipynb", "[1, 2]")).reason
    assert failure(write(tmp_path / "c.ipynb", '{"cells": []}')).skipped


def test_python_outline(tmp_path):
    source = '"""Tools for x.\n\nMore."""\n\n@decorated\nclass A:\n'
    source += "    def f(self):\n        def inner(): ...\n\nasync def g(): ...\n"
    document = only(write(tmp_path / "a.py", source))
    assert document.title == "Tools for x."
    assert outline(document) == [(1, "A"), (2, "f"), (1, "g")]
    assert section(document, "A").startswith("@decorated\nclass A")
    assert section(document, "f").startswith("    def f(self)")


def test_python_2_falls_back_to_lines(tmp_path):
    document = only(write(tmp_path / "a.py", "class A:\n    def f(self):\n        print 'x'\n"))
    assert outline(document) == [(1, "A"), (2, "f")]


@pytest.mark.parametrize(
    ("name", "source", "names"),
    [
        ("a.js", "export class A {\n  f() {}\n}\nexport default async function g() {}\n", ["A", "g"]),
        ("a.go", "func (s *Server) Serve() error {\n}\nfunc main() {\n}\n", ["Serve", "main"]),
        ("a.rs", "pub(crate) struct S;\nimpl S {\n    pub fn new() -> S { S }\n}\n", ["S", "S", "new"]),
        ("a.c", "#include <a.h>\nstatic int add(int a, int b)\n{\n    return (a);\n}\nint x = f(1);\n", ["add"]),
        ("a.java", "public final class A {\n    void f() {}\n}\ninterface B {}\n", ["A", "B"]),
        ("a.sql", "CREATE TABLE IF NOT EXISTS users (id int);\n", ["users"]),
        ("a.sh", "#!/bin/sh\nf () {\n  :\n}\nfunction g {\n  :\n}\n", ["f", "g"]),
    ],
)
def test_definitions_of_other_languages(tmp_path, name, source, names):
    assert [heading.title for heading in only(write(tmp_path / name, source)).outline] == names


def test_files_without_a_known_suffix_are_told_by_content(tmp_path):
    assert only(write(tmp_path / "README", "Just words.")).text == "Just words."
    assert only(write(tmp_path / "tool", "#!/usr/bin/env python3\ndef f(): ...\n")).outline[0].title == "f"
    assert only(write(tmp_path / "run", "#!/bin/bash\nf() {\n:\n}\n")).outline[0].title == "f"
    page = b"\xef\xbb\xbf \n<!DOCTYPE html>\n<title>T</title><p>Words</p>"
    for name in ("page.txt", "page"):
        document = only(write(tmp_path / name, page))
        assert (document.title, document.text) == ("T", "Words")


@given(st.text(alphabet=st.sampled_from("ab =-~#`\n*中: "), max_size=200))
def test_outlines_stay_in_range(text):
    for headings in (list(markdown_outline(text)), plain_outline(text)):
        starts = [heading.start for heading in headings]
        assert starts == sorted(starts)
        assert all(0 <= start < max(len(text), 1) for start in starts)
        assert all(start == 0 or text[start - 1] == "\n" for start in starts)
    assert all(text[start : start + 1] for start, _, _ in underlined_titles(text, "=-", overlines=True))
