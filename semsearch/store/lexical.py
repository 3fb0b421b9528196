"""The lexical index: BM25 by tantivy over terms that BERT's own pre-tokeniser cuts.

Useful for exact words, names, codes, and for languages the dense model does not know. Each state of it has a folder of
its own, made of the one before by links: tantivy's segments never change, so that only what is new is written.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import EIO, ENOENT
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.files import sync_folder
from semsearch.store.positions import find
from semsearch.store.stop_words import STOP_WORDS
from semsearch.types import IntArray

__all__ = ["Analyzer", "LexicalEntry", "LexicalIndex", "LexicalWriter"]

ANALYSIS_VERSION = 1  # raise it when `Analyzer` cuts otherwise, so that all is read and entered again
META = "meta.json"  # tantivy's list of what belongs to the index
# As much is written as one segment, some 1,200,000 chunks of 500 characters, and each search asks each segment for all
# that it wants: the first 4,000 of a million chunks take half of the time in one of them that they take in eight.
WRITER_HEAP_BYTES = 512_000_000
MAX_TERM_CHARS = 64  # longer ones are keys and data, not words
LOOK_UP_COST = 4  # microseconds that a chunk takes by its id, beside 1 to fetch one more of the best (a million chunks)
# Ids that are looked up as one part. tantivy goes through 4,096 chunks at a time and asks every part each time: 7,000
# ids of a million chunks take 25 ms in parts, 137 one by one.
IDS_TOGETHER = 32
FETCH_SPARE = 3.0  # of the allowed ones so many more, times the root of k, are expected in what is fetched: 99 % hold k
CONTEXT_BOOST = 0.5  # weight of a term found in title, heading or file name, beside one found in the passage

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0002fa1f"
_CJK_RUN = re.compile(f"[{_CJK}]+")
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_BLANKS = re.compile("[ \t\n\r]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_DROPPED = dict.fromkeys({*range(32), 127} - set(b"\t\n\r"))  # control characters, which BERT leaves out


class Analyzer:
    """Text to terms: cleaned, accents folded and lower-cased as BERT does, then stemmed.

    Chinese, Japanese and Korean runs become their single characters and their pairs of neighbours: the characters keep
    recall for one-character words, the pairs give the order its weight.
    """

    def __init__(self) -> None:
        from tantivy import Filter, TextAnalyzerBuilder, Tokenizer
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        self._normalizer = BertNormalizer(handle_chinese_chars=False)
        self._pre_tokenizer = BertPreTokenizer()
        self.stemming = (
            TextAnalyzerBuilder(Tokenizer.whitespace())
            .filter(Filter.remove_long(MAX_TERM_CHARS))
            .filter(Filter.stemmer("english"))
            .build()
        )
        self._last_asked: tuple[str, dict[str, int]] = ("", {})  # a search asks for the terms of its query three times

    def words(self, text: str) -> list[str]:
        """Terms before stemming, in order, punctuation left out."""
        if text.isascii():
            return _ascii_words(text)
        words: list[str] = []
        for piece in _BLANKS.split(text):
            words.extend(_ascii_words(piece) if piece.isascii() else self._words(piece))
        return words

    def _words(self, text: str) -> list[str]:
        """`words` as BERT's own tokeniser cuts them, which takes twenty times as long as `_ascii_words`."""
        words: list[str] = []
        for word, _ in self._pre_tokenizer.pre_tokenize_str(self._normalizer.normalize_str(text)):
            if _CJK_RUN.search(word):
                for part in re.findall(f"[{_CJK}]+|[^{_CJK}]+", word):
                    if _CJK_RUN.fullmatch(part):
                        words.extend(part)
                        words.extend(part[i : i + 2] for i in range(len(part) - 1))
                    else:
                        words.append(part)
            elif len(word) > 1 or word.isalnum():
                words.append(word)
        return words

    def stem(self, words: Iterable[str]) -> list[str]:
        """Terms as the index holds them."""
        return list(self.stemming.analyze(" ".join(words)))

    def query_terms(self, text: str) -> dict[str, int]:
        """The terms of a query and how often each is in it, function words left out unless it has no others."""
        asked, terms = self._last_asked
        if asked != text:
            words = self.words(text)
            terms = dict(Counter(self.stem([w for w in words if w not in STOP_WORDS] or words)))
            self._last_asked = (text, terms)
        return dict(terms)

    def matches(self, text: str, terms: Iterable[str]) -> list[tuple[int, int]]:
        """Character spans (start, end) of the words of a text that answer to one of the terms."""
        wanted = set(terms)
        spans = []
        for found in _WORD.finditer(text):
            if wanted.intersection(self.stem(self.words(found[0]))):
                spans.append(found.span())
        return spans


@dataclass(frozen=True, slots=True)
class LexicalEntry:
    """What the index holds of a chunk: its id, its text, and the words around it (title, headings, file name)."""

    id: int
    text: str
    context: str


class LexicalIndex:
    """BM25 search over chunk ids. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        try:
            if folder.is_dir() and not os.access(folder, os.W_OK):  # tantivy locks even to read: read a copy instead
                self._copy = tempfile.TemporaryDirectory(prefix="semsearch-")
                folder = Path(shutil.copytree(folder, Path(self._copy.name) / "lexical", copy_function=shutil.copyfile))
                folder.chmod(0o700)
            elif not (folder / META).is_file():
                raise FileNotFoundError(ENOENT, "is missing", str(folder / META))
            self._index = _open(folder)
            self.reload()
        except Exception as error:  # tantivy raises plain ValueError and OSError, by cause and version
            if not (folder / META).is_file():  # a writer has replaced it
                raise FileNotFoundError(ENOENT, "is missing", str(folder / META)) from error
            raise IndexCorrupt(
                f"the lexical index in {folder} cannot be opened ({error}). Rebuild: semsearch index --rebuild"
            ) from error
        self.analyzer = Analyzer()
        self._last_query: tuple[str, Any] = ("", None)  # each is run several times, over all and over few chunks

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    @property
    def ids(self) -> IntArray:
        """int64 (n,) ids of all entries, in no order."""
        from tantivy import Query

        n = len(self)
        addresses = [a for _, a in self._searcher.search(Query.all_query(), n, count=False).hits] if n else []
        return np.array(self._searcher.fast_field_values("id", addresses), dtype=np.int64)

    def reload(self) -> None:
        """Show what was committed since."""
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, text: str, k: int) -> list[tuple[int, float]]:
        """The k best (chunk id, BM25 score) of a query, best first, ties to the smaller id."""
        query = self._query(text)
        return self._run(query, k) if query is not None else []

    def search_among(self, text: str, k: int, ids: IntArray) -> list[tuple[int, float]]:
        """The same among these chunks alone: int64 (n,), ascending.

        Few are looked up one by one. Of many, as many of the best chunks of all are fetched as should hold k of them,
        and more until they do.
        """
        query, n = self._query(text), len(self)
        if query is None or not len(ids) or not n:
            return []
        n_fetched = math.ceil((k + FETCH_SPARE * math.sqrt(k)) * n / len(ids))
        while n_fetched < LOOK_UP_COST * len(ids):
            hits, found = self._hits(query, n_fetched)
            rows = np.flatnonzero(find(ids, found)[1]).tolist()
            if len(rows) >= k or len(found) < n_fetched:
                return _ranked([(int(found[row]), hits[row][0]) for row in rows])[:k]
            n_fetched *= 4
        return self._run(self._only(query, ids.tolist()), k)

    def score(self, text: str, ids: Sequence[int]) -> dict[int, float]:
        """BM25 scores of these chunks; one without any term of the query is left out."""
        query = self._query(text)
        if query is None or not ids:
            return {}
        return self._among(query, ids)

    def coverage(self, text: str, ids: Sequence[int]) -> list[float]:
        """Share of a query's terms that each chunk's passage holds, weighted by inverse document frequency, in [0, 1].

        A term that no passage of the index holds weighs most; 0 for a query without terms.
        """
        from tantivy import Occur, Query

        n, total, clauses = int(self._searcher.num_docs), 0.0, []
        for term in self.analyzer.query_terms(text) if ids else ():
            count = int(self._searcher.doc_freq("text", term))
            weight = math.log(1 + (n - count + 0.5) / (count + 0.5))
            total += weight
            held = Query.term_query(self._index.schema, "text", term)
            clauses.append((Occur.Should, Query.const_score_query(held, weight)))
        found = self._among(Query.boolean_query(clauses), ids) if clauses else {}
        return [min(found.get(chunk_id, 0.0) / total, 1.0) if total > 0 else 0.0 for chunk_id in ids]

    def _among(self, query: Any, ids: Sequence[int]) -> dict[int, float]:
        """Scores of those of these chunks that a query finds."""
        return dict(self._run(self._only(query, ids), len(ids)))

    def _only(self, query: Any, ids: Sequence[int]) -> Any:
        """The query for what it finds among these chunks, which are given in ascending order for speed."""
        from tantivy import Occur, Query

        schema = self._index.schema  # tantivy takes two to three times as long for a set of terms
        terms = [(Occur.Should, Query.term_query(schema, "id", i)) for i in ids]
        parts = [Query.boolean_query(terms[i : i + IDS_TOGETHER]) for i in range(0, len(terms), IDS_TOGETHER)]
        among = Query.const_score_query(Query.boolean_query([(Occur.Should, part) for part in parts]), 0.0)
        return Query.boolean_query([(Occur.Must, among), (Occur.Must, query)])

    def _query(self, text: str) -> Any:
        """What finds the terms of a text; None where it has none."""
        asked, query = self._last_query
        if asked != text:
            query = self._terms_of(text)
            self._last_query = (text, query)
        return query

    def _terms_of(self, text: str) -> Any:
        from tantivy import Occur, Query

        schema = self._index.schema
        clauses = []
        # BM25 is a sum over the words of the query: one that is there twice counts twice (Robertson and Zaragoza 2009,
        # with k3 without limit): what a long question comes back to is what it is about.
        for term, n in self.analyzer.query_terms(text).items():
            for name, boost in (("text", float(n)), ("context", n * CONTEXT_BOOST)):
                clauses.append((Occur.Should, Query.boost_query(Query.term_query(schema, name, term), boost)))
        return Query.boolean_query(clauses) if clauses else None

    def _run(self, query: Any, k: int) -> list[tuple[int, float]]:
        hits, ids = self._hits(query, k)
        return _ranked([(int(i), score) for i, (score, _) in zip(ids.tolist(), hits, strict=True)])

    def _hits(self, query: Any, k: int) -> tuple[list[tuple[float, Any]], IntArray]:
        """The k best (score, address), best first, and their ids, int64."""
        searcher = self._searcher
        hits = searcher.search(query, min(k, searcher.num_docs), count=False).hits if k > 0 and len(self) else []
        return hits, np.array(searcher.fast_field_values("id", [address for _, address in hits]), dtype=np.int64)


def _ascii_words(text: str) -> list[str]:
    """The words of a text in ASCII as BERT's tokeniser cuts them."""
    return _ASCII_WORD.findall(text.translate(_DROPPED).lower())


def _ranked(scores: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Best first, ties to the smaller id."""
    return sorted(scores, key=lambda item: (-item[1], item[0]))


class LexicalWriter:
    """The one writer of a lexical index in a folder of its own; nothing is there before `commit`."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        """Begin with what another lexical index holds, which stays as it is, or with nothing.

        Args:
            folder: to be made anew, whatever is left there by a writer that was killed.
            base: the other's folder; where it is missing or damaged, this one is empty, as `n_entries` tells.
        """
        shutil.rmtree(folder, ignore_errors=True)
        try:
            if base is not None:
                shutil.copytree(base, folder, copy_function=_link, ignore=shutil.ignore_patterns(".tantivy-*"))
            folder.mkdir(parents=True, exist_ok=True)
            index = _open(folder)
        except Exception:  # a damaged derived file: what it held is given again by whoever finds it empty
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with _unwritable(folder):
                index = _open(folder)
        self._analyzer = Analyzer()
        self._folder = folder
        with _unwritable(folder):
            self._writer = index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)
        self._is_committed = False  # of all that was given
        self.n_entries = int(index.searcher().num_docs)

    def add(self, entries: Iterable[LexicalEntry]) -> None:
        """Add entries, none of whose ids is there yet, or was deleted first.

        To delete each by its id in any case would take a kilobyte of memory for each until the next commit.
        """
        from tantivy import Document

        self._is_committed = False
        with _unwritable(self._folder):
            for entry in entries:
                document = Document()
                document.add_integer("id", entry.id)
                document.add_text("text", " ".join(self._analyzer.words(entry.text)))
                document.add_text("context", " ".join(self._analyzer.words(entry.context)))
                self._writer.add_document(document)

    def delete(self, ids: Iterable[int]) -> None:
        """Delete entries by id; unknown ids are ignored."""
        self._is_committed = False
        with _unwritable(self._folder):
            for chunk_id in ids:
                self._writer.delete_documents_by_term("id", chunk_id)

    def commit(self) -> None:
        """Make all that was added and deleted durable."""
        with _unwritable(self._folder):
            self._writer.commit()
        self._is_committed = True
        sync_folder(self._folder)

    def close(self) -> None:
        """End the writer; what was not committed is dropped.

        After a commit there is nothing to roll back; doing it would leave a thread of tantivy's behind, unawaited, that
        still tidies the folder while its files are being looked at.
        """
        if not self._is_committed:
            with contextlib.suppress(ValueError):  # on a full disk, which is told where it is met
                self._writer.rollback()
        with contextlib.suppress(ValueError):
            self._writer.wait_merging_threads()
        if self._is_committed:
            sync_folder(self._folder)  # of segments that were joined since


@contextlib.contextmanager
def _unwritable(folder: Path) -> Iterator[None]:
    """Tell what tantivy raises where it cannot write as what it is."""
    try:
        yield
    except ValueError as error:
        raise OSError(EIO, str(error), str(folder)) from error


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy of it where the file system has no links, and of what tantivy rewrites."""
    if source.endswith(".json"):
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _open(folder: Path) -> Any:
    from tantivy import Index, SchemaBuilder

    schema = SchemaBuilder()
    schema.add_integer_field("id", stored=False, indexed=True, fast=True)
    schema.add_text_field("text", stored=False, tokenizer_name="stemming", index_option="freq")
    schema.add_text_field("context", stored=False, tokenizer_name="stemming", index_option="freq")
    index = Index(schema.build(), path=str(folder), reuse=True)
    index.register_tokenizer("stemming", Analyzer().stemming)
    return index
