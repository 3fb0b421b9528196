"""What is installed beside semsearch, found without importing any of it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

__all__ = ["Installation", "describe_installation"]

DISTRIBUTIONS = ("semsearch", "torch", "sentence-transformers", "openvino", "faiss-cpu", "faiss-gpu", "tantivy")


@dataclass(frozen=True, slots=True)
class Installation:
    """Versions in use, and what is wrong with them.

    Attributes:
        versions: name to version, None where it is not installed.
        warnings: each says what is wrong and the command that mends it.
    """

    versions: dict[str, str | None]
    warnings: Sequence[str]


def describe_installation() -> Installation:
    """Look up the versions that matter in the metadata of the installed distributions."""
    versions: dict[str, str | None] = {name: _version(name) for name in DISTRIBUTIONS}
    warnings = []
    if versions["faiss-cpu"] and versions["faiss-gpu"]:
        warnings.append(
            "faiss-cpu and faiss-gpu are both installed and overwrite each other's files. Keep one: "
            "pip uninstall -y faiss-cpu faiss-gpu && pip install --force-reinstall faiss-cpu"
        )
    elif not versions["faiss-cpu"] and not versions["faiss-gpu"]:
        warnings.append("faiss is not installed. Install it with: pip install 'semsearch[cpu]'")
    return Installation({"python": platform.python_version(), **versions}, warnings)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
