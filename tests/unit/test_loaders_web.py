"""HTML: main text without navigation, exact headings, encodings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.loaders.base import TextBuilder
from semsearch.loaders.web import append_html, decode_html
from tests.unit.loaders_fixtures import only, outline, section, write

PAGE = """<!DOCTYPE html><html><head><title>The  Title</title><style>p {color: red}</style></head><body>
<header><div class="logo">Site name</div><nav><a href="/">Home</a></nav></header>
<div role="navigation">Prev Next</div>
<div class="sidebar left-menu"><ul><li>Menu entry</li></ul></div>
<form action="/search"><input type="text" value="q"><label>Search</label></form>
<main>
<h1>Start<a class="headerlink" href="#start">¶</a></h1>
<p>First <b>bold</b> para&shy;graph &amp; more.<br>After a break.</p>
<ul><li>one</li><li>two<ul><li>deep</li></ul></li><li><p>three</p></li></ul>
<pre>
def f():
    return 1
</pre>
<h2 id="search">Search <code>options</code></h2>
<table><thead><tr><th>Name</th><th>Use</th></tr></thead><tbody><tr><td>a</td><td><p>first</p></td></tr></tbody></table>
<dl><dt>Term</dt><dd>Meaning</dd></dl>
<aside class="note">A note.</aside><aside>Related links</aside>
<script>alert(1)</script><div hidden>Secret</div>
</main><footer>Copyright</footer></body></html>"""


def test_main_text_without_navigation(tmp_path):
    document = only(write(tmp_path / "page.HTML", PAGE))
    assert document.title == "The Title"
    assert document.text == (
        "Start\n\nFirst bold paragraph & more.\nAfter a break.\n\n- one\n- two\n  - deep\n- three\n\n"
        "def f():\n    return 1\n\nSearch options\n\nName | Use\na | first\n\nTerm\nMeaning\n\nA note."
    )
    assert outline(document) == [(1, "Start"), (2, "Search options")]
    assert section(document, "Search options").startswith("Search options\n\nName | Use")


def test_navigation_that_is_the_whole_page_is_kept(tmp_path):
    page = "<title>Index</title><body><nav><ul><li><a href=a>First page</a><li><a href=b>Second page</a></ul></nav>"
    document = only(write(tmp_path / "a.html", page))
    assert document.text == "- First page\n- Second page"


def test_an_element_that_holds_most_of_the_text_is_kept_whatever_its_name(tmp_path):
    page = f"<body><div class='page-menu'><p>{'words ' * 20}</p></div><form><p>{'more ' * 60}</p></form>"
    text = only(write(tmp_path / "a.html", page)).text
    assert "more" in text and "words" not in text


def test_layout_tables_are_read_as_blocks(tmp_path):
    page = "<table><tr><td><h1>Big</h1><p>One</p><p>Two</p></td></tr></table>"
    assert only(write(tmp_path / "a.html", page)).text == "Big\n\nOne\n\nTwo"


def test_instructions_to_other_programs_are_left_out(tmp_path):
    page = (
        "<?xml version='1.0'?><body><?php if ($a->n > 3) { echo '<b>secret</b>'; } ?><p>Price: <?= $x > 3 ? 1 : 2 ?>"
        " euros</p><h2>A<?x?></h2><p>B <?PHP never closed</p>"
    )
    assert only(write(tmp_path / "a.html", page)).text == "Price: euros\n\nA\n\nB"


def test_unclosed_instructions_take_no_time(tmp_path):
    page = "<p>a</p>" + "<?php " * 300_000 + "?><p>b</p>" + "<?= " * 300_000
    assert only(write(tmp_path / "a.html", page)).text == "a\n\nb"


def test_an_unclosed_heading_does_not_swallow_the_page(tmp_path):
    document = only(write(tmp_path / "a.html", "<html><body><h1>Unclosed<p>first <b>bold<table><tr><td>cell<p>last"))
    assert outline(document) == [(1, "Unclosed")]
    assert document.text.startswith("Unclosed\n\nfirst bold")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ('<meta charset="iso-8859-1"><p>caf\xe9 \x93quoted\x94'.encode("latin-1"), "café “quoted”"),
        ('<meta http-equiv=content-type content="text/html; charset=gb2312"><p>镕基'.encode("gb18030"), "镕基"),
        ("<meta charset=Shift_JIS><p>日本語①".encode("cp932"), "日本語①"),
        ("<meta charset=utf-8><p>Größe".encode("cp1252"), "Größe"),
        ("<meta charset=no-such-thing><p>Größe".encode(), "Größe"),
        ('<?xml version="1.0" encoding="koi8-r"?><html><p>Привет'.encode("koi8-r"), "Привет"),
        ("<p>中文".encode("utf-16"), "中文"),
        ("\ufeff<p>naïve".encode(), "naïve"),
    ],
)
def test_declared_and_undeclared_encodings(page, words):
    builder = TextBuilder()
    append_html(builder, decode_html(page))
    assert builder.text() == words


def test_deep_nesting_is_no_trouble(tmp_path):
    document = only(write(tmp_path / "a.html", "<div>" * 8_000 + "deep" + "</div>" * 8_000))
    assert document.text == "deep"


@given(
    st.lists(
        st.sampled_from(["<h1>", "</h1>", "<p>", "<pre>", "</pre>", "<ul>", "<li>", "<br>", "x", "<td>", "<table>"])
    )
)
def test_outline_always_points_at_its_title(tags):
    builder = TextBuilder()
    append_html(builder, "".join(tags))
    text = builder.text()
    for heading in builder.outline:
        assert text[heading.start :].startswith(heading.title)
