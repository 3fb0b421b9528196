"""The command that fits the ranking to an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from semsearch.cli.door import FOUND, NONE_FOUND
from semsearch.cli.options import device_option, examples, index_option, json_option
from semsearch.cli.output import clean, echo_json, short_path

if TYPE_CHECKING:
    from semsearch.tuning import TuneReport

__all__ = ["tune"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "semsearch tune --index work --queries queries.jsonl --qrels qrels.tsv",
        "semsearch tune --index work --dry-run     from the documents alone, to see what it would change",
        "semsearch tune --index work --reset",
    ),
    context_settings={"show_default": True},
)
@index_option
@click.option("--queries", type=_FILE, metavar="FILE", help='Lines of {"_id": ..., "text": ...}; with --qrels.')
@click.option(
    "--qrels",
    type=_FILE,
    metavar="FILE",
    help="Lines of query-id, document and score, as for `semsearch evaluate --index`.",
)
@click.option(
    "--n-queries", default=200, type=click.IntRange(1), metavar="N", help="Ask so many at most, drawn at random."
)
@click.option("--seed", default=0, type=click.IntRange(0), metavar="N", help="Of everything drawn at random.")
@click.option("--dry-run", is_flag=True, help="Tell what would be chosen and change nothing.")
@click.option("--reset", is_flag=True, help="Rank by the defaults again.")
@device_option
@json_option
def tune(
    index: str,
    queries: Path | None,
    qrels: Path | None,
    n_queries: int,
    seed: int,
    dry_run: bool,
    reset: bool,
    device: str,
    as_json: bool,
) -> None:
    """Fit the ranking to your documents.

    Chooses how much meaning and words count, and whether feedback and reranking help, by how well the queries of
    --queries are answered. Without them, titles, headings and sentences of the documents are asked, each taken out of
    the passage that it asks for. People ask otherwise, so judgments of your own tell more.

    The index keeps the choice, and its searches follow it, if it is surely better than the default on queries that had
    no part in choosing (nDCG@10, cross-validated, 95 % interval above 0; without judgments, above 0.03). Else it ranks
    by the default.

    Exit status: 0 when a better ranking was found (or, with --reset, one taken back), 1 when not, 2 on errors.
    """
    if (queries is None) != (qrels is None):
        raise click.UsageError("--queries and --qrels belong together: queries.jsonl, and a TSV of judgments")
    context = click.get_current_context()
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if reset and given - {"reset", "index", "as_json"}:
        raise click.UsageError("--reset goes with --index and --json only")
    from semsearch import tuning
    from semsearch.cli import progress

    if reset:
        was_tuned = tuning.reset_plan(index)
        if as_json:
            echo_json({"reset": was_tuned})
        else:
            click.echo("It ranks by the default again." if was_tuned else "It ranked by the default already.")
        click.get_current_context().exit(FOUND if was_tuned else NONE_FOUND)
    with progress.counting("queries") as show:
        report = tuning.tune(
            index,
            queries=queries,
            qrels=qrels,
            n_queries=n_queries,
            seed=seed,
            device=device,
            dry_run=dry_run,
            progress=show,
        )
    if as_json:
        echo_json(report.as_dict())
    else:
        _print(report, dry_run=dry_run)
    click.get_current_context().exit(FOUND if report.is_better else NONE_FOUND)


def _print(report: TuneReport, *, dry_run: bool) -> None:
    from semsearch.cli.render import plan_in_words
    from semsearch.ranking.plan import DEFAULT_PLAN

    low, high = report.interval
    click.echo(f"{report.n_plans} rankings on {clean(report.tuned_on)}")
    click.echo(f"  default  {plan_in_words(DEFAULT_PLAN.as_dict())}")
    click.echo(f"  best     {plan_in_words(report.best.as_dict())}")
    click.echo(
        f"  nDCG@10  {report.default_ndcg:.3f} by default, {report.gain:+.3f} by choosing "
        f"({low:+.3f} to {high:+.3f}, cross-validated)"
    )
    where = clean(short_path(report.index))
    if not report.is_better:
        click.echo("The default is kept: nothing is surely better.")
    elif dry_run:
        click.echo(f"{where} was not changed. Without --dry-run it would rank by the best from now on.")
    else:
        click.echo(f"{where} ranks by the best from now on; semsearch tune --reset takes that back.")
