/** Hits as a list: what each shows closed, opened, and in its context. */

import { count, counted, el, foreign } from "./dom.js";
import { excerpt, marksOf, passage, shifted, unitOffsets } from "./passage.js";
import { fillWhy, why } from "./why.js";

const EXCERPT_COLUMNS = 420;
const FOLD_COLUMNS = 2_600; // of an opened passage, until all of it is asked for
const WIDE_COLUMNS = 20_000; // the same, with lines around it
const CONTEXT_LINES = [5, 15, 40, 100, 250, 500];
const SHOWN_METADATA_CHARS = 300;
const SHOWN_COPIES = 20; // places where the same is said

/**
 * One hit.
 *
 * @param hit as the service gives it.
 * @param on `{open(view), like(view), context(view, lines), explain(view), copied(text)}`
 * @returns a view: `{hit, node, button, isOpen, toggle(), more(), explained(hit)}`
 */
export function hitView(hit, on) {
  const view = { hit, isOpen: false, isWhole: false, step: 0, wider: null, marks: marksOf(hit.text, hit.highlight) };
  const id = hit.chunk_id;
  view.button = el(
    "button",
    { type: "button", class: "open", id: `t${id}`, "aria-expanded": "false", "aria-controls": `b${id} d${id}`, onclick: () => on.open(view) },
    foreign(hit.title || "(no title)"),
  );
  view.why = why(hit, () => on.explain(view));
  view.body = el("div", { class: "passage", id: `b${id}`, onclick: () => !view.isOpen && isIdle() && on.open(view) });
  view.details = el("div", { class: "details", id: `d${id}`, hidden: true });
  const levels = trail(hit.heading, hit.title);
  const heading = levels.length ? el("p", { class: "trail" }, levels) : null;
  view.node = el(
    "li",
    { class: "hit", id: `h${id}` },
    el(
      "article",
      { "aria-labelledby": `t${id}` },
      el("div", { class: "head" }, el("h3", {}, view.button), view.why.node),
      heading,
      view.body,
      el("div", { class: "line" }, source(hit), likeButton(view, on)),
      view.details,
    ),
  );
  view.toggle = (isOpen = !view.isOpen) => setOpen(view, isOpen, on);
  view.more = () => widen(view, on);
  view.explained = (explained) => fillWhy(view.why, explained);
  draw(view, on);
  return view;
}

/** Where a passage stands: the end of its path, page and lines. */
export function source(hit) {
  const { path, page, line_start: first, line_end: last } = hit;
  const parts = path.split(/[\\/]/).filter(Boolean);
  const short = parts.length > 3 ? `…/${parts.slice(-3).join("/")}` : path;
  const lines = first === last ? `line ${count(first)}` : `lines ${count(first)}–${count(last)}`;
  return el(
    "p",
    { class: "source" },
    foreign(short, { class: "foreign path", title: path }),
    page === null ? null : el("span", {}, `page ${count(page)}`),
    el("span", {}, lines),
    hit.duplicates?.length ? el("span", {}, `also in ${counted(hit.duplicates.length, "other place")}`) : null,
  );
}

/** A heading path, each level on its own, without the title where it begins with that. */
export function trail(heading, title) {
  const levels = heading.split(" > ").filter((level, i) => level && (i || level !== title));
  return levels.flatMap((level, i) => [i ? el("span", { class: "step", "aria-hidden": "true" }, "›") : null, foreign(level)]);
}

function likeButton(view, on) {
  return el("button", { type: "button", class: "plain like", onclick: () => on.like(view) }, "More like this");
}

function setOpen(view, isOpen, on) {
  if (view.isOpen === isOpen) return;
  view.isOpen = isOpen;
  view.isWhole = false;
  view.wider = null;
  view.step = 0;
  view.button.setAttribute("aria-expanded", String(isOpen));
  view.node.classList.toggle("is-open", isOpen);
  view.details.hidden = !isOpen;
  draw(view, on);
}

/** What is shown of the text now: closed an excerpt, opened the passage, then lines around it. */
function draw(view, on) {
  const { hit, wider } = view;
  const text = wider ? wider.text : hit.text;
  const marks = wider ? shifted(view.marks, wider.own[0]) : view.marks;
  const focus = marks.sentence ?? (wider ? [wider.own[0], wider.own[0]] : null);
  const room = wider ? WIDE_COLUMNS : view.isOpen ? FOLD_COLUMNS : EXCERPT_COLUMNS;
  const span = view.isWhole ? [0, text.length] : excerpt(text, focus, room);
  view.body.replaceChildren(...passage(text, hit.path, marks, span, wider?.own ?? null));
  if (!view.isOpen) return;
  const isFolded = span[0] > 0 || span[1] < text.length;
  const all = isFolded
    ? el("button", { type: "button", class: "button all", onclick: () => showAll(view, on) }, `Show all ${count(text.length)} characters`)
    : null;
  const label = wider ? "Still more lines" : "More lines around it";
  const isWhole = wider?.isAll || view.step >= CONTEXT_LINES.length;
  const lines = isWhole
    ? el("span", { class: "quiet" }, wider?.isAll ? "This is the whole document." : "No more lines are shown here.")
    : el("button", { type: "button", class: "button lines", onclick: () => view.more() }, label);
  const copy = navigator.clipboard
    ? el("button", { type: "button", class: "button copy", onclick: () => copyPath(hit, on) }, "Copy path")
    : null;
  view.details.replaceChildren(el("div", { class: "actions" }, all, lines, copy), ...facts(hit));
}

function showAll(view, on) {
  view.isWhole = true;
  draw(view, on);
  view.details.querySelector("button")?.focus();
}

async function widen(view, on) {
  if (!view.isOpen) on.open(view);
  if (view.wider?.isAll || view.step >= CONTEXT_LINES.length) return;
  const button = view.details.querySelector(".lines");
  const hadFocus = document.activeElement === button;
  const found = await on.context(view, CONTEXT_LINES[view.step]);
  if (!found || !view.isOpen) return;
  const at = unitOffsets(found.text);
  view.wider = { text: found.text, own: found.passage.map(at), isAll: found.start === 0 && found.end >= found.document_chars };
  view.step += 1;
  const top = () => [...view.body.children].find((child) => !child.classList.contains("around"))?.getBoundingClientRect().top ?? 0;
  const before = top();
  draw(view, on);
  scrollBy({ top: top() - before, behavior: "instant" });
  if (hadFocus) (view.details.querySelector(".lines") ?? view.button).focus();
}

async function copyPath(hit, on) {
  try {
    await navigator.clipboard.writeText(hit.path);
    on.copied("The path is copied.");
  } catch {
    on.copied("The browser does not let pages copy here.");
  }
}

/** Where else it stands, and what is known about the document. */
function facts(hit) {
  const rows = [["Path", hit.path], ...Object.entries(hit.metadata ?? {}).map(([key, value]) => [key, written(value)])];
  const list = el("dl", { class: "facts" }, rows.map(([key, value]) => el("div", {}, el("dt", {}, foreign(key)), el("dd", {}, foreign(value)))));
  if (!hit.duplicates?.length) return [list];
  const others = hit.duplicates.slice(0, SHOWN_COPIES).map((other) => {
    const title = other.title === hit.title ? null : el("p", {}, foreign(other.title));
    return el("li", {}, title, source({ ...other, line_end: other.line_start, duplicates: [] }));
  });
  const rest = hit.duplicates.length - others.length;
  if (rest) others.push(el("li", {}, `and ${count(rest)} more`));
  return [list, el("h4", {}, "The same is said in"), el("ul", { class: "others" }, others)];
}

function written(value) {
  const text = typeof value === "string" ? value : Array.isArray(value) ? value.map(written).join(", ") : JSON.stringify(value);
  return text.length > SHOWN_METADATA_CHARS ? `${text.slice(0, SHOWN_METADATA_CHARS)}…` : text;
}

/** Whether a click was a click, not the end of selecting text. */
const isIdle = () => String(getSelection() ?? "") === "";
