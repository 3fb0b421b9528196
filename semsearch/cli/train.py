"""The commands that train. Libraries are imported inside them, so that `--help` stays instant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from semsearch.cli.door import FOUND, NONE_FOUND
from semsearch.cli.options import DEFAULT_INDEX, Number, device_option, examples, index_option, json_option
from semsearch.cli.output import clean, echo_json, short_path

if TYPE_CHECKING:
    from semsearch.training.data import TrainingData
    from semsearch.training.runs import Training
    from semsearch.training.settings import TrainReport

__all__ = ["train"]

FEW_HELD_OUT = 50  # queries, by which a gain of two points of nDCG@10 would hardly ever be told from chance
PSEUDO_QUERIES = 2_000  # made of an index when nothing else says what is asked
RERANKING = {  # what a reranker is trained with where it is not told
    "late": {"epochs": 4, "batch_size": 64, "learning_rate": 5e-5, "max_length": 128, "negatives": 1},
    "cross-encoder": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-4, "max_length": 160, "negatives": 6},
}

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(
    epilog=examples(
        "semsearch train embedder --index work --output models/ours",
        "semsearch train reranker --pairs questions.jsonl --output models/reranker --json",
        "semsearch train pretrain --index work --output models/encoder",
    ),
)
def train() -> None:
    """Train models on your own documents; each SUBCOMMAND -h tells more.

    All of them take --index, --seed, --resume and --json. Some queries are never trained on: a model that does not rank
    them better than the one it was made from is not installed.
    """


def _data_options(command: F) -> F:
    """Where examples come from."""
    for option in (
        index_option,
        click.option("--qrels", type=_FILE, metavar="TSV", help="Judgments: query-id, document-id, grade."),
        click.option("--queries", type=_FILE, metavar="JSONL", help="Queries (_id, text) on the index; with --qrels."),
        click.option("--test-split", metavar="NAME", help="With --beir: report on these queries too; decides nothing."),
        click.option("--split", default="train", metavar="NAME", help="With --beir: which judgments to learn from."),
        click.option("--beir", type=_FOLDER, metavar="FOLDER", help="A test collection in BEIR's layout."),
        click.option("--pairs", type=_FILE, metavar="JSONL", help="Lines with query, positive, perhaps negatives."),
        click.option(
            "--limit",
            type=click.IntRange(2),
            metavar="N",
            show_default=f"all; {PSEUDO_QUERIES:,} made of an index",
            help="Use so many queries (or pairs), drawn at random.",
        ),
    ):
        command = option(command)
    return command


def _training_options(**defaults: Any) -> Callable[[F], F]:
    """How to train, with the defaults of one kind of model; of two, where the loss decides which one it is."""
    texts = {"batch_size": "Queries a step.", "epochs": "Times each query is met.", **defaults.pop("texts", {})}
    shown = {name: value if isinstance(value, str) else True for name, value in defaults.items()}
    defaults = {name: None if isinstance(value, str) else value for name, value in defaults.items()}

    def add(command: F) -> F:
        for option in (
            json_option,
            device_option,
            click.option("--resume", is_flag=True, help="Go on with a run that was cut off."),
            click.option("--licence", default="", metavar="TEXT", help="Licence of the data, for the model card."),
            click.option(
                "--time-limit-minutes",
                type=Number(0, min_open=True),
                metavar="M",
                help="End training after so long; what was learnt counts.",
            ),
            click.option(
                "--held-out",
                default=0.1,
                type=Number(0, 1, min_open=True, max_open=True),
                metavar="SHARE",
                help="Share to measure with and not to train on.",
            ),
            click.option(
                "--seed", default=1, type=click.IntRange(0), metavar="N", help="Of everything drawn at random."
            ),
            click.option(
                "--precision",
                default="auto",
                type=click.Choice(("auto", "f32", "bf16")),
                help="bf16 is twice as fast where the processor has it.",
            ),
            click.option(
                "--max-length",
                default=defaults["max_length"],
                show_default=shown["max_length"],
                type=click.IntRange(8),
                metavar="TOKENS",
                help="Tokens read in training; the rest is cut off.",
            ),
            click.option("--weight-decay", default=0.01, type=Number(0), metavar="X", help="Of AdamW."),
            click.option("--warmup", default=0.1, type=Number(0, 1), metavar="SHARE", help="Steps of rising rate."),
            click.option(
                "--learning-rate",
                default=defaults["learning_rate"],
                show_default=shown["learning_rate"],
                type=Number(0, 1, min_open=True),
                metavar="X",
                help="At its highest.",
            ),
            click.option(
                "--batch-size",
                default=defaults["batch_size"],
                show_default=shown["batch_size"],
                type=click.IntRange(2),
                metavar="N",
                help=texts["batch_size"],
            ),
            click.option(
                "--epochs",
                default=defaults["epochs"],
                show_default=shown["epochs"],
                type=click.IntRange(1),
                metavar="N",
                help=texts["epochs"],
            ),
            click.option(
                "--base",
                metavar="NAME",
                show_default="all-MiniLM-L6-v2",
                help="Model to start from: a hub name or a folder.",
            ),
            click.option(
                "--output",
                "-o",
                required=True,
                type=click.Path(path_type=Path),
                metavar="FOLDER",
                help="Where the model goes if it wins; else to FOLDER.rejected.",
            ),
        ):
            command = option(command)
        return command

    return add


def _negatives_option(default: int | str) -> Callable[[F], F]:
    shown, value = (default, None) if isinstance(default, str) else (True, default)
    return click.option(
        "--negatives",
        default=value,
        show_default=shown,
        type=click.IntRange(0),
        metavar="N",
        help="Hard negatives a query.",
    )


def _shown(defaults: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Each setting of several kinds, in words."""
    return {
        name: ", ".join(f"{values[name]} for {kind}" for kind, values in defaults.items())
        for name in next(iter(defaults.values()))
    }


_ANSWERS = {"context_settings": {"show_default": True}}


@train.command(
    epilog=examples(
        "semsearch train embedder --index work -o models/ours            from the index alone",
        "semsearch train embedder --pairs questions.jsonl -o models/ours",
        "semsearch train embedder --beir nfcorpus --test-split test -o models/ours",
    ),
    **_ANSWERS,
)
@_training_options(epochs=4, batch_size=64, learning_rate=5e-5, max_length=128)
@_negatives_option(1)
@click.option(
    "--loss",
    default="mnr",
    type=click.Choice(("mnr", "cached-mnr")),
    help="mnr leaves known positives out of the negatives; cached-mnr needs less memory.",
)
@_data_options
def embedder(**options: Any) -> None:
    """Train the model that finds passages.

    Examples come from --pairs, from --beir, from --index with --queries and --qrels, or from the index alone, whose
    titles, headings and sentences are then taken for queries.

    Exit status: 0 when the trained model won and was installed, 1 when it was rejected, 2 on errors.
    """
    from semsearch.training.runs import train_embedder

    data, test = _read_data(options)
    _run(options, lambda training: train_embedder(data, training, test=test))


@train.command(
    epilog=examples(
        "semsearch train reranker --index work -o models/reranker        from the index alone",
        "semsearch train reranker --pairs questions.jsonl -o models/reranker --base models/ours",
        "semsearch train reranker --beir nfcorpus --test-split test -o models/reranker",
    ),
    **_ANSWERS,
)
@_training_options(**{name: shown for name, shown in _shown(RERANKING).items() if name != "negatives"})
@_negatives_option(_shown(RERANKING)["negatives"])
@click.option(
    "--positives",
    default=2,
    type=click.IntRange(1),
    metavar="N",
    help="Relevant passages a query, at most; of late interaction one.",
)
@click.option(
    "--loss",
    default="late",
    type=click.Choice(("late", "listnet", "lambda", "bce")),
    help="late trains the vectors of tokens; others a cross-encoder, whose passages of a query listnet and lambda "
    "compare, while bce judges each on its own.",
)
@click.option(
    "--embedder", metavar="NAME", show_default="all-MiniLM-L6-v2", help="Model of the first stage, as in your index."
)
@_data_options
def reranker(**options: Any) -> None:
    """Train the model that looks closer at what was found first.

    With --loss late it compares the tokens of query and passage, which some thousand examples teach it. Others train a
    cross-encoder, which reads both together, and needs far more, or a --base that is one already.

    Examples come from the same sources as for an embedder. Late interaction has to beat what it started from and,
    beside the first stage, be no worse than it; a cross-encoder has to beat both. How much the first stage still counts
    beside the trained model is chosen on held-out queries and kept.

    Exit status: 0 when the trained model won and was installed, 1 when it was rejected, 2 on errors.
    """
    from semsearch.encoders import DEFAULT_MODEL
    from semsearch.training.runs import train_reranker

    chosen = RERANKING["late" if options["loss"] == "late" else "cross-encoder"]
    options |= {name: value for name, value in chosen.items() if options[name] is None}
    data, test = _read_data(options)
    first = options["embedder"] or DEFAULT_MODEL
    _run(options, lambda training: train_reranker(data, training, embedder=first, test=test))


@train.command(
    epilog=examples(
        "semsearch train pretrain --index work -o models/encoder",
        "semsearch train embedder --index work --base models/encoder -o models/ours",
    ),
    **_ANSWERS,
)
@_training_options(
    epochs=1,
    batch_size=32,
    learning_rate=1e-4,
    max_length=128,
    texts={"batch_size": "Passages a step.", "epochs": "Times each passage is met."},
)
@_data_options
def pretrain(**options: Any) -> None:
    """Let a model read your documents before it is trained on queries.

    It goes on with masked-language-model training on the passages. What comes of it is a model to start from, not one
    to search with.

    Exit status: 0 when the loss on held-out passages fell, 1 when it did not, 2 on errors.
    """
    from semsearch.training.data import read_index
    from semsearch.training.runs import pretrain as pretrain_model

    named = options["beir"] or options["pairs"] or options["queries"]
    data = _read_data(options)[0] if named else read_index(options["index"])
    _run({**options, "loss": "mlm", "negatives": 0}, lambda training: pretrain_model(data, training))


def _read_data(options: dict[str, Any]) -> tuple[TrainingData, TrainingData | None]:
    """What to learn from, and what else to report on."""
    from semsearch.training.data import read_beir, read_index, read_judged_index, read_pairs
    from semsearch.training.pseudo_queries import make_pseudo_queries

    if (options["queries"] is None) != (options["qrels"] is None):
        raise click.UsageError("--queries and --qrels belong together: queries.jsonl, and a TSV of judgments")
    named = [f"--{name}" for name in ("pairs", "beir", "queries") if options[name] is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other; give one source of examples")
    if options["test_split"] and not options["beir"]:
        raise click.UsageError("--test-split names a split of a --beir folder")
    limit, seed = options["limit"] or 0, options["seed"]
    if options["pairs"]:
        return read_pairs(options["pairs"], limit=limit, seed=seed), None
    if options["beir"]:
        other = options["test_split"]
        test = read_beir(options["beir"], other) if other else None
        return read_beir(options["beir"], options["split"], limit=limit, seed=seed), test
    if options["queries"]:
        return read_judged_index(options["index"], options["queries"], options["qrels"], limit=limit, seed=seed), None
    return make_pseudo_queries(read_index(options["index"]), n_queries=limit or PSEUDO_QUERIES, seed=seed), None


def _run(options: dict[str, Any], work: Callable[[Training], TrainReport]) -> None:
    """Train, print what came of it, and exit."""
    from semsearch.cli import progress
    from semsearch.encoders import DEFAULT_MODEL
    from semsearch.training.runs import Training
    from semsearch.training.settings import Settings

    minutes = options["time_limit_minutes"]
    settings = Settings(
        epochs=options["epochs"],
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        warmup=options["warmup"],
        weight_decay=options["weight_decay"],
        max_length=options["max_length"],
        negatives=options["negatives"],
        positives=options.get("positives", 1),
        loss=options["loss"],
        seed=options["seed"],
        precision=options["precision"],
        device=options["device"],
        time_limit_s=minutes * 60 if minutes else None,
    )
    with progress.stages() as show:
        report = work(
            Training(
                output=options["output"],
                settings=settings,
                base=options["base"] or DEFAULT_MODEL,
                held_out=options["held_out"],
                licence=options["licence"],
                resume=options["resume"],
                progress=show,
            )
        )
    if options["as_json"]:
        echo_json(report.as_dict())
    else:
        _print(report, options["index"])
    if not report.installed:
        few = report.kind != "pretrain" and report.n_held_out < FEW_HELD_OUT
        click.echo(
            "semsearch: not installed: the trained model did not win on held-out data. It is left in "
            f"{clean(short_path(report.model))}, with the figures in its README.md. More examples or other settings "
            "may help"
            + (f"; {report.n_held_out} held-out queries show large differences only (--held-out)" if few else ""),
            err=True,
        )
    click.get_current_context().exit(FOUND if report.installed else NONE_FOUND)


def _print(report: TrainReport, index: str) -> None:
    click.echo(f"{clean(report.data)}: {report.n_queries:,} to train on, {report.n_held_out:,} held out")
    late = ", ended by the time limit" if report.out_of_time else ""
    click.echo(f"{report.steps} of {report.steps_total} steps in {report.training_s:.0f} s{late}")
    for name, c in report.comparisons.items():
        sign = "*" if name in report.decisive else " "
        measure = "" if report.kind == "pretrain" else f"nDCG@10, p = {c.p:.2g}, {c.n_queries} queries"
        click.echo(f"{sign} {clean(name)}: {c.before:.4f} -> {c.after:.4f} ({c.difference:+.4f}) {measure}".rstrip())
    if report.first_stage_weight is not None:
        click.echo(f"  weight of the first stage: {report.first_stage_weight}")
    if report.installed:
        where = clean(short_path(report.model))
        named = "" if index == DEFAULT_INDEX else f" --index {clean(index)}"
        use = {
            "embedder": f"semsearch index --rebuild --model {where}{named}",
            "reranker": f'semsearch query "your question" --reranker {where}{named}',
            "pretrain": f"semsearch train embedder --base {where}{named} --output FOLDER",
        }
        click.echo(f"Installed in {where}. Use it: {use[report.kind]}")
