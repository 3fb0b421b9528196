/** A passage as paragraphs, code and headings, with marks: what can be read from its text alone. */

import { el } from "./dom.js";

const CODE_FILES = /\.(py|pyi|sh|bash|js|mjs|ts|tsx|jsx|c|h|cc|cpp|hpp|rs|go|java|kt|rb|php|sql|toml|ya?ml|json|css|xml|ini|cfg|tex|lua|pl|r)$/i;
const FENCE = /^\s*(```|~~~)/;
const ITEM = /^\s*([-*+•·]|\d{1,3}[.)]|\(?[a-z]\))\s+/;
const HEADING = /^(#{1,6})\s+(?=\S)/;
const RULE = /^\s*([=\-~^"*#_+:.`])\1{2,}\s*$/;
const SIGNS = /[{}()[\];=<>$|\\`_*#@&]/g;
const WIDE = /[\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60]/;
const SOFT_WRAP_FROM = 45; // columns; shorter lines end where their author ended them

/** Offsets in characters (code points), as the service counts, to those of a JavaScript string. */
export function unitOffsets(text) {
  if (!/[\ud800-\udbff][\udc00-\udfff]/.test(text)) return (n) => n;
  const starts = [];
  for (let i = 0; i < text.length; i += text.codePointAt(i) > 0xffff ? 2 : 1) starts.push(i);
  starts.push(text.length);
  return (n) => starts[Math.min(n, starts.length - 1)];
}

/** What the service wants pointed at, in units: `{sentence: [start, end] | null, words: [[start, end], …]}`. */
export function marksOf(text, highlight) {
  if (!highlight) return { sentence: null, words: [] };
  const at = unitOffsets(text);
  return {
    sentence: [at(highlight.start), at(highlight.end)],
    words: highlight.words.map(([start, end]) => [at(start), at(end)]),
  };
}

/** The same marks where the text begins `by` units earlier. */
export function shifted({ sentence, words }, by) {
  return { sentence: sentence && sentence.map((n) => n + by), words: words.map((word) => word.map((n) => n + by)) };
}

/** The part of a text to show: as much around the marked sentence as `room` columns hold. Units. */
export function excerpt(text, sentence, room) {
  const [from, to] = sentence ?? [0, 0];
  let start = from;
  let left = Math.max(0, room / 3);
  if (cost(text, 0, from, left) <= left) start = 0;
  else {
    left = Math.min(left, Math.max(0, room - cost(text, from, to, room)));
    while (start > 0 && (left -= width(text[start - 1])) > 0) start -= 1;
    start = wordStart(text, start, from);
  }
  let end = start;
  for (let rest = room; end < text.length && (rest -= width(text[end])) > 0; ) end += 1;
  if (end < text.length) end = wordEnd(text, end, start);
  return [start, end];
}

/** A text between two offsets as elements; `path` tells prose from code. */
export function passage(text, path, marks, [start, end] = [0, text.length], own = null) {
  const found = blocks(text, CODE_FILES.test(path)).filter((block) => block.end > start && block.start < end);
  const nodes = found.map((block) => {
    const [from, to] = [Math.max(start, block.start), Math.min(end, block.end)];
    const shown = block.kind === "code" ? text.slice(block.start, block.end) : unwrapped(text, block);
    const isAround = own && (to <= own[0] || from >= own[1]);
    const pieces = marked(shown, block.start, from, to, marks);
    if (from === start && start > 0) pieces.unshift("… ");
    if (to === end && end < text.length) pieces.push(" …");
    return el(block.kind === "code" ? "pre" : "p", { class: `${block.kind}${isAround ? " around" : ""}`, dir: "auto" }, pieces);
  });
  return nodes.length ? nodes : [el("p", {}, "…")];
}

const width = (char) => (char === "\n" ? 45 : WIDE.test(char) ? 1.7 : 1);

function cost(text, start, end, limit) {
  let sum = 0;
  for (let i = start; i < end && sum <= limit; i += 1) sum += width(text[i]);
  return sum;
}

function wordStart(text, start, limit) {
  const at = text.slice(start, Math.min(limit, start + 24)).search(/\s\S/);
  const found = at < 0 ? start : start + at + 1;
  return isLow(text, found) ? found - 1 : found;
}

function wordEnd(text, end, limit) {
  const tail = text.slice(Math.max(limit, end - 24), end);
  const at = tail.search(/\s\S*$/);
  const found = at < 0 ? end : end - tail.length + at;
  return isLow(text, found) ? found - 1 : found;
}

/** Whether an offset lies within a character of two units. */
const isLow = (text, at) => /[\udc00-\udfff]/.test(text[at] ?? "") && /[\ud800-\udbff]/.test(text[at - 1] ?? "");

/** Strings and elements for what lies in [from, to); `shown` is the block's text, which begins at `base`. */
function marked(shown, base, from, to, { sentence, words }) {
  const plain = (start, end) => {
    const nodes = [];
    let at = start;
    for (const [a, b] of words) {
      const [first, last] = [Math.max(a, at), Math.min(b, end)];
      if (first >= last) continue;
      nodes.push(shown.slice(at - base, first - base), el("b", { class: "word" }, shown.slice(first - base, last - base)));
      at = last;
    }
    return [...nodes, shown.slice(at - base, end - base)];
  };
  const [a, b] = sentence ? [clamp(sentence[0], from, to), clamp(sentence[1], from, to)] : [from, from];
  if (a >= b) return plain(from, to);
  return [...plain(from, a), el("mark", {}, plain(a, b)), ...plain(b, to)];
}

const clamp = (n, low, high) => Math.max(low, Math.min(high, n));

/** `[{kind: "prose" | "item" | "heading" | "code", start, end}, …]`; blank lines, rules and fences are left out. */
export function blocks(text, isCode) {
  if (isCode) return /\S/.test(text) ? [{ kind: "code", start: 0, end: text.trimEnd().length }] : [];
  const found = [];
  let isOpen = beginsInFence(text);
  let before = "blank";
  for (const run of runs(text)) {
    if (FENCE.test(run.line)) {
      isOpen = !isOpen;
      before = "blank";
    } else if (!/\S/.test(run.line) || (!isOpen && RULE.test(run.line))) {
      before = before === "code" && !/\S/.test(run.line) ? "code-gap" : isOpen ? before : "blank";
    } else {
      const kind = isOpen ? "code" : kindOf(run.line, before, found.at(-1)?.kind);
      const goes = kind === before || (kind === "code" && before === "code-gap") || (kind === "prose" && before === "item");
      const isNew = !goes || !found.length || kind === "heading" || kind === "item";
      if (isNew) found.push({ kind, ...headless(run, kind) });
      else found[found.length - 1].end = run.end;
      before = isNew ? kind : found.at(-1).kind;
    }
  }
  return found;
}

function* runs(text) {
  for (let start = 0; start < text.length; ) {
    const newline = text.indexOf("\n", start);
    const end = newline < 0 ? text.length : newline;
    yield { start, end, line: text.slice(start, end) };
    start = end + 1;
  }
}

/** Whether a passage was cut out of the middle of a code block: its first fence closes one. */
function beginsInFence(text) {
  const fences = text.split("\n").filter((line) => FENCE.test(line));
  return fences.length % 2 === 1 && /^\s*(```+|~~~+)\s*$/.test(fences[0]);
}

function kindOf(line, before, last) {
  if (HEADING.test(line)) return "heading";
  if (ITEM.test(line)) return "item";
  const isIndented = /^( {4}|\t)/.test(line);
  if (isIndented && (before === "code" || before === "code-gap")) return "code";
  if (/^\s*\|.*\|\s*$/.test(line)) return "code";
  const signs = (line.match(SIGNS) ?? []).length / Math.max(1, line.replace(/\s/g, "").length);
  const isCode = isIndented && before !== "prose" && before !== "item" && last !== "item" && (signs > 0.08 || /^\s*(>>>|\$ )/.test(line));
  return isCode ? "code" : "prose";
}

/** A line without the signs that make it a heading. */
function headless({ start, end, line }, kind) {
  if (kind !== "heading") return { start, end };
  const anchor = line.match(/\s*\{\s*#[^}]*\}\s*$|\s+#+\s*$/);
  return { start: start + line.match(HEADING)[0].length, end: anchor ? start + anchor.index : end };
}

/** A block's text, as long as before, where lines that only a margin ended run on. */
function unwrapped(text, { start, end }) {
  const lines = text.slice(start, end).split("\n");
  let shown = lines[0];
  for (let i = 1; i < lines.length; i += 1) {
    const isSoft = cost(lines[i - 1], 0, lines[i - 1].length, 400) >= SOFT_WRAP_FROM && !/^\s*[|>:]|^\s*\.\. /.test(lines[i]);
    const isWide = WIDE.test(lines[i - 1].at(-1) ?? "") && WIDE.test(lines[i][0] ?? "");
    shown += (isSoft ? (isWide ? "\u200b" : " ") : "\n") + lines[i];
  }
  return shown;
}
