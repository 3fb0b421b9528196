"""Every error semsearch raises on purpose: each says what is wrong, with the values, and what mends it."""

from __future__ import annotations

__all__ = [
    "IndexCorrupt",
    "IndexIncompatible",
    "IndexLocked",
    "IndexNotFound",
    "IndexUnwritable",
    "InvalidInput",
    "LoadError",
    "MissingExtra",
    "ModelError",
    "PassageNotFound",
    "SemsearchError",
]


class SemsearchError(Exception):
    """Base of all errors a caller may want to catch; its text is meant for the user."""


class InvalidInput(SemsearchError, ValueError):
    """An argument is out of range or contradicts another one."""


class MissingExtra(SemsearchError, ImportError):
    """A library of an optional extra is not installed; the text holds the install line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed. Install it with: pip install 'semsearch[{extra}]'")
        self.extra = extra


class ModelError(SemsearchError):
    """A model cannot be found, fails verification, or cannot be run."""


class IndexNotFound(SemsearchError):
    """There is no index where one was asked for."""


class PassageNotFound(SemsearchError):
    """The index does not show the passage that was asked for; it was never there, or has been replaced."""


class IndexIncompatible(SemsearchError):
    """The index was built with another model, dimension or format than the one asked for."""


class IndexLocked(SemsearchError):
    """Another process is writing to the index."""


class IndexCorrupt(SemsearchError):
    """Files of the index contradict each other or cannot be read."""


class IndexUnwritable(SemsearchError):
    """Files of the index cannot be written: a full disk, a folder that may only be read, a failing drive."""


class LoadError(SemsearchError):
    """A file cannot be turned into documents.

    Attributes:
        reason: why, in words for the user, without the path.
        skipped: True when there was nothing to read (empty, binary, unsupported), False when reading failed.
        retry: True when the cause lies outside the file (permission, a missing extra), so the next run tries again.
    """

    def __init__(self, reason: str, *, skipped: bool = False, retry: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.skipped = skipped
        self.retry = retry
