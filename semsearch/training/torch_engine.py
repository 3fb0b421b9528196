"""The trainers of sentence-transformers and transformers; the one module here that knows torch.

What decides the result is fixed before a trainer starts: rows come in the order given, all epochs laid out one after
the other, so that a run that is taken up again meets the same rows under the same state of the random generators. Of a
checkpoint, weights are safetensors; the optimiser's and generators' states are read with `weights_only=True`, so
nothing in them can run; the trainer's arguments, which it would pickle, are not saved.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders.devices import find_precision
from semsearch.encoders.models import ModelFiles
from semsearch.errors import MissingExtra, ModelError
from semsearch.training.examples import Example
from semsearch.training.folders import Workspace
from semsearch.training.settings import Outcome, Progress, Settings

__all__ = ["prepare_reranker", "pretrain_rows", "require_trainers", "train_embedder_rows", "train_reranker_rows"]

TEMPERATURE = 0.05  # cosines are divided by it, as sentence-transformers' MultipleNegativesRankingLoss does
FORWARD_PAIRS = 16  # pairs that a listwise loss reads at once
CACHED_TEXTS = 32  # texts that the cached loss holds activations of
# Of the trained weights in those that are saved; the rest are the base's. On nfcorpus dev that gains as much as all of
# them (2.7 points of nDCG@10), and where training went worse it gains more (2.1 instead of 1.8).
TRAINED_SHARE = 0.7
MASK_SHARE = 0.15  # of the tokens; of them 80 % become [MASK], 10 % another token. Source: Devlin et al., 2019
ATTENTION = {"attn_implementation": "eager"}  # on a CPU its gradients take half as long as those of torch's fused one
CHECKPOINTS = 10  # a run leaves one about so often
LOG_POINTS = 100  # lines of a run in its log, about
IGNORED = -100  # label of a token that the loss leaves out, as torch has it


def train_embedder_rows(
    base: ModelFiles,
    rows: Sequence[Example],
    queries: Mapping[str, str],
    texts: Sequence[str],
    relevant: Mapping[str, set[int]],
    *,
    settings: Settings,
    space: Workspace,
    resume: bool,
    progress: Progress | None,
) -> Outcome:
    """Train a bi-encoder and save it, mixed with what it started from, as the candidate.

    Every other passage of a batch is a negative of a query, unless it is known to be relevant to it (`mnr`); `late`
    compares token by token, as `LateInteraction` does, where others compare whole texts. What is saved lies
    TRAINED_SHARE of the way from the base's weights to those learnt, and keeps more of what the base knew.

    Source of the mixing: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.

    Raises:
        ModelError: the base cannot be trained.
    """
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

    model = _load(SentenceTransformer, base.path, settings)
    prompts = base.query_prompt, base.document_prompt
    if any(prompts):  # a family's prompts are known by its name, which the new folder does not have
        model.prompts = {"query": prompts[0], "document": prompts[1]}
    longest, model.max_seq_length = model.max_seq_length, min(settings.max_length, model.max_seq_length)
    columns: dict[str, list[Any]] = {
        "query": [prompts[0] + queries[row.query] for row in rows],
        "positive": [prompts[1] + texts[row.positives[0]] for row in rows],
    }
    for n in range(min(len(row.negatives) for row in rows)):
        columns[f"negative_{n}"] = [prompts[1] + texts[row.negatives[n]] for row in rows]
    loss: Any
    if settings.loss in {"mnr", "late"}:
        columns["label"] = list(range(len(rows)))
        compare = _mean_best_cosines(model, prompts) if settings.loss == "late" else _cosines
        loss = _known_positives_loss(model, rows, relevant, compare, n_negatives=len(columns) - 3)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE, mini_batch_size=CACHED_TEXTS)
    started_from = {name: values.clone() for name, values in model.state_dict().items()}
    parts = _Parts(model, columns, loss, SentenceTransformerTrainer, SentenceTransformerTrainingArguments)
    outcome = _train(parts, settings, space, resume=resume, progress=progress)
    _mix(model, started_from)
    model.max_seq_length = longest
    model.save_pretrained(str(space.candidate), create_model_card=False)
    return outcome


def prepare_reranker(base: Path, folder: Path, settings: Settings) -> None:
    """Save a cross-encoder with one label as it is before training; its head is random unless the base has one.

    Raises:
        ModelError: the base cannot be made a cross-encoder.
    """
    model = _cross_encoder(base, settings)
    model.save_pretrained(str(folder), create_model_card=False)


def train_reranker_rows(
    start: Path,
    rows: Sequence[Example],
    queries: Mapping[str, str],
    texts: Sequence[str],
    *,
    settings: Settings,
    space: Workspace,
    resume: bool,
    progress: Progress | None,
) -> Outcome:
    """Train what `prepare_reranker` saved and save it as the candidate; arguments and errors as above."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, LambdaLoss, ListNetLoss

    model = _cross_encoder(start, settings)
    columns: dict[str, list[Any]] = {"query": [], "passage": [], "label": []}
    for row in rows:
        passages = [texts[position] for position in (*row.positives, *row.negatives)]
        if settings.loss == "bce":
            labels = [1.0] * len(row.positives) + [0.0] * len(row.negatives)
            columns["query"] += [queries[row.query]] * len(passages)
            columns["passage"] += passages
            columns["label"] += labels
        else:
            columns["query"].append(queries[row.query])
            columns["passage"].append(passages)
            columns["label"].append([*map(float, row.grades), *([0.0] * len(row.negatives))])
    loss: Any
    if settings.loss == "bce":
        per_row = len(columns["query"]) / len(rows)
        settings = replace(settings, batch_size=max(2, round(settings.batch_size * per_row)))  # pairs, not queries
        loss = BinaryCrossEntropyLoss(model)
    else:
        kind = LambdaLoss if settings.loss == "lambda" else ListNetLoss
        loss = kind(model, mini_batch_size=FORWARD_PAIRS)
    parts = _Parts(model, columns, loss, CrossEncoderTrainer, CrossEncoderTrainingArguments)
    outcome = _train(parts, settings, space, resume=resume, progress=progress)
    model.save_pretrained(str(space.candidate), create_model_card=False)
    return outcome


def pretrain_rows(
    base: Path,
    texts: Sequence[str],
    held_out: Sequence[str],
    *,
    settings: Settings,
    space: Workspace,
    resume: bool,
    progress: Progress | None,
) -> tuple[Outcome, float, float]:
    """Go on with masked-language-model training and save the encoder in the base's layout as the candidate.

    A base without a head gets one: its transformation is random, its output matrix the word embeddings themselves.

    Returns:
        How far it came, and the loss on the held-out texts before and after, in nats a masked token.
    """
    import transformers
    from sentence_transformers import SentenceTransformer

    encoder = _load(SentenceTransformer, base, settings)
    limit = min(settings.max_length, encoder.max_seq_length)
    tokenizer = encoder.tokenizer
    if tokenizer.mask_token_id is None:
        raise ModelError(f"{base} has no mask token; choose a BERT checkpoint to pre-train")
    transformers.set_seed(settings.seed)
    try:
        model = transformers.AutoModelForMaskedLM.from_pretrained(str(base), local_files_only=True, dtype="float32")
    except Exception as error:  # whatever transformers raises for a checkpoint that it cannot use
        raise ModelError(f"{base} cannot be pre-trained: {error}") from error
    mask = _Masking(tokenizer, settings.seed)
    encoded = tokenizer(list(texts), truncation=True, max_length=limit, return_special_tokens_mask=True)
    rng = np.random.default_rng([settings.seed, 4])
    order = [i for _ in range(settings.epochs) for i in rng.permutation(len(texts)).tolist()]
    columns = {
        "input_ids": [encoded["input_ids"][i] for i in order],
        "special": [encoded["special_tokens_mask"][i] for i in order],
        "number": list(range(len(order))),
    }
    kept = tokenizer(list(held_out), truncation=True, max_length=limit, return_special_tokens_mask=True)
    fixed = [
        {"input_ids": ids, "special": special, "number": -1 - i}
        for i, (ids, special) in enumerate(zip(kept["input_ids"], kept["special_tokens_mask"], strict=True))
    ]
    before = _masked_loss(model, fixed, mask, settings.batch_size)
    parts = _Parts(model, columns, None, transformers.Trainer, transformers.TrainingArguments, mask)
    outcome = _train(parts, settings, space, resume=resume, progress=progress)
    after = _masked_loss(model, fixed, mask, settings.batch_size)
    encoder[0].auto_model.load_state_dict(model.base_model.state_dict(), strict=False)
    encoder.save_pretrained(str(space.candidate), create_model_card=False)
    return outcome, before, after


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a trainer is made of."""

    model: Any
    columns: dict[str, list[Any]]
    loss: Any
    trainer: Any
    arguments: Any
    collator: Any = None


def _train(parts: _Parts, settings: Settings, space: Workspace, *, resume: bool, progress: Progress | None) -> Outcome:
    import torch
    from datasets import Dataset

    n_rows = len(parts.columns["input_ids" if parts.collator else "query"])
    n_steps = -(-n_rows // settings.batch_size)
    on_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    has_bf16 = find_precision("full", ["cpu"]) == "bf16" if on_cpu else bool(torch.cuda.is_bf16_supported())
    is_bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16)
    arguments = parts.arguments(
        output_dir=str(space.checkpoints),
        num_train_epochs=1,  # all epochs are in the rows
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup * n_steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        logging_steps=max(1, n_steps // LOG_POINTS),
        save_strategy="steps",
        save_steps=max(1, n_steps // CHECKPOINTS),
        save_total_limit=2,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=is_bf16,
        use_cpu=on_cpu,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )
    checkpoint = space.checkpoint() if resume else None
    space.forget_after(int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    watch = _watch(space, settings, n_steps, progress)
    more = {"data_collator": parts.collator} if parts.collator else {"loss": parts.loss}
    trainer = _quiet(parts.trainer)(
        model=parts.model,
        args=arguments,
        train_dataset=Dataset.from_dict(parts.columns),
        callbacks=[watch],
        **more,
    )
    _remove_printer(trainer)
    started = time.monotonic()
    with _stop_after_step(watch):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    taken = int(trainer.state.global_step)
    parts.model.to("cpu")
    seconds = time.monotonic() - started
    return Outcome(taken, n_steps, watch.interrupted, watch.out_of_time, seconds, "bf16" if is_bf16 else "f32")


def _watch(space: Workspace, settings: Settings, n_steps: int, progress: Progress | None) -> Any:
    """What a trainer tells: to the log, to the caller; and when it is told to stop."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
        interrupted = False
        out_of_time = False
        started = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                values = {name: float(logs[name]) for name in ("loss", "learning_rate", "grad_norm") if name in logs}
                elapsed_s = round(time.monotonic() - self.started, 1)
                space.note({"step": state.global_step, **values, "elapsed_s": elapsed_s})

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress("training", state.global_step, n_steps)
            limit = settings.time_limit_s
            if limit is not None and time.monotonic() - self.started > limit and state.global_step < n_steps:
                self.out_of_time = True
            if self.interrupted or self.out_of_time:
                control.should_save = control.should_training_stop = True

    return Watch()


def _quiet(kind: Any) -> Any:
    """The trainer with its rows in order, without pickled arguments, and without a model card that looks things up."""
    from torch.utils.data import SequentialSampler

    class Quiet(kind):  # type: ignore[misc,unused-ignore]
        def add_model_card_callback(self, *_: Any) -> None:
            """Cards are written by semsearch."""

        def get_batch_sampler(self, dataset: Any, **options: Any) -> Any:
            from sentence_transformers.base.sampler import DefaultBatchSampler

            return DefaultBatchSampler(range(len(dataset)), **options)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            no_card = {"create_model_card": False} if hasattr(self.model, "preprocess") else {}
            self.model.save_pretrained(output_dir or self.args.output_dir, **no_card)

    return Quiet


def _remove_printer(trainer: Any) -> None:
    """Take away the callback that prints every log: stdout is for results."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


@contextlib.contextmanager
def _stop_after_step(watch: Any) -> Iterator[None]:
    """Let the first Ctrl-C end training after the step with a checkpoint, and the second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: Any) -> None:
        watch.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cosines(queries: Any, passages: Sequence[Any]) -> Any:
    """(n_queries, n_passages) cosines of what a model made of texts; passages come in several parts."""
    import torch

    rows, *columns = [torch.nn.functional.normalize(f["sentence_embedding"].float()) for f in (queries, *passages)]
    return rows @ torch.cat(columns).T


def _mean_best_cosines(model: Any, prompts: tuple[str, str]) -> Callable[[Any, Sequence[Any]], Any]:
    """What late interaction makes of texts, as `_cosines` does: the mean over a query's tokens of the best cosine.

    The prompts before queries and passages, and special tokens around them, are left out.
    """
    import torch

    around = []
    for prompt in prompts:
        encoded = model.tokenizer(prompt, return_special_tokens_mask=True)
        n_after = encoded["special_tokens_mask"][-1]
        around.append((len(encoded["input_ids"]) - n_after, n_after))

    def tokens(part: Any, n_before: int, n_after: int) -> tuple[Any, Any]:
        """Unit rows (n, length, hidden), and which of them are a text's own tokens."""
        mask = part["attention_mask"].bool()
        places = torch.arange(mask.shape[1], device=mask.device)
        own = mask & (places >= n_before) & (places < mask.sum(dim=1, keepdim=True) - n_after)
        return torch.nn.functional.normalize(part["token_embeddings"].float(), dim=-1), own

    def compare(queries: Any, passages: Sequence[Any]) -> Any:
        found = [tokens(part, *around[1]) for part in passages]
        rows = []
        for asked, own in zip(*tokens(queries, *around[0]), strict=True):  # all at once would not fit the caches
            best = [
                (asked[own] @ vectors.flatten(0, 1).T).view(-1, *is_own.shape).masked_fill(~is_own, -1.0).amax(dim=2)
                for vectors, is_own in found
            ]
            rows.append(torch.cat(best, dim=1).sum(dim=0) / max(1, int(own.sum())))
        return torch.stack(rows)

    return compare


def _known_positives_loss(
    model: Any,
    rows: Sequence[Example],
    relevant: Mapping[str, set[int]],
    compare: Callable[[Any, Sequence[Any]], Any],
    *,
    n_negatives: int,
) -> Any:
    """Cross-entropy of each passage of a batch that is relevant to a query against all that are not; their mean.

    Where many passages answer a query, or one answers many, others' positives would teach it that they do not.

    Source: Khosla et al., "Supervised Contrastive Learning", 2020, with cross-entropies over one positive each, as in
        van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018.
    """
    import torch

    passages = [[row.positives[0], *row.negatives[:n_negatives]] for row in rows]

    class KnownPositivesLoss(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: Any, labels: Any) -> Any:
            asked, *offers = [self.model(part) for part in features]
            scores = compare(asked, offers) / TEMPERATURE
            batch = [int(i) for i in labels]
            offered = [passages[i][column] for column in range(n_negatives + 1) for i in batch]
            is_relevant = [
                [k == place or passage in relevant[rows[i].query] for k, passage in enumerate(offered)]
                for place, i in enumerate(batch)
            ]
            positive = torch.tensor(is_relevant, device=scores.device)
            others = scores.masked_fill(positive, float("-inf")).logsumexp(dim=1, keepdim=True)
            losses = torch.nn.functional.softplus(others - scores).where(positive, scores.new_zeros(()))
            return (losses.sum(dim=1) / positive.sum(dim=1)).mean()

    return KnownPositivesLoss()


def _mix(model: Any, base: Mapping[str, Any]) -> None:
    """Move a model's weights back towards its base's."""
    import torch

    with torch.no_grad():
        for name, values in model.state_dict().items():
            if values.is_floating_point():
                values.copy_(torch.lerp(base[name], values, TRAINED_SHARE))


class _Masking:
    """Rows of token ids to a batch with some tokens hidden: which ones follows from the seed and the row's number."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self._tokenizer = tokenizer
        self._seed = seed

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), width), self._tokenizer.pad_token_id, dtype=np.int64)
        labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
        attention = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            ids[i, :n], attention[i, :n] = row["input_ids"], 1
            self._hide(ids[i, :n], labels[i, :n], np.array(row["special"], dtype=bool), int(row["number"]))
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(attention),
            "labels": torch.from_numpy(labels),
        }

    def _hide(self, ids: Any, labels: Any, special: Any, number: int) -> None:
        rng = np.random.default_rng([self._seed, number >= 0, abs(number)])
        places = np.flatnonzero(~special)
        if not len(places):
            return
        chosen = rng.choice(places, size=max(1, round(MASK_SHARE * len(places))), replace=False)
        labels[chosen] = ids[chosen]
        kind = rng.random(len(chosen))
        ids[chosen[kind < 0.8]] = self._tokenizer.mask_token_id
        others = chosen[(kind >= 0.8) & (kind < 0.9)]
        ids[others] = rng.integers(len(self._tokenizer), size=len(others))


def _masked_loss(model: Any, rows: Sequence[Mapping[str, Any]], mask: _Masking, batch_size: int) -> float:
    """Mean loss a masked token."""
    import torch

    model.eval()
    total = n_tokens = 0.0
    with torch.inference_mode():
        for first in range(0, len(rows), batch_size):
            batch = mask(rows[first : first + batch_size])
            n = int((batch["labels"] != IGNORED).sum())
            total += float(model(**batch).loss) * n
            n_tokens += n
    return total / max(1.0, n_tokens)


def _cross_encoder(folder: Path, settings: Settings) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    function = torch.nn.Sigmoid() if settings.loss == "bce" else torch.nn.Identity()
    more = {"num_labels": 1, "max_length": settings.max_length, "activation_fn": function}
    return _load(CrossEncoder, folder, settings, **more)


def _load(kind: Any, folder: Path, settings: Settings, **more: Any) -> Any:
    import transformers

    transformers.set_seed(settings.seed)  # a new head is drawn from it
    try:
        model = kind(str(folder), device="cpu", local_files_only=True, model_kwargs=ATTENTION, **more)
    except Exception as error:  # whatever torch, transformers and safetensors raise for files they cannot use
        raise ModelError(f"{folder} cannot be trained: {error}") from error
    _leave_dropout_out(model)
    return model


def _leave_dropout_out(model: Any) -> None:
    """Few epochs hardly overfit, and without it a step on a CPU takes half the time."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def require_trainers() -> None:
    """Check that the extra is there, and keep its progress bars off the terminal; to be called before any other.

    Raises:
        MissingExtra: a library of it is not installed.
    """
    from importlib.util import find_spec

    for name in ("datasets", "accelerate", "matplotlib"):
        if find_spec(name) is None:
            raise MissingExtra(name, "train")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
