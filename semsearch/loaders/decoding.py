"""Bytes to text: byte order marks, UTF-16 without one, UTF-8, slightly broken UTF-8, then the older encodings."""

from __future__ import annotations

import codecs
import re
import unicodedata

from semsearch.errors import LoadError
from semsearch.loaders.encodings import cost_per_byte, guess_legacy

__all__ = ["decode", "detect_encoding", "is_binary"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that one's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = (
    b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"PK\x03\x04", b"PK\x05\x06", b"\x7fELF", b"\x1f\x8b\x08",
    b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\xca\xfe\xba\xbe", b"SQLite format 3\x00",
    b"OggS", b"fLaC", b"ID3\x03", b"ID3\x04", b"\x00asm", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\x28\xb5\x2f\xfd",
    b"!<arch>\n", b"wOFF", b"wOF2", b"\x00\x01\x00\x00\x00", b"\x93NUMPY", b"\x89HDF\r\n", b"PAR1",
    b"II*\x00", b"MM\x00*", b"8BPS", b"\x1aE\xdf\xa3", b"%PDF-",
)  # fmt: skip
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"
_MAX_NUL_SHARE = 0.06
_MAX_CONTROL_SHARE = 0.03
_HEAD_BYTES = 1 << 20
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_ASCII_BYTES = bytes(range(128))
_IMPLAUSIBLE_COST = 7.5


def decode(data: bytes) -> str:
    """Turn a file's bytes into text, without a byte order mark.

    Args:
        data: the whole content; line ends are left as they are.

    Raises:
        LoadError: the bytes are empty or no text in any encoding (`skipped` is True).
    """
    encoding = detect_encoding(data)
    return data.decode(encoding, errors="replace")


def detect_encoding(data: bytes) -> str:
    """Name the codec that reads `data` best; use it with `errors="replace"`.

    Raises:
        LoadError: the bytes are empty or no text in any encoding (`skipped` is True).
    """
    if not data:
        raise LoadError("empty file", skipped=True)
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return encoding
    wide = _wide_encoding(data[:_HEAD_BYTES])
    if wide:
        return wide
    if is_binary(data[:_HEAD_BYTES]):
        raise LoadError("binary file", skipped=True)
    if b"\x1b$B" in data and data.isascii():
        return "iso2022_jp"
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    if _nearly_utf8(data):
        return "utf-8"
    guess, sample = guess_legacy(data)
    # A few stray bytes in plain ASCII make no sense in any encoding: keep the text, mark the bytes.
    if cost_per_byte(guess, sample) > _IMPLAUSIBLE_COST:
        return "utf-8"
    return guess


def is_binary(head: bytes) -> bool:
    """Tell from a file's beginning whether it is something else than text in a byte-wise encoding."""
    if head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"AVI ", b"WEBP")):
        return True
    if head[4:8] == b"ftyp":
        return True
    if not head:
        return False
    n_nuls = head.count(0)
    n_controls = len(head) - len(head.translate(None, _CONTROLS)) - n_nuls
    return n_nuls > _MAX_NUL_SHARE * len(head) or n_controls > _MAX_CONTROL_SHARE * len(head)


def _wide_encoding(head: bytes) -> str | None:
    """Recognise UTF-16 and UTF-32 without a mark by where the NULs stand."""
    n_units = len(head) // 2
    if n_units < 2 or 0 not in head:
        return None
    quarters = [head[k::4].count(0) for k in range(4)]
    if len(head) >= 8 and quarters[1] + quarters[2] + quarters[3] > 0.7 * len(head):
        return "utf-32-le" if quarters[3] > quarters[0] else None
    if len(head) >= 8 and quarters[0] + quarters[1] + quarters[2] > 0.7 * len(head):
        return "utf-32-be"
    for encoding, high, low in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        blanks = [head[k + high] for k in range(0, 2 * n_units, 2) if head[k + low] in b" \n\r"]
        n_high_nuls, n_low_nuls = head[high::2].count(0), head[low::2].count(0)
        if n_low_nuls > 0.05 * n_high_nuls or n_high_nuls < 0.005 * n_units:
            continue
        spaced = len(blanks) >= 2 and blanks.count(0) >= 0.5 * len(blanks)
        if (spaced or n_high_nuls > 0.3 * n_units) and _plausible(head[: 2 * n_units].decode(encoding, "replace")):
            return encoding
    return None


def _plausible(text: str) -> bool:
    """Tell whether nearly all characters are ones that texts hold."""
    sample = text[:20_000]
    strange = sum(
        (unicodedata.category(char) in ("Cn", "Co", "Cs", "Cc") and char not in "\t\n\r\f\ufeff") or char == "\ufffd"
        for char in sample
    )
    return strange <= 0.02 * len(sample)


def _nearly_utf8(data: bytes) -> bool:
    """Tell UTF-8 with a few damaged places from another encoding: its multi-byte sequences are too many for chance."""
    n_sequences = len(_UTF8_SEQUENCE.findall(data))
    n_bad_bytes = len(_UTF8_SEQUENCE.sub(b"", data).translate(None, _ASCII_BYTES))
    if n_sequences > 4 * n_bad_bytes:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # passes over a character that the end cuts off
    except UnicodeDecodeError:
        return False
    return n_sequences >= 2
