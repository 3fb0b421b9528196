"""Bytes to text: no mojibake, no exceptions but `LoadError`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.errors import LoadError
from semsearch.loaders.decoding import decode, detect_encoding
from tests.unit.loaders_fixtures import failure, only, shared_folder, write

SENTENCES = {
    "cp1252": ["“Quoted” — it’s 100 €", "L’élève est allé à l’école à Besançon", "¿Qué tal? ¡Hola, señor!"],
    "latin-1": [
        "Die Größe der Übung",
        "Smörgåsbord på svenska är gott",
        "Ærø",
        "café",
        "naïve",
        "señor",
        "5 °C",
        "© 2020",
    ],
    "cp1251": ["Привет, мир", "Москва", "Съешь ещё этих мягких французских булок", "Привіт, як справи"],
    "koi8-r": ["Привет, мир", "Съешь ещё этих мягких французских булок"],
    "cp866": ["Съешь ещё этих мягких французских булок, да выпей чаю"],
    "gbk": ["你好", "你好，世界", "软件开发", "第一章 绪论"],
    "gb18030": ["这个软件包的版权归作者所有，您可以自由使用"],
    "big5": ["你好，世界", "軟體開發", "第一章 緒論"],
    "shift_jis": ["日本語", "こんにちは", "これは日本語のテキストです", "東京タワー"],
    "euc_jp": ["日本語", "こんにちは", "これは日本語のテキストです"],
    "iso2022_jp": ["これは日本語のテキストです"],
    "euc_kr": ["안녕하세요", "대한민국 서울", "한국어 문서입니다."],
    "cp1253": ["Η Αθήνα είναι πρωτεύουσα της Ελλάδας"],
    "cp1255": ["ירושלים היא בירת ישראל, והיא העיר הגדולה בה"],
    "cp1256": ["مرحبا بالعالم", "اللغة العربية من أكثر اللغات"],
    "cp874": ["ภาษาไทยเป็นภาษาที่ใช้ในประเทศไทย"],
    "cp1250": ["Zażółć gęślą jaźń", "Příliš žluťoučký kůň úpěl", "Wszyscy ludzie rodzą się wolni i równi"],
    "iso8859_2": ["Zażółć gęślą jaźń", "Příliš žluťoučký kůň úpěl"],
    "cp1254": ["Türkçe öğrenmek güzeldir, şimdi başlıyoruz"],
    "cp1257": ["Visi cilvēki piedzimst brīvi un vienlīdzīgi savā pašcieņā"],
    "utf-16-le": ["Plain words, with blanks", "中文文档\n第二行\n第三行 与 空格"],
    "utf-16-be": ["Plain words, with blanks"],
    "utf-16": ["x", "中"],
    "utf-32": ["x", "中文"],
    "utf-32-le": ["Plain words"],
    "utf-8": ["x", "中文", "naïve"],
    "utf-8-sig": ["中文"],
}


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in SENTENCES.items() for text in texts])
def test_short_texts_in_many_encodings(encoding, text):
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "word", ["café", "naïve", "Müller", "Größe", "façade", "Ångström", "El Niño", "ÉTÉ", "déjà vu"]
)
def test_short_latin_words_never_become_another_script(word):
    assert detect_encoding(word.encode("latin-1")) == "cp1252"
    assert detect_encoding(f"A page in English with one {word} in it.\n".encode("latin-1") * 3) == "cp1252"


SHARED = {
    "debmake-de.cp1252.txt": "Leitfaden für Debian-Betreuer",
    "debmake-de.latin1.txt": "Leitfaden für Debian-Betreuer",
    "debmake-en.utf16-bom.txt": "Debian",
    "debmake-ja.eucjp.txt": "パッケージ",
    "debmake-ja.sjis.txt": "パッケージ",
    "debmake-ru.cp1251.txt": "команды",
    "debmake-ru.koi8r.txt": "команды",
    "debmake-zh-cn.gb18030.txt": "软件包",
    "debmake-zh-cn.gbk.txt": "软件包",
    "debmake-zh-cn.utf16le-nobom.txt": "软件包",
    "debmake-zh-cn.utf8-bom.txt": "软件包",
    "debmake-zh-tw.big5.txt": "套件",
    "page-latin1-declared.html": "Überblick",
}


@pytest.mark.parametrize("name", SHARED)
def test_the_shared_files_are_readable(name):
    document = only(shared_folder("encodings") / name)
    assert SHARED[name] in document.title + document.text
    assert document.text.count("\ufffd") <= 2


def test_every_shared_file_has_known_words():
    assert {path.name for path in shared_folder("encodings").iterdir()} == set(SHARED)


def test_a_few_broken_bytes_in_utf8_cost_no_more_than_themselves():
    assert (
        decode("Größe und Übung, 中文".encode() + b"\xff tail " + "äöü".encode())
        == "Größe und Übung, 中文\ufffd tail äöü"
    )
    assert decode(b"plain text, th\xff\xfee best, " * 30).startswith("plain text, th\ufffd\ufffde best")
    assert decode("中文文档".encode()[:-1]) == "中文文\ufffd"


def test_nul_bytes_in_a_text():
    text = b"".join(b"line %d of a text\x00\n" % k for k in range(40))
    assert decode(text).startswith("line 0 of a text\x00\n")


@pytest.mark.parametrize(
    "data",
    [
        random.Random(1).randbytes(5000),
        b"\x89PNG\r\n\x1a\n" + b"text",
        b"\x7fELF\x02\x01",
        b"PK\x03\x04rest",
        b"\x00\x00\x00\x18ftypmp42",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        bytes(100),
        b"%PDF-1.7\n",
    ],
)
def test_binary_data(data, tmp_path):
    with pytest.raises(LoadError) as caught:
        decode(data)
    assert caught.value.skipped and caught.value.reason == "binary file"
    assert failure(write(tmp_path / "a.md", data)).reason == "binary file"


def test_empty_and_blank(tmp_path):
    with pytest.raises(LoadError, match="empty file"):
        decode(b"")
    assert failure(write(tmp_path / "a.txt", " \n\t\n")).reason == "no text in it"
    assert failure(write(tmp_path / "b.txt", b"\xef\xbb\xbf")).skipped


@given(st.binary(max_size=400))
def test_any_bytes_give_text_or_a_load_error(data):
    try:
        text = decode(data)
    except LoadError as error:
        assert error.skipped
    else:
        assert isinstance(text, str)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\ufeff"), min_size=1))
def test_utf8_round_trip(text):
    assert decode(text.encode()) == text
    assert decode(text.encode("utf-16")) == text
