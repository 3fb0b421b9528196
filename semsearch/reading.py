"""What a reranker reads of a passage."""

from __future__ import annotations

from semsearch.encoders.late_interaction import FIRST_CJK
from semsearch.types import Chunk, Document

__all__ = ["read_in_context", "read_passage"]

MAX_PART_CHARS = 150  # of a title or heading that are read with a passage
MAX_HEADINGS = 2  # that are read beside the title: the innermost


def read_in_context(text: str, context: str) -> str:
    """What a reranker reads of a passage: the passage, then those of its title and headings that it does not say.

    A passage out of the middle of a document seldom names what all of it is about. They come last, so that offsets into
    the passage stay, and what a model has no room for is not of the passage.

    Args:
        text: the passage.
        context: its document's title and the headings of the sections around it, outermost first, joined by " > ".
    """
    said = " ".join(text.casefold().split())
    title, *headings = (" ".join(part.split()) for part in context.split(" > "))
    parts = {part.casefold(): _shortened(part) for part in headings if part and not _says(said, part.casefold())}
    parts.pop(title.casefold(), None)
    unsaid = [*parts.values()][-MAX_HEADINGS:]
    if title and not _says(said, title.casefold()):
        unsaid.insert(0, _shortened(title))
    return "\n".join([text, "", *unsaid]) if unsaid else text


def read_passage(chunk: Chunk, document: Document) -> str:
    """What a reranker reads of a passage of a document."""
    return read_in_context(chunk.text, f"{document.title} > {chunk.heading}")


def _says(text: str, part: str) -> bool:
    """Whether a text has the words of a part in a row, of which both are in one case."""
    at = text.find(part)
    while at >= 0:
        if not _in_one_word(text[at - 1 : at + 1]) and not _in_one_word(text[at + len(part) - 1 : at + len(part) + 1]):
            return True
        at = text.find(part, at + 1)
    return False


def _in_one_word(characters: str) -> bool:
    """Whether neither side of a place in a text is the end of a word; where words are not set apart, each is one."""
    return len(characters) == 2 and characters.isalnum() and ord(max(characters)) < FIRST_CJK


def _shortened(part: str) -> str:
    return part if len(part) <= MAX_PART_CHARS else part[: MAX_PART_CHARS + 1].rsplit(maxsplit=1)[0][:MAX_PART_CHARS]
