"""A service with the toy encoder, as a process: python -m tests.serve_toy INDEX SETTINGS SECONDS_OF_WHAT_IS_SLOW."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from semsearch.server.protocol import ImpatientProtocol
from semsearch.server.run import serve
from semsearch.server.service import Service
from semsearch.server.settings import Settings
from semsearch.types import FloatArray
from tests.toy import ToyEmbedder


class SlowEmbedder(ToyEmbedder):
    """Takes its time for queries that say so, and for passages."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        if any("slowly" in text for text in texts):
            time.sleep(self.seconds)
        return super().embed_queries(texts)

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        if any("slowly" in text for text in texts):
            time.sleep(self.seconds)
        return super().embed_documents(texts)


def main() -> None:
    index, given, seconds = sys.argv[1:]
    settings = Settings(**{"port": 0, **json.loads(given)})
    ImpatientProtocol.header_timeout_s = settings.receive_timeout_s
    service = Service(index, embedder=SlowEmbedder(float(seconds)), writable=settings.writable)
    serve(service, settings, shared=True, on_start=_tell)
    _tell("ended")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
