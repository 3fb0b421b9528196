"""The command that measures a search: what is asked for, checked before anything takes long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semsearch.cli import options
from semsearch.cli.options import device_option, examples, json_option
from semsearch.cli.output import clean_line, echo_json

if TYPE_CHECKING:
    from semsearch.evaluation import Qrels

__all__ = ["evaluate"]

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MAX_NAMED = 3  # judged documents named that an index lacks


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is evaluated: an index and what is asked of it; `names` tells whether paths may stand for ids."""

    name: str
    split: str | None
    index: str | Path
    queries: Mapping[str, str]
    qrels: Qrels
    by_path: bool


@click.command(
    epilog=examples(
        "semsearch evaluate ./nfcorpus --split dev",
        "semsearch evaluate ./nfcorpus --mode dense --run-file dense.run",
        "semsearch evaluate ./nfcorpus --compare dense.run",
        "semsearch evaluate --index work --queries queries.jsonl --qrels qrels.tsv",
    ),
    context_settings={"show_default": True},
)
@click.argument("folder", metavar="[BEIR_FOLDER]", required=False, type=click.Path(path_type=Path))
@click.option("--split", metavar="NAME", show_default="test", help="Which judgments of BEIR_FOLDER: qrels/NAME.tsv.")
@click.option("--index", "-i", metavar="NAME", help="Evaluate this index instead, with --queries and --qrels.")
@click.option("--queries", type=EXISTING_FILE, metavar="FILE", help='For --index: lines of {"_id": ..., "text": ...}.')
@click.option(
    "--qrels",
    type=EXISTING_FILE,
    metavar="FILE",
    help="For --index: lines of query-id, document and score, with tabs between. A document is the id it was indexed "
    "with, or the end of its path (guide/start.md) where only one file ends so.",
)
@click.option(
    "--mode",
    default="hybrid",
    type=click.Choice(options.MODES),
    help="dense: by meaning. lexical: by words (BM25). hybrid: both together.",
)
@options.rerank_options
@click.option(
    "--model",
    metavar="NAME",
    show_default="all-MiniLM-L6-v2",
    help="Model for BEIR_FOLDER: a hub name, NAME@REVISION, or a local folder.",
)
@device_option
@click.option(
    "--precision",
    type=click.Choice(options.PRECISIONS),
    default="auto",
    show_default="int8 where it costs next to nothing, else full",
    help="How the passages of BEIR_FOLDER are encoded, as for `semsearch index`.",
)
@click.option(
    "--truncate",
    is_flag=True,
    help="Read only the first tokens of long documents of BEIR_FOLDER, as most published figures do.",
)
@click.option(
    "--run-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what was found: a TREC run.",
)
@click.option(
    "--compare",
    "baseline_path",
    type=EXISTING_FILE,
    metavar="RUN_FILE",
    help="Compare with this run, measure by measure, with tests of significance.",
)
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    folder: Path | None,
    split: str | None,
    index: str | None,
    queries: Path | None,
    qrels: Path | None,
    mode: str,
    reranker: str | None,
    rerank: bool | None,
    rerank_depth: int,
    budget_ms: float,
    model: str | None,
    device: str,
    precision: str,
    truncate: bool,
    run_file: Path | None,
    baseline_path: Path | None,
    as_json: bool,
) -> None:
    """Measure how well queries with known answers are answered.

    BEIR_FOLDER holds corpus.jsonl (or corpus.jsonl.gz), queries.jsonl and qrels/SPLIT.tsv. Its documents are encoded
    the first time, and kept in the cache folder. Or evaluate an index you have, with queries and judgments of your own.

    A document is ranked by its best passage, to a depth of 100: MAP is the mean average precision of these. A reranker
    reads the first of them. Queries without a relevant document are left out.
    """
    _check_usage(ctx, folder, index, queries, qrels)
    if run_file is not None and not run_file.absolute().parent.is_dir():
        raise click.UsageError(f"--run-file {run_file}: there is no folder {run_file.parent}")
    from semsearch import evaluation
    from semsearch.cli import progress, render_evaluation
    from semsearch.searching import Searcher
    from semsearch.store.info import inspect_index

    evaluation.check_measures()
    baseline = evaluation.read_run(baseline_path) if baseline_path else None
    if folder is not None:
        subject = _collection(folder, split or "test", model, device, precision, truncate=truncate)
    else:
        assert index is not None and queries is not None and qrels is not None
        asked, judged = evaluation.read_queries(queries), evaluation.read_qrels(qrels)
        subject = _Subject(index, None, index, asked, judged, by_path=True)
    names = _judged_names(subject)
    facts = inspect_index(subject.index)
    with Searcher.open(subject.index, device=device, reranker=None if rerank is False else reranker) as searcher:

        def search(query: str, k: int) -> list[tuple[str, float]]:
            return evaluation.document_ranking(
                searcher, query, k, mode=mode, rerank=rerank, rerank_depth=rerank_depth, budget_ms=budget_ms
            )

        first = evaluation.judged_queries(subject.qrels)[0]
        search(subject.queries.get(first, ""), 1)  # loads what searching needs, so that only searching is timed
        with progress.counting("queries") as show:
            done = evaluation.evaluate(
                evaluation.with_names(search, names), subject.queries, subject.qrels, progress=show
            )
        reranked_by = searcher.reranker_name(mode, rerank)
    if run_file is not None:
        evaluation.write_run(run_file, done.run, tag=f"semsearch-{mode}{'-rerank' if reranked_by else ''}")
    comparison = None if baseline is None else evaluation.compare(done.run, baseline, subject.qrels)
    answer: dict[str, Any] = {
        "collection": subject.name,
        "split": subject.split,
        "mode": mode,
        "rerank": reranked_by is not None,
        "queries": len(done.run),
        "measures": dict(done.measures),
        "elapsed_s": round(done.elapsed_s, 3),
        "model": facts.model,
    }
    if as_json:
        echo_json(answer if comparison is None else {**answer, "comparison": comparison.as_dict()})
        return
    render_evaluation.measures(answer, precision=facts.precision, reranker=reranked_by)
    if comparison is not None:
        render_evaluation.comparison(comparison, baseline_path, subject.queries)


def _check_usage(
    ctx: click.Context, folder: Path | None, index: str | None, queries: Path | None, qrels: Path | None
) -> None:
    """Either a folder, or an index with queries and judgments; and no option that would be ignored."""
    if (folder is None) == (index is None):
        raise click.UsageError("give either BEIR_FOLDER, or --index NAME with --queries FILE and --qrels FILE")
    ignored = ("queries", "qrels") if index is None else ("split", "model", "precision", "truncate")
    for name in ignored:
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} goes with {'--index' if index is None else 'BEIR_FOLDER'} only")
    if index is not None and (queries is None or qrels is None):
        raise click.UsageError("--index needs both --queries FILE and --qrels FILE")


def _collection(
    folder: Path, split: str, model: str | None, device: str, precision: str, *, truncate: bool
) -> _Subject:
    """A collection, its index brought up to date."""
    from semsearch.cli import progress
    from semsearch.encoders import DEFAULT_MODEL, load_embedder
    from semsearch.evaluation import index_collection, read_collection

    collection = read_collection(folder, split)
    embedder = load_embedder(model or DEFAULT_MODEL, device=device, precision=precision)
    with progress.indexing("documents") as show:
        report = index_collection(collection, embedder, truncate=truncate, progress=show)
    return _Subject(collection.name, split, report.index, collection.queries, collection.qrels, by_path=False)


def _judged_names(subject: _Subject) -> Any:
    """How the index's documents are called in the judgments; refuses where no relevant one is there, tells of some."""
    from semsearch.errors import InvalidInput
    from semsearch.evaluation import judged_names
    from semsearch.store.info import list_documents

    documents = list_documents(subject.index)
    judged = {name for grades in subject.qrels.values() for name in grades}
    names = judged_names(judged, documents if subject.by_path else [(key, "") for key, _ in documents])
    relevant = {name for grades in subject.qrels.values() for name, grade in grades.items() if grade > 0}
    missing = sorted(relevant.intersection(names.missing))
    if len(missing) == len(relevant):
        known = f"; its documents are called like {documents[0][0]}" if documents else ""
        raise InvalidInput(f"no relevant document, such as {missing[0]}, is in the index {subject.name}{known}")
    if missing:
        click.echo(
            f"semsearch: {len(missing):,} of {len(relevant):,} relevant documents are not in the index and cannot be "
            f"found: {clean_line(', '.join(missing[:MAX_NAMED]))}{' ...' if len(missing) > MAX_NAMED else ''}",
            err=True,
        )
    return names
