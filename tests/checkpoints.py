"""Tiny BERT checkpoints with random weights, saved as a hub would hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ["query", "passage", "the", "river", "stone", "cloud"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *".,:?", *(f"##{c}" for c in _LETTERS), *_WORDS]


def write_tokenizer(folder: Path, n_positions: int = 64) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": n_positions}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _make(family: str, head: str, n_positions: int = 64, **more: object) -> Any:
    """A transformers model of the family with random weights, large enough to tell texts apart."""
    import torch
    import transformers

    name = {"bert": "Bert", "xlm-roberta": "XLMRoberta"}[family]
    # RoBERTa's kin number positions from pad_token_id + 1, so they need that many more of them.
    special = {"bert": {"pad_token_id": 0}, "xlm-roberta": {"pad_token_id": 0, "type_vocab_size": 2}}[family]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=n_positions + (family != "bert"),
        initializer_range=0.5,
        **special,
        **more,
    )
    torch.manual_seed(7)
    return getattr(transformers, f"{name}{head}")(config)


def write_bi_encoder(
    folder: Path,
    *,
    family: str = "bert",
    pooling: str = "mean",
    prompts: dict[str, str] | None = None,
    n_positions: int = 64,
) -> Path:
    """A bi-encoder in sentence-transformers' layout, with mean or CLS pooling and perhaps prompts."""
    write_tokenizer(folder, n_positions)
    _make(family, "Model", n_positions).save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{m}": m.startswith(pooling) for m in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def write_cross_encoder(
    folder: Path, *, family: str = "bert", n_labels: int = 1, activation: str | None = None
) -> Path:
    """A cross-encoder with one score a pair, or with more labels."""
    write_tokenizer(folder)
    model = _make(family, "ForSequenceClassification", num_labels=n_labels)
    if activation:
        model.config.sentence_transformers = {"activation_fn": activation, "version": "4.0.0"}
    model.save_pretrained(folder)
    return folder
