"""The model card: what a trained model is, what it was made of, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from semsearch.training.settings import Settings, TrainReport

__all__ = ["model_card"]

_TAGS = {
    "embedder": ("sentence-similarity", ["sentence-transformers", "semsearch"]),
    "reranker": ("text-ranking", ["sentence-transformers", "cross-encoder", "semsearch"]),
    "late": ("text-ranking", ["sentence-transformers", "late-interaction", "semsearch"]),
    "pretrain": ("feature-extraction", ["sentence-transformers", "semsearch"]),
}
_USE = {
    "embedder": "semsearch index FOLDER --model THIS_FOLDER --rebuild",
    "reranker": 'semsearch query "..." --reranker THIS_FOLDER',
    "pretrain": "semsearch train embedder --base THIS_FOLDER ...",
}


def model_card(report: TrainReport, settings: Settings, *, licence: str, versions: Mapping[str, str]) -> str:
    """README.md of a model folder, in Markdown."""
    is_late = settings.loss == "late"
    pipeline, tags = _TAGS["late" if is_late else report.kind]
    what = "passages" if report.kind == "pretrain" else "queries"
    lines = [
        "---",
        "library_name: sentence-transformers",
        f"pipeline_tag: {pipeline}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
        f"# {'Pre-trained encoder' if report.kind == 'pretrain' else report.kind.capitalize()}"
        + (" for late interaction: its vectors of tokens are compared one by one" if is_late else ""),
        "",
        f"Trained with semsearch from `{report.base}`. "
        + ("It won on held-out data." if report.installed else "**Rejected: it did not win on held-out data.**"),
        "",
        f"    {_USE[report.kind]}",
        "",
        "## Data",
        "",
        f"- {report.data}",
        f"- {report.n_queries} {what} to train on, {report.n_held_out} held out and never trained on",
        f"- licence of the data: {licence or 'not stated'}",
        "",
        "## Results",
        "",
    ]
    if report.kind == "pretrain":
        lines += ["Loss of the held-out passages, in nats a masked token:", "", "| before | after |", "|---|---|"]
        lines += [f"| {-c.before:.3f} | {-c.after:.3f} |" for c in report.comparisons.values()]
    else:
        lines += ["nDCG@10 of the same queries before and after, p of a paired t-test:", ""]
        lines += ["| | queries | before | after | p |", "|---|---|---|---|---|"]
        lines += [
            f"| {name}{' (decides)' if name in report.decisive else ''} | {c.n_queries} "
            f"| {c.before:.4f} | {c.after:.4f} | {c.p:.2g} |"
            for name, c in report.comparisons.items()
        ]
    if report.first_stage_weight is not None:
        lines += ["", f"Weight of the first stage in the blend (`semsearch.json`): {report.first_stage_weight}"]
    lines += ["", "## Settings", "", "| | |", "|---|---|"]
    stated = {name: value for name, value in asdict(settings).items() if not (is_late and name == "positives")}
    lines += [f"| {name.replace('_', ' ')} | {_value(value)} |" for name, value in stated.items()]
    lines += [
        f"| steps | {report.steps} of {report.steps_total} |",
        f"| time of the steps | {report.training_s:.0f} s |",
    ]
    lines += [f"| {name} | {version} |" for name, version in versions.items()]
    lines += ["", "`training-log.jsonl` holds loss and learning rate by step, `training.png` shows them.", ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
