"""PDF, Word, PowerPoint, OpenDocument and EPUB, and every way in which they can be refused."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import docx
import pptx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen import canvas

from semsearch.loaders import limits
from semsearch.loaders.pdf import to_document
from semsearch.loaders.pdfium import RawPdf
from tests.unit.loaders_fixtures import failure, is_root, only, outline, section, write, zip_bomb

_NO_PATH = Path("a.pdf")


def make_pdf(path, pages, *, bookmarks=(), encrypt=None, **properties):
    sheet = canvas.Canvas(str(path), encrypt=encrypt)
    for name, value in properties.items():
        getattr(sheet, f"set{name.capitalize()}")(value)
    for number, lines in enumerate(pages):
        for title, level in (entry[1:] for entry in bookmarks if entry[0] == number):
            sheet.bookmarkPage(title)
            sheet.addOutlineEntry(title, title, level)
        for k, line in enumerate(lines):
            sheet.drawString(72, 760 - 16 * k, line)
        sheet.showPage()
    sheet.save()
    return path


def test_pdf_pages_bookmarks_and_running_heads(tmp_path):
    pages = [["The Manual", f"Chapter text {name} continues with infor-", "mation here", *name, str(k)]
             for k, name in enumerate(["alpha", "beta", "gamma", "delta", "epsilon"], start=1)]  # fmt: skip
    pages[2].insert(1, "2 Gamma part")
    path = make_pdf(
        tmp_path / "a.pdf",
        pages,
        bookmarks=[(0, "Start", 0), (2, "Gamma part", 1)],
        title="Doc title",
        author="A. Person",
    )
    document = only(path)
    assert document.title == "Doc title"
    assert document.metadata["author"] == "A. Person" and document.metadata["date"][:2] == "20"
    assert len(document.page_starts) == 5
    starts = document.page_starts
    assert document.text[starts[3] :].startswith("Chapter text delta continues with information here")
    assert "The Manual" not in document.text and document.text.endswith("\no\nn")
    assert outline(document) == [(1, "Start"), (2, "Gamma part")]
    assert section(document, "Gamma part").startswith("2 Gamma part\n")
    assert document.outline[0].start == 0


def test_pdf_page_cleaning():
    raw = RawPdf([
        "Contents\n1.1 Start . . . . . . . . . 3",
        "well-known things are well-\nknown and hyphen\ufffeated",
        "文 件 系 统 is 中文 text",
    ])  # fmt: skip
    document = to_document(_NO_PATH, raw)
    assert document.text == (
        "Contents\n1.1 Start … 3\n\nwell-known things are well-known and hyphenated\n\n文件系统 is 中文 text"
    )
    assert document.page_starts == (0, document.text.index("well"), document.text.index("文"))


def test_pdf_running_head_of_a_chapter_stays_where_it_first_occurs():
    pages = [f"Chapter 3: Basics {k}\nbody number {k} of {'abcdefgh'[k]}" for k in range(5)]
    pages += [f"unlike the others {'abcdefghijkl'[k]}\nbody of {'mnopqrstuvwx'[k]}" for k in range(12)]
    text = to_document(_NO_PATH, RawPdf(pages)).text
    assert text.count("Chapter 3: Basics") == 1 and text.startswith("Chapter 3: Basics 0")
    assert text.count("unlike the others") == 12


def test_pdf_numbered_lines_are_headings_when_there_are_no_bookmarks():
    pages = [f"{k}.{j}. {'Abc'[k - 1] * 9}\nbody {'xyz'[j - 1]}" for k in range(1, 4) for j in range(1, 4)]
    document = to_document(_NO_PATH, RawPdf(pages))
    assert len(document.outline) == 9 and outline(document)[0] == (2, "1.1. AAAAAAAAA")


def test_pdf_of_nothing_but_repeating_lines_is_kept():
    assert to_document(_NO_PATH, RawPdf(["Form\nEmpty"] * 6)).text.count("Form") == 6


def test_pdf_without_text_is_reported_as_scanned(tmp_path):
    assert failure(make_pdf(tmp_path / "a.pdf", [[], [], []])).reason == "scanned: 3 pages without text; run OCR first"
    assert failure(make_pdf(tmp_path / "b.pdf", [[]])).reason == "scanned: 1 page without text; run OCR first"


@pytest.mark.parametrize("strength", [40, 128])
def test_encrypted_pdf(tmp_path, strength):
    for name, password in (("open", ""), ("closed", "secret")):
        lock = StandardEncryption(password, ownerPassword="owner", strength=strength)
        make_pdf(tmp_path / f"{name}.pdf", [["Hidden words"]], encrypt=lock)
    assert only(tmp_path / "open.pdf").text == "Hidden words"
    error = failure(tmp_path / "closed.pdf")
    assert error.reason == "encrypted PDF: a password is needed" and not error.skipped and not error.retry


def test_pdf_of_an_unknown_encryption(tmp_path):
    path = make_pdf(tmp_path / "a.pdf", [["words"]], encrypt=StandardEncryption("secret"))
    write(path, path.read_bytes().replace(b"/Standard", b"/Uncommon"))
    assert failure(path).reason == "encrypted PDF: its encryption is not supported"


def test_damaged_pdf(tmp_path):
    good = make_pdf(tmp_path / "good.pdf", [["words"]] * 50).read_bytes()
    assert failure(write(tmp_path / "cut.pdf", good[:600])).reason == "truncated or damaged PDF"
    assert failure(write(tmp_path / "text.pdf", "just text")).reason == "is not a PDF (it looks like plain text)"
    assert failure(write(tmp_path / "page.pdf", "<html>")).reason == "is not a PDF (it looks like a web page)"
    empty = failure(write(tmp_path / "empty.pdf", b""))
    assert empty.reason == "empty file" and empty.skipped


def test_broken_bookmarks_cost_no_text(tmp_path, capfd):
    bookmarks = [(0, "Start", 0), (0, "Next", 0), (0, "Last", 0)]
    data = make_pdf(tmp_path / "a.pdf", [["The words"]], bookmarks=bookmarks).read_bytes()
    surrogate = write(tmp_path / "b.pdf", data.replace(b"/Title (Next)", b"/Title <FEFFD800>"))
    assert surrogate.read_bytes() != data
    document = only(surrogate)
    assert document.text == "The words" and outline(document)[0] == (1, "Start")
    assert capfd.readouterr() == ("", "")


def test_pdf_text_past_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TEXT_CHARS", 100)
    path = make_pdf(tmp_path / "a.pdf", [["words " * 5]] * 5)
    assert failure(path).reason == "its text is longer than 100 characters"


def make_docx(path):
    document = docx.Document()
    document.core_properties.author = "B. Writer"
    german = document.styles.add_style("Überschrift 2", WD_STYLE_TYPE.PARAGRAPH)
    german.base_style = document.styles["Normal"]
    document.add_paragraph("The Title", style="Title")
    document.add_heading("First", 1)
    paragraph = document.add_paragraph("Before ")
    link = OxmlElement("w:hyperlink")
    run = OxmlElement("w:r")
    words = OxmlElement("w:t")
    words.text = "linked"
    run.append(words)
    link.append(run)
    paragraph._p.append(link)
    table = document.add_table(rows=2, cols=2)
    for k, words_of_cell in enumerate(["a", "b", "c", "d"]):
        table.cell(k // 2, k % 2).text = words_of_cell
    document.add_paragraph("After the table")
    document.add_paragraph("point", style="List Bullet")
    document.add_paragraph("next", style="List Bullet")
    document.add_paragraph("Zweitens", style="Überschrift 2")
    deleted = document.add_paragraph("kept")
    mark = OxmlElement("w:del")
    gone = OxmlElement("w:r")
    lost = OxmlElement("w:t")
    lost.text = "deleted"
    gone.append(lost)
    mark.append(gone)
    deleted._p.append(mark)
    controlled = OxmlElement("w:sdt")
    content = OxmlElement("w:sdtContent")
    content.append(document.add_paragraph("in a control")._p)
    controlled.append(content)
    document.element.body.insert_element_before(controlled, "w:sectPr")
    document.save(str(path))
    return path


def test_docx(tmp_path):
    document = only(make_docx(tmp_path / "a.docx"))
    assert document.title == "The Title" and document.metadata["author"] == "B. Writer"
    assert document.text == (
        "The Title\n\nFirst\n\nBefore linked\n\na | b\nc | d\n\nAfter the table\n\n- point\n- next\n\n"
        "Zweitens\n\nkept\n\nin a control"
    )
    assert outline(document) == [(1, "The Title"), (1, "First"), (2, "Zweitens")]
    assert section(document, "Zweitens").startswith("Zweitens\n\nkept")


def test_pptx(tmp_path):
    presentation = pptx.Presentation()
    for title, body in (("Opening", "First point"), ("Numbers", "Second point")):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = body
    table = slide.shapes.add_table(2, 2, 0, 0, 100, 100).table
    for k, words in enumerate(["x", "y", "1", "2"]):
        table.cell(k // 2, k % 2).text = words
    slide.notes_slide.notes_text_frame.text = "Say this aloud"
    presentation.save(str(tmp_path / "a.pptx"))
    document = only(tmp_path / "a.pptx")
    assert document.title == "Opening"
    assert document.text == "Opening\n\nFirst point\n\nNumbers\n\nSecond point\n\nx | y\n1 | 2\n\nSay this aloud"
    assert document.page_starts == (0, document.text.index("Numbers"))
    assert outline(document) == [(1, "Opening"), (1, "Numbers")]


ODT = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0">
<office:body><office:text><text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>
<text:h text:outline-level="1">Head</text:h><text:p>One<text:s text:c="3"/>two<text:line-break/>three&secret;</text:p>
<text:list><text:list-item><text:p>a</text:p><text:list><text:list-item><text:p>deep</text:p></text:list-item></text:list>
</text:list-item><text:list-item><text:p>b</text:p></text:list-item></text:list>
<table:table><table:table-row><table:table-cell><text:p>l</text:p></table:table-cell><table:table-cell><text:p>r</text:p>
</table:table-cell></table:table-row></table:table>
<text:h text:outline-level="2">Sub</text:h><text:p>End</text:p></office:text></office:body></office:document-content>"""
META = """<office:document-meta xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta><dc:title>Meta title</dc:title><dc:creator>C</dc:creator>
</office:meta></office:document-meta>"""


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_odt_resolves_no_entities(tmp_path):
    document = only(make_zip(tmp_path / "a.odt", {"mimetype": "x", "content.xml": ODT, "meta.xml": META}))
    assert document.text == "Head\n\nOne   two\nthree\n\n- a\n  - deep\n- b\n\nl | r\n\nSub\n\nEnd"
    assert (document.title, document.metadata) == ("Meta title", {"creator": "C"})
    assert outline(document) == [(1, "Head"), (2, "Sub")]


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
    "<dc:title>Book</dc:title><dc:language>en</dc:language></metadata><manifest>"
    '<item id="toc" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    '<item id="two" href="ch%202.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="one" href="text/../one.xhtml" media-type="application/xhtml+xml"/></manifest>'
    '<spine><itemref idref="toc"/><itemref idref="one"/><itemref idref="two"/><itemref idref="none"/></spine></package>'
)


def test_epub_follows_the_spine(tmp_path):
    members = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": PACKAGE, "OEBPS/nav.xhtml": "<nav>Contents</nav>"}
    for name, title in (("one", "Eins"), ("ch 2", "Zwei")):
        members[f"OEBPS/{name}.xhtml"] = f"<html><body><h1>{title}</h1><p>Text of {name}</p></body></html>"
    document = only(make_zip(tmp_path / "a.epub", members))
    assert document.text == "Eins\n\nText of one\n\nZwei\n\nText of ch 2"
    assert (document.title, document.metadata) == ("Book", {"language": "en"})
    assert outline(document) == [(1, "Eins"), (1, "Zwei")]
    assert only(make_zip(tmp_path / "no-suffix", members)).title == "Book"


KINDS = {
    "a.docx": "a Word document",
    "a.pptx": "a PowerPoint presentation",
    "a.odt": "an OpenDocument text",
    "a.epub": "an EPUB book",
}


@pytest.mark.parametrize("name", KINDS)
def test_containers_that_are_not_what_their_name_says(tmp_path, name):
    kind = KINDS[name]
    path = tmp_path / name
    assert failure(write(path, "This is plain text.")).reason == f"is not {kind} (it looks like plain text)"
    assert failure(write(path, "%PDF-1.4 ...")).reason == f"is not {kind} (it looks like a PDF)"
    assert failure(make_zip(path, {"x.txt": "x"})).reason == f"is not {kind} (it looks like a zip archive)"
    assert "password-protected" in failure(write(path, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))).reason
    empty = failure(write(path, b""))
    assert empty.reason == "empty file" and empty.skipped


@pytest.mark.parametrize(("name", "member"), [("a.docx", "word/document.xml"), ("a.odt", "content.xml")])
def test_zip_bombs_are_refused_before_they_are_unpacked(tmp_path, name, member, monkeypatch):
    bomb = zip_bomb(tmp_path / name, member, n_mebibytes=20)
    assert failure(bomb).reason.startswith("unpacks to 20 MiB from ")
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 10 << 20)
    error = failure(bomb)
    assert error.reason == "unpacks to 20 MiB (limit 10 MiB): refused as a zip bomb" and not error.skipped


def test_damaged_containers(tmp_path):
    data = make_docx(tmp_path / "a.docx").read_bytes()
    assert failure(write(tmp_path / "cut.docx", data[: len(data) // 2])).reason == "truncated or damaged Word document"
    broken = {"[Content_Types].xml": "<not", "word/document.xml": "<xml"}
    assert failure(make_zip(tmp_path / "b.docx", broken)).reason == "truncated or damaged Word document"
    assert (
        failure(make_zip(tmp_path / "b.odt", {"content.xml": "<a>"})).reason == "truncated or damaged OpenDocument text"
    )
    assert failure(make_zip(tmp_path / "b.epub", {"mimetype": ""})).reason == "truncated or damaged EPUB book"


def test_encrypted_containers(tmp_path):
    path = make_zip(tmp_path / "a.odt", {"content.xml": ODT})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted member
    assert failure(write(path, bytes(data))).reason == "encrypted: a password is needed"


def test_blank_documents_are_skipped(tmp_path):
    docx.Document().save(str(tmp_path / "a.docx"))
    error = failure(tmp_path / "a.docx")
    assert error.reason == "no text in it" and error.skipped


def test_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 1 << 20)
    for name in ("a.docx", "a.pdf"):
        with (tmp_path / name).open("wb") as file:
            file.truncate((1 << 20) + 1)
        assert failure(tmp_path / name).reason == "larger than the 1 MiB limit"


def test_size_in_words():
    sizes = [0, 999, 2048, 64 << 20, 2_254_857_830]
    assert [limits.readable_bytes(n) for n in sizes] == ["0 bytes", "999 bytes", "2 KiB", "64 MiB", "2.1 GiB"]


@pytest.mark.parametrize("name", ["a.doc", "a.RTF", "a.xlsx"])
def test_old_formats_say_what_to_do(tmp_path, name):
    error = failure(write(tmp_path / name, "x"))
    assert error.skipped and ("save it as" in error.reason or "export it as" in error.reason)


def test_binary_missing_and_forbidden_files(tmp_path):
    picture = failure(write(tmp_path / "a.png", b"\x89PNG\r\n\x1a\n" + bytes(100)))
    assert picture.reason == "binary file" and picture.skipped
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("x", "y")
    assert failure(write(tmp_path / "a.zip", archive.getvalue())).reason == "binary file (a zip archive)"
    missing = failure(tmp_path / "gone.md")
    assert missing.reason == "no longer there" and missing.retry
    assert failure(tmp_path).reason == "a folder, not a file"
    if is_root():
        pytest.skip("root may read every file")
    locked = write(tmp_path / "locked.md", "x")
    locked.chmod(0)
    error = failure(locked)
    assert error.reason == "permission denied" and error.retry


def test_a_missing_library_names_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    error = failure(write(tmp_path / "a.html", "<p>x"))
    assert error.retry and not error.skipped
    assert error.reason == "selectolax is not installed. Install it with: pip install 'semsearch[docs]'"
