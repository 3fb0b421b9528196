"""What the shell gets: formats, links, editors, batches, completion. Real model, tiny folder."""

import csv
import io
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from semsearch import Document, build_index
from semsearch.cli import cli
from semsearch.cli.editors import editor_command
from semsearch.errors import InvalidInput

BREAD = "# Kitchen\n\n## Bread\n\nKnead the dough until it is smooth.\nBake the `loaf` until ``` it is brown.\n"
WIDE = "仓库里还有三箱苹果，请在周五之前发货。" * 12 + "\n" + "The 🍞 baker 👩‍🍳 sells 面包 bread at dawn. " * 12 + "\n"
ROWS = "text,price\nA loaf of rye bread with a thick crust,3\nA pair of wool socks for the winter,9\n"
QUERY = ("query", "how to bake bread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("documents")
    (root / "a [b] #1.md").write_text(BREAD, encoding="utf-8")
    (root / "-dash.txt").write_text("Bake bread in a hot oven.\n", encoding="utf-8")
    (root / "面包.txt").write_text(WIDE, encoding="utf-8")
    (root / "shop.csv").write_text(ROWS, encoding="utf-8")
    (root / "page.html").write_text("<h1>Bread</h1><p>Bread is baked from flour and water.</p>", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def home(folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMSEARCH_HOME", str(home))
        done = CliRunner().invoke(cli, ["index", str(folder), "--index", "tiny", "-q"])
    assert done.exit_code == 0, done.output
    return home


@pytest.fixture(autouse=True)
def at_home(home, tmp_path, monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "SEMSEARCH_DEBUG", "COLUMNS", "TERM_PROGRAM", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEMSEARCH_HOME", str(home))


def run(*args, **options):
    return CliRunner().invoke(cli, [*map(str, args), "--index", "tiny"], **options)


def answer(*args):
    return json.loads(run(*args, "--json").stdout)


class TestFormats:
    def test_table_is_the_default(self):
        assert run(*QUERY).stdout == run(*QUERY, "--format", "table").stdout != ""

    def test_json_is_one_object_and_jsonl_one_a_hit(self):
        whole = json.loads(run(*QUERY, "--format", "json").stdout)
        expected = answer(*QUERY)["hits"]
        assert whole["hits"] == expected
        assert [json.loads(line) for line in run(*QUERY, "--format", "jsonl").stdout.splitlines()] == expected

    def test_plain_is_a_line_a_hit_that_editors_can_follow(self, folder):
        lines = run(*QUERY, "--format", "plain").stdout.splitlines()
        hits = answer(*QUERY)["hits"]
        assert len(lines) == len(hits) > 3
        by_name = {Path(line.split(": ")[0]).name: line for line in lines}
        assert f"{folder}/a [b] #1.md:1: # Kitchen ## Bread Knead the dough" in by_name["a [b] #1.md:1"]
        assert f"{folder}/page.html: Bread" in by_name["page.html"]
        assert f"{folder}/shop.csv#row=1: A loaf" in by_name["shop.csv#row=1"]

    def test_csv_reads_back_as_it_was(self):
        rows = list(csv.DictReader(io.StringIO(run(*QUERY, "--format", "csv").stdout)))
        hits = answer(*QUERY)["hits"]
        assert [(r["rank"], r["path"], r["text"]) for r in rows] == [
            (str(h["rank"]), h["path"], h["text"]) for h in hits
        ]
        assert [float(r["score"]) for r in rows] == [h["score"] for h in hits]

    def test_csv_keeps_what_a_terminal_would_not_get(self, tmp_path):
        build_index([Document("odd\x1b[31m name", "Knead the dough.")], index=tmp_path / "odd")
        found = CliRunner().invoke(cli, ["query", "knead", "--index", str(tmp_path / "odd"), "--format", "csv"])
        (row,) = csv.DictReader(io.StringIO(found.stdout))
        assert row["path"] == "odd\x1b[31m name"

    def test_markdown_keeps_passages_apart_from_what_is_around_them(self, folder):
        text = run(*QUERY, "--format", "markdown", "--no-fold").stdout
        assert (
            f"[{str(folder).replace('_', chr(92) + '_')}/a \\[b\\] #1.md:1](<{folder}/a [b] %231.md#L1>) Kitchen"
            in text
        )
        assert "   ````text\n   # Kitchen\n" in text
        assert len(re.findall(r"^\d+\. \[", text, re.MULTILINE)) == len(answer(*QUERY)["hits"])

    def test_paths_come_once_each_and_work_from_here(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        paths = run(*QUERY, "--format", "paths").stdout.splitlines()
        assert len(paths) == len(set(paths))
        assert set(paths) == {"a [b] #1.md", "./-dash.txt", "面包.txt", "shop.csv", "page.html"}
        assert all(Path(path).is_file() for path in paths)
        assert run(*QUERY, "-0").stdout.split("\0") == [*paths, ""]
        assert run(*QUERY, "-0", "--format", "paths").stdout == run(*QUERY, "-0").stdout

    def test_nul_ends_reach_xargs_whole(self, folder, home):
        command = [sys.executable, "-m", "semsearch", *QUERY, "-0", "--index", "tiny"]
        found = subprocess.run(command, capture_output=True, env=environment(home), check=True)
        counted = subprocess.run(["xargs", "-0", "wc", "-l"], input=found.stdout, capture_output=True, check=True)
        assert f"{folder}/a [b] #1.md" in counted.stdout.decode()

    @pytest.mark.parametrize("form", ["plain", "jsonl", "csv", "markdown", "paths"])
    def test_nothing_found_is_exit_1_and_told(self, form):
        done = run("query", "zyxwvut", "--mode", "lexical", "--format", form)
        assert done.exit_code == 1
        assert "no passage found" in done.stderr
        assert done.stdout == (
            "rank,score,probability,path,page,line_start,line_end,title,heading,text\n" if form == "csv" else ""
        )

    @pytest.mark.parametrize(
        ("extra", "told"),
        [
            (("--json", "--format", "csv"), "csv and json are two formats"),
            (("-0", "--json"), "json and paths are two formats"),
            (("--format", "csv", "--explain"), "--explain is shown by --format table, json, jsonl"),
            (("--format", "paths", "--facet", "lang"), "--facet is shown for one query"),
            (("--open", "1", "--json"), "--open N opens the hit"),
            (("--format", "xml"), "'xml' is not one of"),
        ],
    )
    def test_options_that_contradict_each_other(self, extra, told):
        done = run(*QUERY, *extra)
        assert done.exit_code == 2 and told in done.stderr and done.stdout == ""


class TestBatch:
    @pytest.fixture
    def queries(self, tmp_path):
        path = tmp_path / "queries.txt"
        path.write_bytes("how to bake bread\n\nwool socks\r\nxqzw vblorp kjtrw\n面包\n".encode() + b"caf\xe9")
        return path

    @pytest.mark.parametrize("extra", [(), ("--no-rerank", "-k", 2), ("--mode", "lexical"), ("--explain",)])
    def test_each_line_is_answered_in_order_as_it_would_be_alone(self, queries, extra):
        done = run("query", "--batch", queries, *extra)
        assert done.exit_code == 0 and done.stderr == ""
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        texts = [a["query"] for a in answers]
        assert texts == ["how to bake bread", "", "wool socks", "xqzw vblorp kjtrw", "面包", "caf\ufffd"]
        assert answers[1]["hits"] == []
        for given in answers:
            if given["query"]:
                alone = answer("query", given["query"], *extra)
                assert {**given, "elapsed_ms": 0} == {**alone, "elapsed_ms": 0}

    def test_stdin_is_read_and_nothing_found_is_exit_1(self):
        done = run("query", "--batch", "-", input="xqzw vblorp kjtrw\n")
        assert done.exit_code == 1 and json.loads(done.stdout)["hits"] == []
        assert run("query", "--batch", "-", input="").stdout == ""

    def test_a_line_that_is_too_long_is_named_after_those_before_it_are_answered(self, tmp_path):
        path = tmp_path / "queries.txt"
        path.write_text("how to bake bread\n" + "\n" * 300 + "bread " * 20_000 + "\nwool socks\n")
        done = run("query", "--batch", path)
        assert done.exit_code == 2 and "line 302 has more than 100,000 characters" in done.stderr
        answered = [json.loads(line)["query"] for line in done.stdout.splitlines()]
        assert answered == ["how to bake bread", *[""] * 300]

    @pytest.mark.parametrize("extra", [("text",), ("--format", "csv"), ("--open", 1), ("--facet", "lang")])
    def test_what_does_not_go_with_it(self, queries, extra):
        assert run("query", "--batch", queries, *extra).exit_code == 2
        assert run("query", "--batch", "/no/such/file").exit_code == 2


def environment(home, **extra):
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM", "COLUMNS"}}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "SEMSEARCH_HOME": str(home), **extra}


def on_a_terminal(home, *args, **extra):
    """What a command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "semsearch", *map(str, args), "--index", "tiny"]
    shown = environment(home, **{"TERM": "xterm-256color", "COLUMNS": "80", **extra})
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, stdin=theirs, env=shown) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # the other side has closed
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


LINK = re.compile(r"\x1b\]8;[^;]*;([^\x1b]+)\x1b\\")
ESCAPES = re.compile(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[0-9;?]*[A-Za-z]")


class TestTerminal:
    def test_paths_are_links_to_files_and_lines_fit(self, home, folder):
        text = on_a_terminal(home, *QUERY)
        targets = set(LINK.findall(text))
        name = "a%20%5Bb%5D%20%231.md"
        assert f"file://{socket.gethostname()}{folder}/{name}" in targets
        assert "\x1b[" in text
        lines = [line.rstrip() for line in ESCAPES.sub("", text).replace("\r", "").split("\n")]
        assert any("苹果" in line for line in lines) and any("🍞" in line for line in lines)
        passages = [line for line in lines if line.startswith("     ")]  # paths are not cut
        assert max(map(cell_len, passages)) <= 80
        assert max(cell_len(line) for line in passages if "苹果" in line) > 70  # and none is cut too early

    def test_lines_are_linked_where_the_terminal_reads_them(self, home, folder):
        targets = LINK.findall(on_a_terminal(home, *QUERY, TERM="xterm-kitty"))
        assert any(target.endswith("/-dash.txt#1") for target in targets)
        assert any(target.endswith("/page.html") for target in targets)

    @pytest.mark.parametrize("extra", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_no_colour_and_dumb_terminals_get_text_alone(self, home, extra):
        text = on_a_terminal(home, *QUERY, **extra)
        assert "bread" in text and not LINK.findall(text)
        assert not re.search(r"\x1b\[[0-9;]+m", text)

    def test_a_pipe_gets_no_links_whatever_is_forced(self, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-kitty")
        assert not LINK.findall(run(*QUERY).stdout)


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Programs that write down how they were called."""

    def make(name, status=0):
        log = tmp_path / "log"
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{log}"\nexit {status}\n')
        program.chmod(0o755)
        monkeypatch.setenv("EDITOR", f"'{program}'")
        return log

    return make


class TestOpen:
    def test_the_hit_is_opened_at_its_line(self, editor, folder):
        log = editor("vim")
        place = {Path(h["path"]).name: h["rank"] for h in answer(*QUERY)["hits"]}
        done = run(*QUERY, "--open", place["a [b] #1.md"])
        assert (done.exit_code, done.stdout) == (0, "")
        assert log.read_text() == f"+1\n{folder}/a [b] #1.md\n"
        run(*QUERY, "--open", place["page.html"])
        assert log.read_text() == f"{folder}/page.html\n"

    @pytest.mark.parametrize(
        ("named", "expected"),
        [
            ("nvim", ["+7", "/a b"]),
            ("nano", ["+7", "/a b"]),
            ("emacsclient -t", ["-t", "+7", "/a b"]),
            ("code --wait", ["--wait", "-g", "/a b:7"]),
            ("subl", ["/a b:7"]),
            ("hx", ["/a b:7"]),
            ("kate", ["--line", "7", "/a b"]),
            ("unheard-of", ["/a b"]),
            ("vim -c 'echo $(id); rm x'", ["-c", "echo $(id); rm x", "+7", "/a b"]),
        ],
    )
    def test_each_editor_is_told_in_its_way(self, editor, monkeypatch, tmp_path, named, expected):
        program = named.split()[0]
        editor(program)
        monkeypatch.setenv("VISUAL", named)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert editor_command("/a b", 7) == [program, *expected]
        assert editor_command("/a b", None)[-1] == "/a b"

    def test_troubles_are_told(self, editor, folder, monkeypatch, tmp_path):
        editor("vim", status=3)
        assert "the editor ended with status 3" in run(*QUERY, "--open", 1).stderr
        beyond = run(*QUERY, "--open", 99)
        assert beyond.exit_code == 1 and "there is no hit 99; the last is " in beyond.stderr
        monkeypatch.setenv("EDITOR", "no-such-editor --wait")
        assert "'no-such-editor' is not installed" in run(*QUERY, "--open", 1).stderr
        monkeypatch.setenv("EDITOR", "'vim")
        with pytest.raises(InvalidInput, match="cannot be read"):
            editor_command("/x", 1)
        monkeypatch.delenv("EDITOR")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InvalidInput, match="no editor is known"):
            editor_command("/x", 1)

    def test_a_file_that_is_gone_is_not_opened(self, editor, home, tmp_path):
        log = editor("vim")
        page = tmp_path / "gone.txt"
        page.write_text("A lighthouse stands on the cliff.")
        assert run("index", page).exit_code == 0
        page.unlink()
        done = CliRunner().invoke(cli, ["query", "lighthouse", "--index", "tiny", "--open", "1"])
        assert done.exit_code == 2 and "is not a file that could be opened" in done.stderr
        assert not log.exists()
        assert run("remove", page).exit_code == 0


@pytest.fixture
def shim(tmp_path):
    """A folder with `semsearch` in it, as an installation would have it."""
    program = tmp_path / "bin" / "semsearch"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m semsearch "$@"\n')
    program.chmod(0o755)
    return program.parent


words_to_complete = pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["que"], ["query"]),
        (["query", "--index", ""], ["tiny"]),
        (["list", "-i", "t"], ["tiny"]),
        (["list", "-i", "x"], []),
        (["query", "--form"], ["--format"]),
        (["query", "--format", "j"], ["json", "jsonl"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)


def in_shell(program, script, words, home, shim):
    """What a shell without anybody's settings prints, with `words` as its arguments."""
    if shutil.which(program[0]) is None:
        pytest.skip(f"there is no {program[0]} here")
    given = environment(home, PATH=f"{shim}:{os.environ['PATH']}", HOME=str(home))
    done = subprocess.run(
        [*program, "-c", script, *words],
        capture_output=True,
        text=True,
        env=given,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_is_for_that_shell(self, shell):
        done = CliRunner().invoke(cli, ["completion", shell])
        assert done.exit_code == 0
        assert f"_SEMSEARCH_COMPLETE={shell}_complete" in done.stdout
        program = shutil.which(shell)
        if program:
            subprocess.run([program, "-n", "/dev/stdin"], input=done.stdout, text=True, check=True)

    def test_other_shells_are_usage_errors(self):
        assert CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code == 2

    @words_to_complete
    def test_a_real_bash_completes(self, home, shim, words, expected):
        script = (
            "source <(semsearch completion bash)\n"
            "complete -p semsearch >&2\n"
            'COMP_WORDS=(semsearch "$@") COMP_CWORD=$# COMPREPLY=()\n'
            "_semsearch_completion semsearch\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        command = ["bash", "--norc", "-c", script, "bash", *words]
        shown = environment(home, PATH=f"{shim}:{os.environ['PATH']}")
        done = subprocess.run(command, capture_output=True, text=True, env=shown, check=True)
        assert done.stderr.split()[-3:] == ["-F", "_semsearch_completion", "semsearch"]
        assert done.stdout.split() == expected

    @words_to_complete
    def test_a_real_zsh_completes(self, home, shim, words, expected):
        script = (
            'eval "$(semsearch completion zsh)"\n'
            "print -r -- $_comps[semsearch]\n"
            '_describe() { print -rl -- "${(@)${(P@)3}%%:*}" }\n'  # what shows the line editor's user is only there
            'compadd() { print -rl -- "${(P@)@[-1]}" }\n'
            'words=(semsearch "$@") CURRENT=$(($# + 1))\n'
            "_semsearch_completion || true\n"
        )
        shown = in_shell(["zsh", "-f"], script, ["zsh", *words], home, shim).splitlines()
        assert shown == ["_semsearch_completion", *expected]

    @words_to_complete
    def test_a_real_fish_completes(self, home, shim, words, expected):
        line = " ".join(["semsearch", *words])
        script = f"source (semsearch completion fish | psub); complete -C '{line}'"
        shown = in_shell(["fish", "--no-config"], script, [], home, shim).splitlines()
        assert [line.split("\t")[0] for line in shown] == sorted(expected)

    def test_descriptions_are_whole_in_fish(self, home, shim):
        script = "source (semsearch completion fish | psub); complete -C 'semsearch query --form'"
        shown = in_shell(["fish", "--no-config"], script, [], home, shim)
        assert shown.startswith("--format\tplain: PATH:LINE: passage, a line each.")
