"""Training embedders and rerankers on a user's own documents. Not imported by anything that searches."""

from __future__ import annotations
