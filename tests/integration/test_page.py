"""The page in a real browser, before a real service: the packaged MiniLM, and a tiny encoder that reads long texts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from semsearch import Document, build_index
from semsearch.store.files import writer_lock
from semsearch.types import Heading
from tests.checkpoints import write_bi_encoder

pytest.importorskip("playwright", reason="no playwright: pip install playwright")
pytest.importorskip("fastapi", reason="no fastapi: pip install 'semsearch[serve]'")

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 20_000  # on a busy machine; nothing waits for longer than it takes
DESK, PHONE, NARROW = (
    {"width": 1280, "height": 800},
    {"width": 390, "height": 844},
    {"width": 320, "height": 640},
)
TOKEN = "let-me-in"
BIDI = "\u202e"
INJECTED = "<img src=x onerror=\"window.injected='{}'\"><script>window.injected='{}'</script>"

BREAD = """\
---
lang: en
author: Ada
year: 2021
---
# Kitchen

## Bread

Weigh the flour, the water and the salt before anything else, and let the flour drink for half an hour 🥖🥖. Knead the
dough until it is smooth. Let the loaf rise in a warm place for an hour. Bake the bread until the crust
is brown and it sounds hollow when its underside is tapped with a knuckle. It cuts best once it is cold, the next day.

## Soup

Simmer the onions slowly in butter, for the better part of an hour, until they are sweet and the colour of hazelnuts.
Add the broth, a bay leaf and a little wine, and salt the soup only at the end, when it has boiled down to what it will
be. A slice of old bread with cheese on it, browned under the grill, belongs on top of each bowl.

## Cheese

Warm the milk until a finger can just stand it, stir in the rennet, and leave it alone until the curd has set. Cut the
curd into cubes as large as a walnut, stir them for a while in their whey, and ladle them into moulds with holes. Turn
each cheese every day for a week, rub it with salt, and keep it in a cellar that is cool and rather damp.
"""
GARDEN = """\
---
lang: en
author: Grace
year: 2023
---
# Garden

## Roses

Prune the roses in late winter, before the buds swell. Cut above a bud that faces outwards, so that air and light can
come into the middle of the bush, and take out all wood that is dead, thin or crossing. What was cut does not go on the
compost, as it may carry black spot into the next year; burn it, or give it to the town.

## Tomatoes

Tomatoes want sun and a stake to climb. Water them in the morning, at the root, and pinch out the side shoots as long
as they are short enough to be broken off with two fingers. Leaves that turn yellow at the bottom may go. Toward the end
of summer the tip is taken off too, so that what hangs there already has time to turn red before the nights are cold.
"""
STOCK = """\
---
lang: zh
author: Ada
year: 2021
---
# 仓库

## 库存

仓库里还有三箱苹果。请在周五之前把苹果发货。香蕉已经卖完了。

## 盘点

每个月的最后一天盘点仓库。
"""
HOSTILE = f"The volcano erupted at midnight {INJECTED.format('text', 'text')} and {BIDI}the ash fell on the harbour. "
HOSTILE += "a" * 300
PROVERBS = """\
A stitch in time saves nine.
Too many cooks spoil the broth.
Still waters run deep.
The early bird catches the worm.
Make hay while the sun shines.
A watched pot never boils.
Birds of a feather flock together.
Where there is smoke there is fire.
The apple does not fall far from the tree.
When the cat is away the mice will play.
All that glitters is not gold.
Look before you leap.
"""
RIVER = "The cloud passage the river stone."
LONG = " ".join([RIVER] * 150 + ["Each query a heron."] + [RIVER] * 150)


def hostile() -> Document:
    heading = Heading(0, 1, INJECTED.format("heading", "heading"))
    metadata = {"lang": "en", "author": f"{BIDI}evil", "note": INJECTED.format("meta", "meta")}
    title, path = INJECTED.format("title", "title"), "/docs/<img src=x onerror=injected=1>.md"
    return Document("hostile", HOSTILE, title=title, source=path, metadata=metadata, outline=(heading,))


def chromium() -> str:
    found = os.environ.get("SEMSEARCH_CHROMIUM") or shutil.which("chromium")
    if not found:
        pytest.skip("no Chromium: apt-get install chromium")
    return found


@dataclass
class Service:
    """A running `semsearch serve`."""

    process: subprocess.Popen[str]
    url: str
    index: Path

    @property
    def port(self) -> str:
        return str(urlsplit(self.url).port)

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(30)
        if self.process.stderr:
            self.process.stderr.close()


def serve(index: Path, *more: str) -> Service:
    command = [sys.executable, "-m", "semsearch", "serve", "--index", str(index), *(more or ("--port", "0"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SEMSEARCH_TOKEN": ""}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"http://\S+", line):
            return Service(process, match[0], index)
    raise AssertionError(f"the service ended: {process.wait()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text: the project's own pages, a few small ones, and one that means harm."""
    root = tmp_path_factory.mktemp("page")
    docs = root / "docs"
    (docs / "guides").mkdir(parents=True)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (docs / "README.md").write_text("\n".join(readme[:150]), encoding="utf-8")
    (docs / "guides" / "bread.md").write_text(BREAD, encoding="utf-8")
    (docs / "guides" / "garden.md").write_text(GARDEN, encoding="utf-8")
    (docs / "库存.md").write_text(STOCK, encoding="utf-8")
    for n, line in enumerate(PROVERBS.splitlines()):
        (docs / f"proverb-{n}.txt").write_text(line, encoding="utf-8")
    build_index(docs, index=root / "index")
    build_index([hostile()], index=root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def service(browser: Browser, index: Path) -> Iterator[Service]:
    running = serve(index)
    yield running
    running.end()


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Asks for a token, may be written to, and holds a passage of 10,000 characters."""
    root = tmp_path_factory.mktemp("guarded")
    model = write_bi_encoder(root / "model", n_positions=3072)
    build_index([Document("long", LONG), Document("short", "A stone.")], index=root / "index", model=str(model))
    running = serve(root / "index", "--port", "0", "--token", TOKEN, "--writable")
    yield running
    running.end()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages in contexts of their own. None may ask elsewhere, break the policy, or raise."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_it(url: str, *, viewport: dict[str, int] = DESK, **more: Any) -> Page:
        context = browser.new_context(viewport=viewport, **more)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        origin = "{0.scheme}://{0.netloc}/".format(urlsplit(url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((origin, "data:")) else wrong.append(r.url))
        page.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
        page.goto(url)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []


def search(page: Page, words: str) -> None:
    """Type and wait for the whole answer."""
    page.get_by_role("searchbox").fill(words)
    settle(page)


def settle(page: Page) -> None:
    expect(page.locator("#count")).to_contain_text(re.compile("passage|Nothing relevant|No "))
    expect(page.locator("#hits.is-rough, .is-searching")).to_have_count(0)


def hit(page: Page, n: int = 0) -> Locator:
    return page.locator(".hit").nth(n)


def query_of(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_typing_searches_without_enter_and_stale_answers_are_dropped(
    service: Service, open_page: Callable[..., Page]
) -> None:
    page = open_page(service.url)
    expect(page.get_by_role("heading", name="What are you looking for?")).to_be_visible()
    held: list[Route] = []
    cut: list[str] = []
    page.on("requestfailed", lambda request: cut.append(request.url))
    page.route(re.compile(r"/search\?q=roses"), lambda route: held.append(route))
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    box.press_sequentially("roses", delay=5)
    while len(held) < 2:  # the first look, and the whole answer
        page.wait_for_timeout(20)
    box.fill("knead the dough")
    settle(page)
    expect(hit(page)).to_contain_text("Knead the dough")
    assert len([url for url in cut if "q=roses" in url]) == 2
    for route in held:
        with contextlib.suppress(Exception):
            route.continue_()
    page.wait_for_timeout(300)
    expect(hit(page)).to_contain_text("Knead the dough")
    assert query_of(page)["q"] == ["knead the dough"]
    expect(page).to_have_title("knead the dough – semsearch")


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_first_look_that_comes_late_takes_nothing_back(
    service: Service, open_page: Callable[..., Page], *, is_answered: bool
) -> None:
    page = open_page(service.url)
    held: list[Route] = []
    page.route(re.compile(r"/search\?q=bread.*rerank=false"), lambda route: held.append(route))
    if not is_answered:
        page.route(re.compile(r"/search\?q=bread.*highlight"), lambda route: route.fulfill(status=500, json={}))
    page.get_by_role("searchbox").fill("bread")
    if is_answered:
        settle(page)
    else:
        expect(page.locator("#count")).to_have_text("No answer")
    assert len(held) == 1
    with page.expect_response(re.compile("rerank=false")) as response:
        held[0].continue_()
    response.value.finished()
    page.wait_for_timeout(300)
    settle(page)
    assert page.locator(".hit").count() > 0 if is_answered else page.locator(".hit").count() == 0


def test_one_request_for_words_typed_at_once(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/search?" in request.url else None)
    page.get_by_role("searchbox").press_sequentially("simmer the onions", delay=10)
    settle(page)
    whole = [url for url in asked if "highlight=true" in url]
    assert len(whole) == 1, asked
    assert len(asked) < len("simmer the onions")


def test_a_hit_shows_its_best_sentence_words_heading_and_lines(
    service: Service, open_page: Callable[..., Page]
) -> None:
    page = open_page(service.url + "?q=how+long+must+the+loaf+rise")
    settle(page)
    first = hit(page)
    expect(first.get_by_role("heading", level=3)).to_have_text("Kitchen")
    expect(first.locator(".trail")).to_have_text("Bread")
    expect(first.locator("mark")).to_have_text("Let the loaf rise in a warm place for an hour.")  # after 🥖🥖
    assert {"loaf", "rise"} <= {word.lower() for word in first.locator("mark .word").all_inner_texts()}
    expect(first.locator(".source")).to_contain_text("guides/bread.md")
    expect(first.locator(".source")).to_contain_text(re.compile(r"lines \d+–\d+"))
    assert page.get_by_role("status").first.inner_text()
    plain = re.sub(r"\s+", " ", first.locator(".prose").first.inner_text())
    assert "the crust is brown" in plain  # a line that only the margin ended


def test_a_word_that_met_one_of_the_title_is_told_apart(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=rennet+in+the+kitchen")
    settle(page)
    first = hit(page)
    page.locator(".chance").first.focus()
    expect(first.locator(".met")).to_contain_text("kitchen → Kitchen (title or heading)")
    expect(first.locator(".met")).to_contain_text(re.compile(r"rennet → rennet [\d.]+"))


def test_scores_are_explained_on_hover_and_on_focus(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=how+long+must+the+loaf+rise")
    settle(page)
    button = page.get_by_role("button", name=re.compile(r"\d+ % probable")).first
    tip = page.get_by_role("tooltip", include_hidden=True).first
    expect(tip).to_be_hidden()
    button.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("of passages with such scores answer the query")
    expect(tip.get_by_role("row").first).to_be_visible()
    parts = [float(text.replace("−", "-")) for text in tip.locator("td.number").all_inner_texts()]
    score = float(re.findall(r"score of ([\d.]+\d)", tip.inner_text())[0])
    assert len(parts) > 1
    assert sum(parts) == pytest.approx(score, abs=0.003)
    expect(tip.locator(".met")).to_contain_text("loaf → loaf")
    expect(tip.locator(".met")).not_to_contain_text("(title or heading)")
    page.mouse.move(5, 700)
    expect(tip).to_be_hidden()
    page.locator(".open").first.focus()
    page.keyboard.press("w")
    expect(button).to_be_focused()
    expect(tip).to_be_visible()
    assert button.get_attribute("aria-describedby") == tip.get_attribute("id")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    expect(button).to_be_focused()


def test_facets_and_filters_narrow_and_are_taken_away(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=let+the+loaf+rise+and+prune+the+roses")
    settle(page)
    page.get_by_role("checkbox", name=re.compile("^Grace")).check()
    settle(page)
    expect(page.locator(".path")).to_have_text([re.compile("garden.md")] * page.locator(".hit").count())
    assert query_of(page)["f.author"] == ["Grace"]
    page.get_by_role("checkbox", name=re.compile("^Ada")).check()  # its own counts were not narrowed
    expect(page.get_by_role("button", name="Remove author: Ada")).to_be_visible()
    expect(page.get_by_role("checkbox", name=re.compile("^Ada"))).to_be_focused()
    page.get_by_role("button", name="Remove author: Grace").click()
    settle(page)
    expect(page.locator(".path", has_text="garden.md")).to_have_count(0)
    expect(page.get_by_role("checkbox", name=re.compile("^Grace"))).not_to_be_checked()
    page.get_by_role("checkbox", name=re.compile("^2021")).check()  # a number is filtered as one
    expect(page.get_by_role("button", name="Remove year: 2021")).to_be_visible()
    settle(page)
    expect(hit(page)).to_be_visible()
    page.get_by_role("button", name="Clear all").click()
    settle(page)
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.get_by_role("main")).to_be_focused()
    assert set(query_of(page)) == {"q"}
    counted = page.request.get(service.url + "facets?key=type&key=author&limit=1").json()["facets"]
    assert [len(values) for values in counted.values()] == [1, 1]


def test_the_filter_box_says_in_place_what_is_wrong(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=a+warm+place+for+bread+to+rise")
    settle(page)
    before = page.locator(".hit").count()
    box = page.get_by_label("Filter", exact=True)
    box.fill("lang = zh")
    error = page.locator("#where-error")
    expect(error).to_contain_text("character 8 (zh): put text in quotes")
    expect(box).to_have_attribute("aria-invalid", "true")
    assert page.locator(".hit").count() == before
    box.fill('lang = "zh"')
    box.press("Enter")
    expect(page.get_by_role("button", name='Remove filter: lang = "zh"')).to_be_visible()
    expect(error).to_be_empty()
    settle(page)
    assert query_of(page)["where"] == ['lang = "zh"']
    page.goto(service.url + "?q=a+warm+place+for+bread+to+rise&where=lang+%3D+zh")
    expect(page.get_by_role("heading", name="The filter cannot be used.")).to_be_visible()
    page.get_by_role("button", name="Search without filters").click()
    settle(page)
    expect(hit(page)).to_be_visible()


def test_the_keyboard_is_enough(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url)
    expect(page.locator("#facets input").first).to_be_visible()
    press = page.keyboard.press
    focused = "document.activeElement.closest('.hit')?.id ?? document.activeElement.id"
    page.keyboard.type("the bread and the soup")
    settle(page)
    ids = [node.get_attribute("id") for node in page.locator(".hit").all()]
    press("ArrowDown")
    assert page.evaluate(focused) == ids[0]
    press("j")
    press("j")
    assert page.evaluate(focused) == ids[2]
    press("k")
    press("ArrowUp")
    assert page.evaluate(focused) == ids[0]
    press("Enter")
    opened = hit(page).locator(".open")
    expect(opened).to_have_attribute("aria-expanded", "true")
    expect(hit(page).locator(".facts")).to_be_visible()
    press("Escape")
    expect(opened).to_have_attribute("aria-expanded", "false")
    press("m")
    expect(page.get_by_role("heading", name=re.compile("^Passages like"))).to_be_focused()
    press("j")
    assert page.evaluate(focused) == page.locator(".hit").first.get_attribute("id")
    press("Escape")
    expect(page.locator("#like-title")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("the bread and the soup")
    press("Escape")
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(page.get_by_role("heading", name="What are you looking for?")).to_be_visible()
    page.locator("#results").focus()
    press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("/")
    expect(page.get_by_role("searchbox")).to_have_value("/")
    page.locator("#results").focus()
    press("f")
    expect(page.locator("#facets input").first).to_be_focused()
    press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.get_by_label("Letters are keys outside of text boxes").uncheck()
    press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.locator("#results").focus()
    press("?")
    press("/")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    expect(page.get_by_role("searchbox")).not_to_be_focused()


def test_a_document_cannot_inject(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=when+did+the+volcano+erupt")
    settle(page)
    first = hit(page)
    first.locator(".open").click()
    expect(first.locator(".facts")).to_be_visible()
    page.keyboard.press("c")
    expect(first.get_by_text("This is the whole document.")).to_be_visible()
    for where in ("title", "heading", "text", "meta"):
        expect(first).to_contain_text(f"<script>window.injected='{where}'</script>")
    expect(first.locator(".facts")).to_contain_text("<img src=x onerror=injected=1>.md")
    page.locator(".chance").first.focus()
    expect(first.locator(".met")).to_be_visible()
    page.keyboard.press("m")
    expect(page.locator("#like-title")).to_contain_text("<script>")
    search(page, INJECTED.format("query", "query"))
    page.goto(service.url + "?q=volcano&f.author=" + "%3Cimg%20src%3Dx%20onerror%3Dinjected%3D1%3E")
    expect(page.locator(".chip").first).to_contain_text("<img src=x onerror=injected=1>")
    assert page.evaluate("window.injected") is None
    assert page.locator("main img, main script, aside img, aside script").count() == 0


def test_foreign_directions_stay_where_they_are(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=when+did+the+volcano+erupt")
    settle(page)
    value = page.locator(".value .foreign", has_text="evil")
    assert BIDI in str(value.text_content())
    held = page.locator(".foreign, .passage p, .passage pre")
    assert set(held.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).unicodeBidi)")) == {"isolate"}
    number = page.locator(".value", has_text="evil").locator(".number")
    assert number.bounding_box()["x"] > value.bounding_box()["x"]  # type: ignore[index]


def test_chinese_is_found_marked_and_typed_with_an_input_method(
    service: Service, open_page: Callable[..., Page]
) -> None:
    page = open_page(service.url)
    expect(page.locator("#facets input").first).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/search?" in request.url else None)
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "ping guo", "selectionStart": 8, "selectionEnd": 8})
    page.wait_for_timeout(600)
    assert asked == []  # not what is still being composed
    keyboard.send("Input.insertText", {"text": "苹果什么时候发货"})
    settle(page)
    expect(hit(page).locator("mark")).to_have_text("请在周五之前把苹果发货。")
    assert "苹果" in "".join(hit(page).locator(".word").all_inner_texts())
    assert query_of(page)["q"] == ["苹果什么时候发货"]
    expect(hit(page).locator(".path")).to_contain_text("库存.md")


def test_more_lines_more_like_it_and_back(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=prune+the+roses")
    settle(page)
    first = hit(page)
    passage = first.locator(".passage")
    expect(passage).not_to_contain_text("Tomatoes want sun")
    first.locator(".open").click()
    page.get_by_role("button", name="More lines around it").click()
    expect(passage.locator(".around", has_text="Tomatoes want sun")).to_be_visible()
    page.get_by_role("button", name="Still more lines").click()
    expect(passage).to_contain_text("before the nights are cold")
    expect(passage.locator("mark")).to_contain_text("Prune the roses in late winter")
    expect(first.get_by_text("This is the whole document.")).to_be_visible()
    first.get_by_role("button", name="More like this").click()
    expect(page.get_by_role("heading", name="Passages like Garden")).to_be_visible()
    settle(page)
    expect(page.locator("#like .passage")).to_contain_text("Prune the roses")
    expect(page.locator(".hit .passage", has_text="Prune the roses")).to_have_count(0)
    assert "like" in query_of(page)
    shared = open_page(page.url)
    expect(shared.get_by_role("heading", name="Passages like Garden")).to_be_visible()
    page.get_by_role("button", name="Back").click()
    settle(page)
    expect(hit(page)).to_contain_text("Prune the roses")


def test_where_the_same_is_said_is_listed_by_title(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    hours = "It opens at nine in the morning and closes at five."
    towns = [Document(f"t{i}", hours, title=f"Town {i}", source=f"/towns/{i}.txt") for i in range(30)]
    build_index([*towns, Document("same", hours, title="Town 0", source="/same/0.txt")], index=tmp_path / "index")
    running = serve(tmp_path / "index")
    try:
        page = open_page(running.url + "?q=when+does+Town+0+open")
        settle(page)
        hit(page).locator(".open").click()
        copies = hit(page).locator(".others > li")
        expect(copies).to_have_count(21)
        expect(copies.last).to_have_text("and 10 more")
        told = copies.all_inner_texts()
        assert len(set(told)) == 21 and sum("Town" in text for text in told) in (19, 20)
        assert not any("Town 0" in text for text in told)
    finally:
        running.end()


def test_the_address_can_be_shared_and_gone_back_through(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url)
    expect(page.locator("#facets input").first).to_be_visible()
    page.get_by_role("searchbox").press_sequentially("the bread and the soup", delay=5)
    settle(page)
    page.get_by_role("checkbox", name=re.compile("^Ada")).check()
    expect(page.locator(".chip")).to_have_count(1)
    settle(page)
    second = hit(page, 1)
    second.locator(".open").click()
    name = second.get_attribute("id")
    shared = open_page(page.url)
    settle(shared)
    expect(shared.locator(f"#{name} .open")).to_have_attribute("aria-expanded", "true")
    expect(shared.locator(f"#{name} .open")).to_be_focused()
    expect(shared.get_by_role("checkbox", name=re.compile("^Ada"))).to_be_checked()
    expect(shared.get_by_role("searchbox")).to_have_value("the bread and the soup")
    page.go_back()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("the bread and the soup")
    page.go_back()  # all that was typed is one step
    expect(page.get_by_role("heading", name="What are you looking for?")).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.go_forward()
    page.go_forward()
    expect(page.locator(".chip")).to_have_count(1)
    settle(page)
    page.goto(service.url + "?q=bread&hit=999999")
    expect(page.get_by_text("The passage that the link points to is not among these.")).to_be_visible()


def test_dark_and_light_follow_the_system_until_chosen(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"

    def is_dark() -> bool:
        return max(map(int, re.findall(r"\d+", page.evaluate(paper))[:3])) < 80

    toggle = page.get_by_role("button", name="Dark colours")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    assert is_dark()
    page.emulate_media(color_scheme="light")
    assert not is_dark()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    toggle.click()
    assert is_dark()
    page.reload()
    assert is_dark()
    expect(toggle).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("viewport", [PHONE, NARROW], ids=["phone", "narrow"])
def test_a_phone_needs_no_sideways_scrolling(
    service: Service, open_page: Callable[..., Page], viewport: dict[str, int]
) -> None:
    page = open_page(service.url, viewport=viewport, has_touch=True, is_mobile=True)

    def fits() -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth") == viewport["width"]

    expect(page.locator("#facts")).not_to_be_empty()
    assert fits()
    search(page, "how does the volcano erupt over https://example.org/" + "a" * 200)
    assert fits()
    page.goto(service.url + "?q=volcano&f.lang=en&where=" + "lang+%3D+%22en%22+or+" * 4 + "lang+%3D+%22en%22")
    settle(page)
    hit(page).locator(".open").tap()
    expect(hit(page).locator(".facts")).to_be_visible()
    assert fits()
    page.locator(".chance").first.tap()
    expect(page.get_by_role("tooltip").first).to_be_visible()
    box = page.get_by_role("tooltip").first.bounding_box()
    header = page.locator("header").bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
    assert header and box["y"] >= header["y"] + header["height"]
    assert fits()
    filters = page.get_by_role("button", name="Filters", exact=True)
    expect(page.locator("#where")).to_be_hidden()
    filters.tap()
    expect(filters).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#where")).to_be_visible()
    assert fits()


def test_nothing_relevant_is_said_and_the_nearest_can_be_seen(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=zxqv+blorf+wjjk")
    expect(page.get_by_role("heading", name="Nothing here answers that.")).to_be_visible()
    expect(page.locator("#state")).to_contain_text(re.compile(r"with a probability of <?\d %"))
    expect(page.locator("#count")).to_contain_text("Nothing relevant: at best")
    expect(page.locator(".hit")).to_have_count(0)
    page.get_by_role("button", name="Show the nearest all the same").click()
    settle(page)
    expect(hit(page)).to_be_visible()
    assert query_of(page)["all"] == ["1"]
    page.goto(service.url + "?q=bread&where=year+%3E+3000")
    expect(page.get_by_role("heading", name="No passage passes the filters.")).to_be_visible()


def test_more_hits_are_added_below(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=an+old+proverb&all=1&f.type=txt")
    settle(page)
    expect(page.locator(".hit")).to_have_count(10)
    onward = page.get_by_role("button", name="More hits")
    first = hit(page).get_attribute("id")
    onward.click()
    expect(page.locator(".hit").nth(10)).to_be_visible()
    settle(page)
    assert page.locator(".hit").count() > 10
    assert hit(page).get_attribute("id") == first
    expect(page.locator(".hit").nth(10).locator(".open")).to_be_focused()


def test_motion_is_left_out_where_it_is_not_wanted(service: Service, open_page: Callable[..., Page]) -> None:
    durations = {}
    for wish in ("no-preference", "reduce"):
        page = open_page(service.url + "?q=bread", reduced_motion=wish)
        settle(page)
        durations[wish] = page.evaluate("parseFloat(getComputedStyle(document.querySelector('#q')).transitionDuration)")
    assert durations["reduce"] < 0.001 < durations["no-preference"]


def test_a_service_that_dies_is_told_of_and_found_again(index: Path, open_page: Callable[..., Page]) -> None:
    running = serve(index)
    try:
        page = open_page(running.url + "?q=prune+the+roses")
        settle(page)
        running.process.send_signal(signal.SIGSTOP)
        with page.expect_request(re.compile("highlight=true")):
            page.get_by_role("searchbox").fill("knead the dough")
        running.end(signal.SIGKILL)
        alert = page.get_by_role("alert").filter(has_text="The service does not answer")
        expect(alert).to_be_visible()
        expect(alert.get_by_role("button", name="Try now")).to_be_visible()
        expect(hit(page)).to_contain_text("Prune the roses")  # what was there stays
        alert.get_by_role("button", name="Try now").click()
        expect(alert).to_be_visible()
        assert serious(page) == []
        port = running.port
        running = serve(index, "--port", port)
        expect(alert).to_have_count(0)
        expect(hit(page)).to_contain_text("Knead the dough")
    finally:
        running.end(signal.SIGKILL)


def test_a_token_is_asked_for_and_kept_for_the_tab(guarded: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(guarded.url + "?q=heron")
    dialog = page.get_by_role("dialog", name="This service asks for a token")
    expect(dialog).to_be_visible()
    assert serious(page) == []
    dialog.get_by_label("Token").fill("wrong")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_text("The service did not take that token.")).to_be_visible()
    enter(page)
    assert TOKEN not in page.url
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie").find(TOKEN) < 0
    assert TOKEN in page.evaluate("JSON.stringify(sessionStorage)")
    page.reload()
    settle(page)
    expect(hit(page)).to_be_visible()
    expect(dialog).to_be_hidden()


def enter(page: Page) -> None:
    dialog = page.get_by_role("dialog", name="This service asks for a token")
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_be_hidden()
    settle(page)


def test_a_passage_of_10_000_characters_is_folded(guarded: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(guarded.url + "?q=heron", viewport=PHONE)
    enter(page)
    first = hit(page)
    assert len(LONG) > 10_000
    expect(first.locator("mark")).to_have_text("Each query a heron.")
    passage = first.locator(".passage")
    assert len(passage.inner_text()) < 600
    first.locator(".open").click()
    expect(passage.locator("mark")).to_be_visible()
    assert len(passage.inner_text()) < 4_000
    page.get_by_role("button", name=f"Show all {len(LONG):,} characters").click()
    expect(passage).to_have_text(LONG)
    expect(page.get_by_role("button", name=re.compile("Show all"))).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_changes_of_the_index_are_told_and_taken_in(guarded: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(guarded.url + "?q=a+lantern")
    enter(page)
    documents = [{"id": f"lantern-{n}", "text": f"{LONG} A lantern {n}."} for n in range(20)]
    send = """([documents, token]) => {
        const headers = {"Content-Type": "application/json", Authorization: `Bearer ${token}`};
        fetch("index/documents", {method: "POST", headers, body: JSON.stringify({documents})});
    }"""
    watcher = open_page(guarded.url + "?q=a+lantern")
    enter(watcher)
    note = watcher.get_by_text("The index is being changed.")
    with writer_lock(guarded.index):  # the change waits for it, and is long enough to be seen
        page.evaluate(send, [documents, TOKEN])
        watcher.reload()
        expect(note).to_be_visible()
    expect(note).to_be_hidden(timeout=4 * PATIENCE_MS)
    expect(watcher.locator(".hit").first).to_contain_text("lantern")
    gone = [*(document["id"] for document in documents), "long", "short"]
    remove = """async ([ids, token]) => {
        const headers = {"Content-Type": "application/json", Authorization: `Bearer ${token}`};
        return (await fetch("index/documents", {method: "DELETE", headers, body: JSON.stringify({ids})})).status;
    }"""
    assert watcher.evaluate(remove, [gone, TOKEN]) == 200
    watcher.goto(guarded.url)
    expect(watcher.get_by_role("heading", name="This index is empty.")).to_be_visible()


def serious(page: Page) -> list[str]:
    """What axe-core finds serious or critical."""
    import axe_playwright_python

    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(f"() => {{ if (!window.axe) {{ {axe} }} }}")
    page.wait_for_timeout(350)  # colours are measured once nothing fades
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{v['id']}: {json.dumps([node['html'] for node in v['nodes']])}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(service: Service, open_page: Callable[..., Page], scheme: str) -> None:
    page = open_page(service.url, color_scheme=scheme)
    expect(page.locator("#facets input").first).to_be_visible()
    assert serious(page) == []
    search(page, "the bread and the soup")
    page.get_by_role("checkbox", name=re.compile("^Ada")).check()
    expect(page.locator(".chip")).to_have_count(1)
    settle(page)
    if scheme == "light":
        assert serious(page) == []
    hit(page).locator(".open").click()
    page.keyboard.press("c")
    expect(page.locator(".around").first).to_be_visible()
    page.keyboard.press("w")
    expect(page.get_by_role("tooltip").first).to_be_visible()
    expect(page.locator(".met").first).to_be_visible()
    assert serious(page) == []
    page.goto(service.url + "?q=bread&where=nosuch+%3D+1")
    expect(page.get_by_role("heading", name="The filter cannot be used.")).to_be_visible()
    assert serious(page) == []


def test_the_page_is_told_apart_by_ear(service: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(service.url + "?q=the+bread+and+the+soup")
    settle(page)
    for role in ("banner", "search", "main", "complementary", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.get_by_role("status").filter(has_text=re.compile(r"passages? in [\d,]+ ms"))).to_have_count(1)
    expect(page.get_by_role("article", name="Kitchen").first).to_be_visible()
    assert page.get_by_role("heading", level=3).count() == page.locator(".hit").count()
    page.get_by_role("link", name="Skip to the hits").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.get_by_role("searchbox").focus()
    order = []
    for _ in range(60):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.closest('header, aside, .hit')?.className ?? ''"))
    seen = [name for i, name in enumerate(order) if i == 0 or name != order[i - 1]]
    assert [name.split()[0] for name in seen[:3]] == ["top", "side", "hit"]
