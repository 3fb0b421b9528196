"""The command as a user meets it: real model, tiny folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from semsearch.cli import cli, options
from semsearch.cli.environment import describe_installation
from semsearch.cli.output import echo_json
from semsearch.cli.progress import Pace
from semsearch.errors import IndexLocked
from semsearch.reports import Progress

HEAVY = ("faiss", "numpy", "rich", "sentence_transformers", "sqlite_utils", "tantivy", "torch", "transformers")
NO_INDEX = ("completion", "mcp")
HIT_KEYS = (
    "rank", "score", "probability", "chunk_id", "document_id", "path", "title", "heading",
    "page", "line_start", "line_end", "start", "end",
    "text", "scores", "metadata", "duplicates",
)  # fmt: skip
RUN_UNTIL_STOPPED = {"serve"}
COOKING = """\
---
author: Ada
---
# Kitchen

## Bread

Knead the dough until it is smooth. Let the loaf rise in a warm place. Bake it until the crust is brown.

## Soup

Simmer the onions slowly in butter.
"""
HOSTILE = "The [bold]red[/bold] lighthouse \x1b[2Jkeeper\u202e trims\x07 the \x9blamp at dusk. :smile:\n"


def a_long_page() -> str:
    sentences = [f"The clerk writes line {n} of the ledger in blue ink and turns the page." for n in range(6)]
    return " ".join([*sentences, "A volcano erupted near the harbour town.", *sentences])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("documents")
    (root / "cooking.md").write_text(COOKING, encoding="utf-8")
    (root / "hostile.txt").write_text(HOSTILE, encoding="utf-8")
    (root / "ledger.txt").write_text(a_long_page(), encoding="utf-8")
    (root / "库存.txt").write_text("仓库里还有三箱苹果。请在周五之前发货。\n", encoding="utf-8")
    (root / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (root / "empty.txt").touch()
    return root


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    """(index, what `index --json` printed)"""
    index = str(tmp_path_factory.mktemp("indexes") / "tiny")
    done = CliRunner().invoke(cli, ["index", str(folder), "--index", index, "--json"])
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return index, json.loads(done.stdout)


@pytest.fixture
def index(built):
    return built[0]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, and nothing from the user's environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "NO_COLOR", "SEMSEARCH_HOME", "SEMSEARCH_DEBUG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def run(*args, **options):
    return CliRunner().invoke(cli, [str(arg) for arg in args], **options)


def run_process(*args, **options):
    command = [sys.executable, "-m", "semsearch", *map(str, args)]
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **options)


class TestHelp:
    def test_commands_come_in_the_order_of_use(self):
        text = run("--help").stdout
        places = [text.index(f"\n  {name} ") for name in ("index", "query", "info", "list", "remove")]
        assert places == sorted(places)

    @pytest.mark.parametrize("flag", ["-h", "--help"])
    @pytest.mark.parametrize("command", list(cli.commands))
    def test_each_command_explains_itself_with_examples(self, command, flag):
        done = run(command, flag)
        assert done.exit_code == 0
        if command not in NO_INDEX:
            assert "--index" in done.stdout
            assert "--json" in done.stdout or command in RUN_UNTIL_STOPPED
        assert f"Examples:\n    semsearch {command}" in done.stdout

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys\nfrom semsearch.cli import cli\ncli(['query', '--help'], standalone_mode=False)\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stderr == "[]\n"

    def test_version(self):
        from semsearch import __version__

        assert run("--version").stdout == f"semsearch {__version__}\n"

    def test_no_command_and_unknown_ones_are_usage_errors(self):
        assert run().exit_code == 2
        assert run("quary", "x").exit_code == 2

    def test_the_modes_are_those_of_the_library(self):
        from semsearch.search_options import MODES

        assert options.MODES == MODES


class TestIndex:
    def test_json_accounts_for_every_file(self, built, folder):
        index, report = built
        assert list(report) == ["index", "files", "chunks", "elapsed_s", "problems", "ann"]
        assert report["index"] == index
        assert report["files"] == {"seen": 6, "indexed": 4, "unchanged": 0, "removed": 0, "skipped": 1, "failed": 1}
        assert report["chunks"]["encoded"] == report["chunks"]["total"] >= 4
        assert {Path(p["path"]).name for p in report["problems"]} == {"broken.pdf", "empty.txt"}
        assert all(p["reason"] for p in report["problems"])

    def test_again_is_a_sync_and_the_summary_says_how_to_ask(self, index, folder):
        done = run("index", folder, "--index", index)
        assert done.exit_code == 0
        assert "0 indexed, 4 unchanged, 1 skipped, 1 failed" in done.stdout
        assert "0 encoded" in done.stdout
        assert "broken.pdf: " in done.stdout
        assert f'semsearch query "your question" --index {index}' in done.stdout
        assert done.stderr == ""

    def test_without_path_everything_remembered_is_synced(self, index):
        report = json.loads(run("index", "--index", index, "--json").stdout)
        assert report["files"]["unchanged"] == 4

    def test_quiet_prints_only_failures_on_stderr(self, index):
        done = run("index", "--index", index, "--quiet")
        assert done.exit_code == 0
        assert done.stdout == ""
        assert "broken.pdf: " in done.stderr
        assert "empty.txt" not in done.stderr

    def test_a_path_that_does_not_exist_is_an_error(self):
        done = run("index", "no-such-folder")
        assert done.exit_code == 2
        assert "no-such-folder" in done.stderr

    def test_without_path_and_index_is_an_error(self):
        done = run("index")
        assert done.exit_code == 2
        assert done.stderr.startswith("semsearch: error: ")

    def test_glob_and_exclude_choose_files(self, folder, tmp_path):
        patterns = ["--glob", "*.txt", "--exclude", "led*", "--exclude", "e*"]
        done = run("index", folder, "--index", tmp_path / "some", *patterns, "--json")
        assert json.loads(done.stdout)["files"]["indexed"] == 2


class TestQuery:
    def test_json_has_exactly_the_documented_shape(self, index, folder):
        done = run("query", "how to make a loaf", "--index", index, "--json", "-k", 2)
        answer = json.loads(done.stdout)
        assert done.exit_code == 0
        assert done.stdout.endswith("}\n")
        assert done.stdout.count("\n") == 1
        assert list(answer) == ["query", "index", "mode", "elapsed_ms", "hits", "best_probability"]
        assert (answer["query"], answer["index"], answer["mode"]) == ("how to make a loaf", index, "hybrid")
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
        best = answer["hits"][0]
        assert tuple(best) == HIT_KEYS
        assert list(best["scores"]) == ["dense", "lexical", "feedback", "fused", "rerank"]
        assert best["path"] == str(folder / "cooking.md")
        assert "Knead the dough" in best["text"]
        assert best["metadata"]["author"] == "Ada"
        assert best["title"]

    def test_a_document_without_title_is_named_after_its_file(self, index):
        answer = json.loads(run("query", "lighthouse", "--index", index, "--json", "-k", 1).stdout)
        assert answer["hits"][0]["title"] == "hostile"

    def test_chinese_is_printed_as_itself(self, index):
        done = run("query", "苹果", "--index", index, "--json", "-k", 1)
        assert "三箱苹果" in done.stdout
        assert json.loads(done.stdout)["hits"][0]["path"].endswith("库存.txt")

    def test_where_limits_a_search_and_facets_count(self, index):
        options = ("--where", 'author = "Ada"', "--facet", "author", "--index", index, "--json")
        found = json.loads(run("query", "lines of a ledger", *options, "--min-probability", "0").stdout)
        assert {Path(hit["path"]).name for hit in found["hits"]} == {"cooking.md"}
        assert found["facets"] == {"author": [{"value": "Ada", "documents": 1, "passages": len(found["hits"])}]}
        counted = json.loads(run("facets", "type", "--where", 'path ~ "*.txt"', "--index", index, "--json").stdout)
        assert [(c["value"], c["documents"]) for c in counted["facets"]["type"]] == [("txt", 3)]
        assert "3  txt\n" in run("facets", "type", "--index", index).stdout

    @pytest.mark.parametrize("command", ["query", "facets"])
    def test_a_filter_that_cannot_be_read_is_one_line(self, command, index):
        done = run(command, "author", "--where", "author = Ada", "--index", index)
        assert done.exit_code == 2 and "Traceback" not in done.stderr
        assert done.stderr == 'semsearch: error: the filter, character 10 (Ada): put text in quotes: "Ada"\n'

    def test_the_query_may_come_from_stdin_or_in_several_words(self, index):
        piped = json.loads(run("query", "-", "--index", index, "--json", input="smooth dough\n").stdout)
        typed = json.loads(run("query", "smooth", "dough", "--index", index, "--json").stdout)
        assert piped["query"] == typed["query"] == "smooth dough"
        assert piped["hits"] == typed["hits"]

    @pytest.mark.parametrize("extra", [[], ["--json"]])
    def test_nothing_found_is_exit_1(self, index, extra):
        done = run("query", "zyxwvut", "--mode", "lexical", "--index", index, *extra)
        assert done.exit_code == 1
        if extra:
            assert json.loads(done.stdout)["hits"] == []
        else:
            assert done.stdout == ""
            assert "no passage found" in done.stderr

    def test_without_an_index_the_error_says_how_to_make_one(self):
        done = run("query", "anything")
        assert done.exit_code == 2
        assert done.stdout == ""
        assert done.stderr.startswith("semsearch: error: ")
        assert "semsearch index" in done.stderr

    def test_the_own_model_reranks_unless_told_otherwise(self, index):
        def scores(*extra):
            answer = json.loads(run("query", "bread", "--index", index, "--json", *extra).stdout)
            return [hit["scores"]["rerank"] for hit in answer["hits"]]

        assert scores()[0] is not None and scores("--rerank") == scores()
        assert set(scores("--no-rerank")) == {None}
        assert set(scores("--mode", "lexical")) == {None}
        assert scores("--rerank-depth", 1)[1:] == [None] * (len(scores()) - 1)

    def test_explain_shows_the_parts_of_a_score_and_the_words_that_met(self, index):
        done = run("query", "loaf", "--index", index, "--explain", "-k", 1)
        assert "meaning 0." in done.stdout and "words (BM25)" in done.stdout and "reranker 0." in done.stdout
        assert "loaf → " in done.stdout
        hit = json.loads(run("query", "loaf", "--index", index, "--explain", "--json", "-k", 1).stdout)["hits"][0]
        assert f"{hit['score']:.3f} = meaning " in done.stdout
        (match,) = hit["matches"]
        assert match["query"] == "loaf" and -1 <= match["cosine"] <= 1
        assert hit["text"][match["start"] : match["end"]] == match["word"]

    def test_a_word_that_met_one_of_the_title_is_told_apart(self, tmp_path):
        page = tmp_path / "pool.html"
        page.write_text("<title>The swimming pool</title><p>It opens at nine.")
        assert run("index", page, "--index", tmp_path / "pool").exit_code == 0
        done = run("query", "pool", "--index", tmp_path / "pool", "--explain")
        assert "pool → pool (title or heading) " in done.stdout
        hit = json.loads(run("query", "pool", "--index", tmp_path / "pool", "--explain", "--json").stdout)["hits"][0]
        (match,) = hit["matches"]
        assert (match["word"], match["start"], match["end"]) == ("pool", None, None)

    @pytest.mark.parametrize(
        "options", [(), ("--rerank-depth", 2), ("--no-rerank",), ("--mode", "lexical", "--rerank")]
    )
    def test_the_parts_of_a_score_add_up_to_it(self, index, options):
        hits = run("query", "how to bake bread", "--index", index, "--explain", "--json", *options)
        hits = json.loads(hits.stdout)["hits"]
        assert hits
        assert [sum(hit["parts"].values()) for hit in hits] == pytest.approx([hit["score"] for hit in hits])

    def test_a_query_that_nothing_answers_is_told_so(self, index):
        done = run("query", "xqzw vblorp kjtrw", "--index", index)
        assert done.exit_code == 1 and done.stdout == ""
        assert "nothing relevant found (best " in done.stderr and "--min-probability 0" in done.stderr
        answer = json.loads(run("query", "xqzw vblorp kjtrw", "--index", index, "--json").stdout)
        assert answer["hits"] == [] and 0 < answer["best_probability"] < 0.2
        assert run("query", "xqzw vblorp kjtrw", "--index", index, "--min-probability", 0).exit_code == 0

    def test_a_wrong_reranker_is_told_what_would_be_one(self, index):
        done = run("query", "loaf", "--index", index, "--reranker", "/no/such/folder")
        assert done.exit_code == 2 and done.stdout == ""
        assert "/no/such/folder cannot be loaded: the model folder /no/such/folder does not exist. Give" in done.stderr
        assert done.stderr.count("Give a") == 1
        assert "semsearch train reranker" in done.stderr

    def test_a_limit_that_nothing_reaches_is_named(self, index):
        done = run("query", "knead bread dough", "--index", index, "--min-probability", 1)
        assert done.exit_code == 1 and "no passage is 100% probable (best " in done.stderr
        lexical = run("query", "bread", "--index", index, "--mode", "lexical", "--min-probability", 0.5)
        assert lexical.exit_code == 0 and "have no probabilities" in lexical.stderr

    def test_min_probability_leaves_out_what_is_less_likely(self, index):
        everything = json.loads(run("query", "knead bread dough", "--index", index, "--json").stdout)["hits"]
        limit = everything[0]["probability"]
        assert limit > 0.3 and all(0 < hit["probability"] < 1 for hit in everything)
        kept = run("query", "knead bread dough", "--index", index, "--json", "--min-probability", limit)
        assert json.loads(kept.stdout)["hits"] == [hit for hit in everything if hit["probability"] >= limit]
        for wrong in ("1.1", "nan"):
            assert run("query", "x", "--index", index, "--min-probability", wrong).exit_code == 2

    @pytest.mark.parametrize(
        "bad",
        [
            ["-k", "0"],
            ["--mode", "magic"],
            ["--per-document", "-1"],
            ["--context", "x"],
            ["--mmr", "1.1"],
            ["--mmr", "nan"],
        ],
    )
    def test_bad_options_are_usage_errors(self, bad, index):
        assert run("query", "x", "--index", index, *bad).exit_code == 2

    def test_context_widens_the_passage(self, index):
        def best(*extra):
            return json.loads(run("query", "onions", "--index", index, "--json", "-k", 1, *extra).stdout)["hits"][0]

        narrow, wide = best(), best("-C", 100)
        assert narrow["text"] in wide["text"]
        assert wide["line_start"] <= narrow["line_start"]

    def test_no_rerank_leaves_a_named_reranker_alone(self, index):
        done = run("query", "bread", "--index", index, "--no-rerank", "--reranker", "/no/such/folder", "-k", 1)
        assert done.exit_code == 0


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """An index of a rule in three copies, the same rule with another number, and something else."""
    root, index = tmp_path_factory.mktemp("copies"), tmp_path_factory.mktemp("indexes") / "copies"
    rule = "Guests leave their cars behind the mill, for at most 3 hours, and take the path along the river."
    html = f"<html><body><h1>Parking</h1><p>{rule.replace('mill', '<b>mill</b>')}</p></body></html>"
    (root / "a.md").write_text(f"# Parking\n\n{rule}", encoding="utf-8")
    (root / "b.md").write_text(f"# Parking\n\n{rule}", encoding="utf-8")
    (root / "c.html").write_text(html, encoding="utf-8")
    (root / "new.md").write_text(f"# Parking\n\n{rule.replace('3', '5')}", encoding="utf-8")
    (root / "other.md").write_text(
        "# Mill\n\nThe mill stands by the river and grinds flour for guests.", encoding="utf-8"
    )
    done = CliRunner().invoke(cli, ["index", str(root), "--index", str(index), "--json"])
    assert json.loads(done.stdout)["files"]["indexed"] == 5
    return index


class TestDiversity:
    def names(self, *args):
        hits = json.loads(run("query", "where do guests park", "--json", *args).stdout)["hits"]
        return [(Path(h["path"]).name, [Path(d["path"]).name for d in h["duplicates"]]) for h in hits]

    def test_copies_are_shown_once_and_named_in_json(self, copies):
        folded, apart = self.names("-i", copies), self.names("-i", copies, "--no-fold")
        together = sorted(sorted([name, *more]) for name, more in folded)
        assert together == [["a.md", "b.md", "c.html"], ["new.md"], ["other.md"]]
        assert len(apart) == 5
        assert not any(more for _, more in apart)
        answer = json.loads(run("query", "where do guests park", "--json", "-i", copies).stdout)
        duplicates = next(h["duplicates"] for h in answer["hits"] if h["duplicates"])
        assert list(duplicates[0]) == ["path", "title", "heading", "page", "line_start"]

    def test_the_terminal_counts_them(self, copies):
        done = run("query", "where do guests park", "-i", copies)
        assert done.stdout.count("+2 near-identical\n") == done.stdout.count("near-identical") == 1
        assert "near-identical" not in run("query", "where do guests park", "-i", copies, "--no-fold").stdout

    def test_mmr_ranks_what_is_alike_lower(self, copies):
        plain, mixed = self.names("-i", copies), self.names("-i", copies, "--mmr", "0.1")
        assert "new.md" in (plain[0][0], plain[1][0])
        assert plain[2][0] == mixed[1][0] == "other.md"
        assert self.names("-i", copies, "--mmr", "1") == plain


class TestTerminal:
    def test_a_pipe_gets_plain_text_in_full(self, index):
        done = run("query", "volcano", "--index", index, "-k", 1)
        assert "\x1b" not in done.stdout
        assert "…" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) > 800  # as long as it is in the file
        assert "  1  0." in done.stdout
        assert "ledger.txt:1\n" in done.stdout

    def test_a_terminal_gets_the_best_sentence_in_bold_and_the_words_in_red(self, index, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setenv("TERM", "xterm-256color")
        done = run("query", "volcano", "--index", index, "-k", 1)
        assert "\x1b[1;31mvolcano\x1b[0m" in done.stdout
        assert "\x1b[1mA \x1b[0m" in done.stdout
        assert done.stdout.count("…") == 2
        passage = [line for line in done.stdout.splitlines() if "line " in line or "volcano" in line]
        assert len(passage) <= 9

    def test_context_shows_passages_in_full(self, index, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "60")
        assert "…" not in run("query", "volcano", "--index", index, "-k", 1, "--context", 1).stdout

    def test_no_color_means_no_escape_sequences(self, index, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in run("query", "volcano", "--index", index, "-k", 1).stdout

    @pytest.mark.parametrize("colour", [False, True])
    def test_what_documents_say_never_drives_the_terminal(self, index, monkeypatch, colour):
        if colour:
            monkeypatch.setenv("FORCE_COLOR", "1")
        done = run("query", "lighthouse keeper", "--index", index, "-k", 1)
        assert not any(bad in done.stdout for bad in ("\x1b[2J", "\x07", "\u202e", "\x9b"))
        plain = click.unstyle(done.stdout)
        assert "The [bold]red[/bold] lighthouse" in plain
        assert ":smile:" in plain

    def test_json_keeps_such_characters_escaped(self, index):
        done = run("query", "lighthouse keeper", "--index", index, "-k", 1, "--json")
        assert not any(bad in done.stdout for bad in ("\x1b", "\x07", "\u202e", "\x9b"))
        assert json.loads(done.stdout)["hits"][0]["text"] == HOSTILE.strip()

    def test_json_is_strict_whatever_it_is_given(self, capfdbinary):
        echo_json({"nan": float("nan"), "inf": [float("-inf")], "bytes in a name": "caf\udce9", "path": Path("a")})
        out = capfdbinary.readouterr().out
        read = json.loads(out.decode("utf-8"), parse_constant=pytest.fail)
        assert read == {"nan": None, "inf": [None], "bytes in a name": "caf\udce9", "path": "a"}


class TestProcess:
    """What only a process of its own shows."""

    def test_a_query_prints_its_answer_and_nothing_else(self, index):
        process = run_process("query", "smooth dough", "--index", index, "-k", 1, "--json", stdout=subprocess.PIPE)
        out, err = process.communicate()
        assert process.returncode == 0
        assert err == b""
        assert "Knead" in json.loads(out)["hits"][0]["text"]

    @pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["info"]])
    def test_a_closed_pipe_is_not_an_error(self, index, args):
        reader, writer = os.pipe()
        os.close(reader)
        process = run_process(*args, "--index", index, stdout=writer)
        os.close(writer)
        assert process.communicate()[1] == b""
        assert process.returncode == 0

    def test_a_closed_pipe_does_not_trouble_help(self):
        reader, writer = os.pipe()
        os.close(reader)
        process = run_process("--help", stdout=writer)
        os.close(writer)
        assert process.communicate()[1] == b""
        assert process.returncode == 0

    def test_a_full_disk_is_one_line(self, index):
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        with Path("/dev/full").open("wb") as full:
            process = run_process("list", "--index", index, stdout=full)
            error = process.communicate()[1].decode()
        assert process.returncode == 2
        assert error.startswith("semsearch: error: ")
        assert error.count("\n") == 1


class TestProgress:
    def test_a_terminal_gets_a_progress_bar_on_stderr_only(self, index, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "100")
        done = run("index", "--index", index)
        assert done.exit_code == 0
        assert "passages/s" in done.stderr
        assert "passages/s" not in done.stdout

    def test_remaining_time_is_what_the_last_two_minutes_promise(self):
        pace = Pace()
        for elapsed_s, files_done, chunks_done in [(0.0, 0, 0), (0.2, 900, 0), (60.0, 910, 300), (150.0, 920, 600)]:
            pace.add(Progress(files_done, 1_000, chunks_done, elapsed_s, ""))
        assert pace.passages_per_s == pytest.approx(600 / 149.8)
        assert pace.remaining_s == pytest.approx(80 * 149.8 / 20)
        pace.add(Progress(930, 1_000, 900, 240.0, ""))
        assert pace.remaining_s == pytest.approx(70 * 180.0 / 20)

    def test_nothing_is_promised_before_a_file_is_done(self):
        pace = Pace()
        pace.add(Progress(0, 10, 0, 3.0, "a"))
        assert pace.remaining_s is None
        assert pace.passages_per_s == 0


class TestErrors:
    def test_interruption_says_that_nothing_is_lost(self, folder, monkeypatch):
        monkeypatch.setattr("semsearch.indexing.build_index", raising(KeyboardInterrupt()))
        done = run("index", folder)
        assert done.exit_code == 130
        assert "kept" in done.stderr
        assert "Traceback" not in done.output

    def test_interruption_while_modules_are_loaded_shows_no_traceback(self):
        code = (
            "import signal, sys, semsearch.__main__ as command\n"
            "class Interrupter:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'click': signal.raise_signal(signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupter())\n"
            "command.main()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

    @pytest.mark.parametrize("ignored", [False, True])
    def test_a_second_interruption_ends_it_at_once_unless_they_are_ignored(self, ignored):
        code = (
            "import signal\n"
            f"if {ignored}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "from semsearch.cli.door import prepare_process\n"
            "prepare_process()\n"
            "try:\n"
            "    signal.raise_signal(signal.SIGINT)\n"
            "    print('not interrupted', end=' ', flush=True)\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', end=' ', flush=True)\n"
            "    type('BrokenOff', (), {'__del__': lambda self: 1 / 0})()\n"
            "signal.raise_signal(signal.SIGINT)\n"
            "print('went on')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        told = "not interrupted went on\n" if ignored else "interrupted "
        assert (done.returncode, done.stdout, done.stderr) == (0 if ignored else 130, told, "")

    def test_a_terminal_has_its_cursor_again(self):
        code = (
            "import os, pty, sys\n"
            "pid, terminal = pty.fork()\n"
            "if not pid:\n"
            "    import signal\n"
            "    from semsearch.cli.door import prepare_process\n"
            "    prepare_process()\n"
            "    os.write(2, b'\\x1b[?25l')\n"
            "    try: signal.raise_signal(signal.SIGINT)\n"
            "    except KeyboardInterrupt: signal.raise_signal(signal.SIGINT)\n"
            "os.waitpid(pid, 0)\n"
            "sys.stdout.write(repr(os.read(terminal, 1000)))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout.index("?25l") < done.stdout.index("?25h"), done.stderr

    def test_the_command_and_the_module_are_one(self):
        (script,) = entry_points(group="console_scripts", name="semsearch")
        assert script.value == "semsearch.__main__:main"

    @pytest.mark.parametrize("pause_s", [0.02, 0.5])
    def test_interrupted_twice_nothing_is_lost(self, tmp_path, pause_s):
        docs, index = tmp_path / "docs", tmp_path / "index"
        docs.mkdir()
        for i in range(60):
            (docs / f"{i}.txt").write_text(f"Ledger {i}. " + a_long_page().replace("line ", f"line {i}") * 4)
        command = [sys.executable, "-m", "semsearch", "index", str(docs), "--index", str(index), "-q"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while not list(index.glob("vectors/*.npy")) and process.poll() is None:
                time.sleep(0.01)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(pause_s)
            told = process.communicate(timeout=60)[1]
        assert process.returncode in (130, -signal.SIGINT)
        assert "Traceback" not in told and "FATAL" not in told
        assert run("index", docs, "--index", index).exit_code == 0
        assert run("verify", "--index", index).exit_code == 0
        assert run("list", "--index", index).stdout.count("indexed") == 60

    def test_an_empty_folder_is_said_to_be_empty(self, tmp_path):
        (tmp_path / "docs").mkdir()
        done = run("index", tmp_path / "docs", "--index", tmp_path / "index")
        assert done.exit_code == 0 and "There was nothing to read" in done.stdout
        (tmp_path / "docs/a.txt").write_text("The lighthouse keeper trims the lamp at dusk.")
        assert "nothing to read" not in run("index", tmp_path / "docs", "--index", tmp_path / "index").stdout

    def test_a_known_error_is_its_text(self, folder, monkeypatch):
        monkeypatch.setattr("semsearch.indexing.build_index", raising(IndexLocked("it is \x1b[1mbusy")))
        done = run("index", folder)
        assert done.exit_code == 2
        assert done.stderr == "semsearch: error: it is [1mbusy\n"

    @pytest.mark.parametrize("debug", [False, True])
    def test_an_unexpected_error_shows_a_traceback_only_on_request(self, folder, monkeypatch, debug):
        monkeypatch.setattr("semsearch.indexing.build_index", raising(ValueError("oops")))
        if debug:
            monkeypatch.setenv("SEMSEARCH_DEBUG", "1")
        done = run("index", folder)
        assert done.exit_code == 2
        assert "semsearch: error: unexpected ValueError: oops" in done.stderr
        assert ("Traceback" in done.stderr) == debug


class TestInfo:
    def test_facts_of_an_index(self, index, folder):
        text, facts = run("info", "--index", index), json.loads(run("info", "--index", index, "--json").stdout)
        assert text.exit_code == 0
        assert "all-MiniLM-L6-v2" in text.stdout
        assert str(folder) in text.stdout
        assert facts["index"]["path"] == index
        assert facts["index"]["files"] == 4
        assert {"python", "semsearch", "torch", "faiss-cpu"} <= set(facts["versions"])

    def test_no_index_yet_is_an_answer_but_a_named_one_must_exist(self):
        done = run("info")
        assert done.exit_code == 0
        assert "semsearch index" in done.stdout
        assert json.loads(run("info", "--json").stdout)["index"] is None
        assert run("info", "--index", "work").exit_code == 2
        assert run("info", "--index", "default").exit_code == 2

    def test_other_indexes_are_named(self, index):
        shutil.copytree(index, "indexes/work")
        done = run("info")
        assert "indexes/work" in done.stdout
        facts = json.loads(run("info", "--index", "work", "--json").stdout)
        assert facts["other_indexes"] == []

    @pytest.mark.parametrize(
        ("installed", "expected"),
        [({"faiss-cpu", "faiss-gpu"}, "pip uninstall -y faiss-cpu faiss-gpu"), (set(), "semsearch[cpu]")],
    )
    def test_it_warns_of_a_broken_faiss(self, monkeypatch, installed, expected):
        def version(name):
            return "1.15.1" if "faiss" not in name or name in installed else None

        monkeypatch.setattr("semsearch.cli.environment._version", version)
        [warning] = describe_installation().warnings
        assert expected in warning
        assert expected in run("info").stdout


class TestVerify:
    def test_a_sound_index(self, index):
        done = run("verify", "--deep", "--index", index)
        assert (done.exit_code, done.stderr) == (0, "")
        assert "is sound" in done.stdout and "DAMAGED" not in done.stdout
        assert "encoder: " in done.stdout and "all-MiniLM-L6-v2" in done.stdout
        report = json.loads(run("verify", "--index", index, "--json").stdout)
        assert report["sound"] and report["recall_at_10"] == 1.0 and report["mended"] == [] == report["to_index"]
        assert set(report["sources"]) == {"unchanged", "changed", "new", "gone"}

    def test_damage_is_shown_and_mended(self, index, tmp_path):
        copy = shutil.copytree(index, tmp_path / "copy")
        expected = run("query", "bread", "--index", index, "--json", "--no-rerank").stdout
        next(copy.glob("ann-*")).write_bytes(b"")
        done = run("query", "bread", "--index", copy)
        assert done.exit_code == 2 and f"semsearch verify --repair --index {copy}" in done.stderr
        done = run("verify", "--index", copy)
        assert done.exit_code == 1 and "DAMAGED nearest neighbours" in done.stdout
        assert f"mend it with: semsearch verify --repair --index {copy}" in done.stdout
        done = run("verify", "--repair", "--index", copy)
        assert done.exit_code == 0 and "mended  nearest neighbours" in done.stdout
        hits = json.loads(run("query", "bread", "--index", copy, "--json", "--no-rerank").stdout)["hits"]
        assert hits == json.loads(expected)["hits"]

    def test_what_cannot_be_mended_says_what_to_do(self, index, folder, tmp_path):
        copy = shutil.copytree(index, tmp_path / "copy")
        (copy / "store.db").write_bytes(bytes(20_000))
        done = run("verify", "--repair", "--index", copy)
        assert done.exit_code == 1
        assert f"mv {copy} {copy}.damaged && semsearch index" in done.stdout

    def test_what_is_lost_is_told_and_brought_back(self, index, folder, tmp_path):
        copy = shutil.copytree(index, tmp_path / "copy")
        data = (copy / "store.db").read_bytes()
        (copy / "store.db").write_bytes(data[: len(data) // 2])
        done = run("verify", "--repair", "--index", copy)
        assert done.exit_code == 1 and "has lost documents" in done.stdout and "DAMAGED" not in done.stdout
        assert "gone    " in done.stdout and f"with: semsearch index --index {copy}; give other" in done.stdout
        assert run("index", "--index", copy).exit_code == 0
        assert run("verify", "--index", copy).exit_code == 0
        assert run("list", "--index", copy).stdout == run("list", "--index", index).stdout

    def test_a_folder_in_place_of_a_file(self, index, tmp_path):
        copy = shutil.copytree(index, tmp_path / "copy")
        file = next(copy.glob("ann-*"))
        file.unlink()
        file.mkdir()
        for command in ("query bread", "verify"):
            done = run(*command.split(), "--index", copy)
            assert done.exit_code and f"semsearch verify --repair --index {copy}" in done.output
        done = run("verify", "--repair", "--index", copy)
        assert done.exit_code == 2 and f"{file} is a folder, where a file is wanted: move it away" in done.stderr
        file.rename(tmp_path / "away")
        assert run("verify", "--repair", "--index", copy).exit_code == 0

    def test_no_index(self):
        done = run("verify")
        assert done.exit_code == 2 and "semsearch index FOLDER" in done.stderr


class TestListAndRemove:
    def test_list_names_every_file_with_its_state(self, index):
        done = run("list", "--index", index)
        states = {Path(line.split(": ")[0]).name: line.split()[0] for line in done.stdout.splitlines()}
        assert done.exit_code == 0
        assert states == {
            "cooking.md": "indexed", "hostile.txt": "indexed", "ledger.txt": "indexed", "库存.txt": "indexed",
            "broken.pdf": "failed", "empty.txt": "skipped",
        }  # fmt: skip
        files = json.loads(run("list", "--index", index, "--json").stdout)["files"]
        assert {Path(f["path"]).name: f["status"] for f in files} == states

    def test_a_removed_file_is_not_found_again(self, index, folder):
        shutil.copytree(index, "indexes/copy")
        done = run("remove", folder / "cooking.md", "--index", "copy")
        assert done.exit_code == 0
        assert done.stdout.startswith("1 document and ")
        done = run("query", "loaf", "--index", "copy", "--json", "--min-probability", 0)
        paths = [h["path"] for h in json.loads(done.stdout)["hits"]]
        assert paths
        assert str(folder / "cooking.md") not in paths

    def test_removing_a_folder_forgets_it(self, index, folder):
        shutil.copytree(index, "indexes/copy")
        report = json.loads(run("remove", folder, "--index", "copy", "--json").stdout)
        assert report["documents"] == 4
        assert report["roots"] == [str(folder)]
        assert json.loads(run("info", "--index", "copy", "--json").stdout)["index"]["roots"] == []

    def test_removing_something_unknown_is_exit_1_and_names_it(self, index):
        done = run("remove", "nowhere.txt", "--index", index)
        assert done.exit_code == 1
        assert "nowhere.txt" in done.stderr

    def test_removing_without_an_index_is_an_error(self):
        assert run("remove", "x").exit_code == 2


def raising(error):
    def fail(*args, **options):
        raise error

    return fail


def test_vectors_of_tokens_are_kept_when_asked_and_told_of(folder, tmp_path):
    index = str(tmp_path / "i")

    def run(*arguments):
        done = CliRunner().invoke(cli, [*arguments, "--index", index])
        assert done.exit_code == 0, done.output
        return done.stdout

    answers, sizes = [], []
    for arguments in ([str(folder), "--token-vectors"], [], ["--no-token-vectors"], []):
        run("index", *arguments)
        sizes.append(json.loads(run("info", "--json"))["index"]["token_bytes"])
        answers.append(json.loads(run("query", "how do I bake bread", "--json"))["hits"])
        assert ("MB of it vectors of tokens" in run("info")) == (sizes[-1] > 0)
    assert sizes[0] == sizes[1] > 0 and sizes[2:] == [0, 0]
    assert answers[0] == answers[1] and answers[2] == answers[3]
    for hits in answers:
        assert hits[0]["heading"] == answers[0][0]["heading"] and hits[0]["probability"] > 0.3
    assert answers[0][0]["probability"] == pytest.approx(answers[2][0]["probability"], abs=0.05)
    assert run("verify").count("ok ") == 6
