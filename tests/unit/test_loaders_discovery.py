"""Which files are found, left out, or reported."""

from __future__ import annotations

import inspect
import os
import socket
import sys
from pathlib import Path

import pytest

from semsearch.errors import InvalidInput
from semsearch.loaders import Found, find_files
from tests.unit.loaders_fixtures import is_root, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and modes are those of POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def make(root: Path, *names: str) -> None:
    for name in names:
        write(root / name, "x")


def names(root: Path, **options: list[str]) -> list[str]:
    return [found.path.relative_to(root).as_posix() for found in find_files(root, **options) if found.reason is None]


def reasons(root: Path) -> dict[str, str]:
    return {os.fsdecode(found.path.name): found.reason for found in find_files(root) if found.reason}


def test_order_is_by_name_and_stable(root):
    make(root, "b/z.md", "b/a.md", "a.md", "c.md", "B.md")
    assert names(root) == names(root) == ["B.md", "a.md", "b/a.md", "b/z.md", "c.md"]


def test_hidden_files_are_reported_and_hidden_folders_are_not_entered(root):
    make(
        root,
        "a.md",
        ".hidden.md",
        ".git/config",
        ".venv/x.py",
        "node_modules/x.js",
        "p/__pycache__/x.pyc",
        ".gitignore",
    )
    assert names(root) == ["a.md"]
    assert reasons(root) == {".hidden.md": "hidden file"}


def test_a_hidden_root_and_a_single_file_are_taken_as_asked(tmp_path):
    make(tmp_path, ".notes/a.md", ".notes/.gitignore")
    (tmp_path / ".notes/.gitignore").write_text("*.md\n")
    assert names(tmp_path / ".notes") == []
    file = tmp_path / ".notes/a.md"
    assert list(find_files(file, globs=["*.txt"])) == [Found(file)]


def test_ignore_files_nest_and_the_nearest_wins(root):
    make(
        root,
        "keep.log",
        "a.log",
        "build/x.md",
        "sub/build",
        "sub/b.log",
        "sub/keep.md",
        "sub/deep/c.log",
        "docs/build/y.md",
    )
    (root / ".gitignore").write_text("*.log\n!keep.log\n/build/\n# comment\n\ndocs/build\n")
    (root / "sub/.gitignore").write_text("!b.log\n")
    (root / "sub/deep/.semsearchignore").write_text("!*.log\n")
    (root / "sub/deep/.gitignore").write_text("*.log\n")
    assert names(root) == ["keep.log", "sub/b.log", "sub/build", "sub/deep/c.log", "sub/keep.md"]


def test_a_file_cannot_be_taken_back_from_an_ignored_folder(root):
    make(root, "out/x.md", "out/keep.md", "a.md")
    (root / ".gitignore").write_text("out/\n!out/keep.md\n")
    assert names(root) == ["a.md"]


def test_semsearchignore_is_stronger_than_gitignore(root):
    make(root, "a.md", "b.md")
    (root / ".gitignore").write_text("a.md\n")
    (root / ".semsearchignore").write_text("!a.md\nb.md\n")
    assert names(root) == ["a.md"]


def test_ignore_files_above_count_up_to_the_top_of_the_repository(tmp_path):
    make(tmp_path, "repo/docs/a.md", "repo/docs/b.tmp", "repo/docs/c.bak", "repo/docs/private/d.md", "repo/docs/e.out")
    (tmp_path / ".gitignore").write_text("*.md\n")
    (tmp_path / "repo/.git/info").mkdir(parents=True)
    (tmp_path / "repo/.git/info/exclude").write_text("*.bak\n")
    (tmp_path / "repo/.gitignore").write_text("*.tmp\n/docs/private/\n")
    (tmp_path / "repo/.semsearchignore").write_text("*.out\n")
    assert names(tmp_path / "repo/docs") == ["a.md"]


def test_a_root_that_its_repository_ignores_was_asked_for_all_the_same(tmp_path):
    make(tmp_path, "repo/.git/HEAD", "repo/build/docs/a.md")
    (tmp_path / "repo/.gitignore").write_text("build/\n")
    assert names(tmp_path / "repo") == []
    assert names(tmp_path / "repo/build/docs") == ["a.md"]


def test_malformed_patterns(root):
    make(root, "a.md")
    (root / ".gitignore").write_bytes(b"!\n///\n\xff\xfe\n")
    assert names(root) == ["a.md"]
    with pytest.raises(InvalidInput, match="malformed pattern"):
        list(find_files(root, globs=["!"]))


def test_globs_and_excludes(root):
    make(root, "a.md", "a.txt", "guides/b.md", "guides/deep/c.txt", "other/guides/d.md", "drafts/e.md")
    assert names(root, globs=["*.md"]) == ["a.md", "drafts/e.md", "guides/b.md", "other/guides/d.md"]
    assert names(root, globs=["guides/**"]) == ["guides/b.md", "guides/deep/c.txt"]
    assert names(root, globs=["*.txt", "/a.*"]) == ["a.md", "a.txt", "guides/deep/c.txt"]
    assert names(root, globs=["*.md"], excludes=["drafts/", "other"]) == ["a.md", "guides/b.md"]


def test_loops_of_links_end_and_files_are_found_once(root, tmp_path):
    make(root, "a/real.md", "z.md")
    (root / "a/up").symlink_to(root)
    (root / "b").symlink_to(root / "a")
    (root / "self").symlink_to(root / "self")
    (root / "broken").symlink_to("nowhere")
    (root / "copy.md").symlink_to(root / "z.md")
    make(tmp_path, "outside/o.md", "outside/inner/p.md")
    (tmp_path / "outside/back").symlink_to(tmp_path)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "link2").symlink_to(tmp_path / "outside/inner")
    (root / "o-link.md").symlink_to(tmp_path / "outside/o.md")
    assert names(root) == ["a/real.md", "z.md", "link/inner/p.md", "link/o.md"]
    assert reasons(root) == {"broken": "broken symbolic link", "self": "symbolic link loop or unreadable target"}


def test_pipes_sockets_and_unreadable_folders(root):
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(root)
        server.bind("sock")
        assert reasons(root) == {"pipe": "not a regular file", "sock": "not a regular file"}
    if is_root():
        pytest.skip("root may list every folder")
    make(root, "locked/a.md")
    (root / "locked").chmod(0)
    try:
        assert reasons(root)["locked"] == "permission denied"
    finally:
        (root / "locked").chmod(0o755)


def test_names_that_are_not_utf8(root):
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.md")).write_text("x")
    except OSError:
        pytest.skip("this file system refuses such names")
    make(root, "文件 ü.md")
    assert names(root) == ["文件 ü.md"]
    assert list(reasons(root).values()) == ["its name is not valid UTF-8"]


def test_folders_deeper_than_the_recursion_limit(root):
    deepest = root.joinpath(*"d" * 150)
    make(root, (deepest / "a.md").relative_to(root).as_posix())
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = list(find_files(root))
    finally:
        sys.setrecursionlimit(limit)
    assert found == [Found(deepest / "a.md")]


def test_a_missing_root(root):
    with pytest.raises(InvalidInput, match="No such file"):
        list(find_files(root / "gone"))
