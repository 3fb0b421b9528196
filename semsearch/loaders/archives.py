"""Zip containers (docx, pptx, odt, epub): refused when they unpack to too much, read without trusting their XML."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from semsearch.errors import LoadError
from semsearch.loaders import limits
from semsearch.loaders.base import import_extra

__all__ = ["check_container", "open_container", "parse_xml"]


def open_container(path: Path) -> zipfile.ZipFile:
    """Open a zip file whose members together stay within the limits.

    Raises:
        LoadError: empty, too large, encrypted, or a zip bomb by the sizes it declares; `zipfile` never unpacks
            more of a member than is declared.
        zipfile.BadZipFile: it is no zip file, or a damaged one.
    """
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        raise LoadError("empty file", skipped=True)
    if n_bytes > limits.MAX_FILE_BYTES:
        raise LoadError(f"larger than the {limits.readable_bytes(limits.MAX_FILE_BYTES)} limit")
    archive = zipfile.ZipFile(path)
    try:
        _check_members(archive, n_bytes)
    except LoadError:
        archive.close()
        raise
    return archive


def check_container(path: Path) -> None:
    """Open and close a container for the checks of `open_container`."""
    open_container(path).close()


def _check_members(archive: zipfile.ZipFile, n_packed_bytes: int) -> None:
    members = archive.infolist()
    if any(member.flag_bits & 1 for member in members):
        raise LoadError("encrypted: a password is needed")
    n_bytes = sum(member.file_size for member in members)
    if n_bytes > limits.MAX_UNPACKED_BYTES:
        limit = limits.readable_bytes(limits.MAX_UNPACKED_BYTES)
        raise LoadError(f"unpacks to {limits.readable_bytes(n_bytes)} (limit {limit}): refused as a zip bomb")
    # One member may be packed as tightly as the whole, so the ratio is taken member by member.
    for member in members:
        ratio = member.file_size / max(member.compress_size, 1)
        if member.file_size > limits.MIN_BOMB_BYTES and ratio > limits.MAX_COMPRESSION_RATIO:
            raise LoadError(
                f"unpacks to {limits.readable_bytes(n_bytes)} from {limits.readable_bytes(n_packed_bytes)}: "
                "refused as a zip bomb"
            )


def parse_xml(data: bytes) -> Any:
    """Parse XML without resolving entities, loading DTDs or touching the network; answer the root element.

    Raises:
        lxml.etree.XMLSyntaxError: it is not well formed, or nested past lxml's own limits.
    """
    etree = import_extra("lxml.etree", "lxml")
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    return etree.fromstring(data, parser)
