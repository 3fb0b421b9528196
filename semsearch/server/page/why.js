/** Why a hit is where it is: its probability, what its score is the sum of, and which words met. */

import { el, foreign, percent } from "./dom.js";

const MEANINGS = {
  meaning: "how near its meaning is",
  words: "the query’s words in it",
  context: "the passages around it",
  "first stage": "the first look, by meaning and words",
  reranker: "the second look, word by word",
  neighbours: "passages like it",
  limit: "it was not read a second time",
};
const SHOWN_MATCHES = 8;
const GAP = 12; // pixels between the button and the explanation, and around it

/** `{node, tip}`: a button that says how probable a hit is, and the explanation it shows on hover and focus. */
export function why(hit, explain) {
  const id = `w${hit.chunk_id}`;
  const { probability } = hit;
  const said = probability === null ? `score ${hit.score.toFixed(2)}` : percent(probability);
  const label = probability === null ? `Score ${hit.score.toFixed(2)}` : `${percent(probability)} probable`;
  const ring = el("span", { class: "meter", "aria-hidden": "true" }, el("span", {}));
  ring.firstChild.style.setProperty("--share", String(probability ?? Math.max(0, Math.min(1, hit.score))));
  const tip = el("div", { class: "tip", role: "tooltip", id });
  const button = el("button", { type: "button", class: "chance", "aria-describedby": id, "aria-label": label }, ring, el("span", {}, said));
  const node = el("div", { class: "why" }, button, tip);
  const show = () => {
    node.classList.remove("is-shut");
    place(shown);
    explain();
  };
  node.addEventListener("pointerenter", show);
  button.addEventListener("focus", show);
  button.addEventListener("click", show);
  const shown = { node, tip, button, isFilled: false };
  fillWhy(shown, hit);
  return shown;
}

/** Show it above the button where only there is room for it: below, one can scroll to its end. */
function place({ node, tip, button }) {
  const { top, bottom } = button.getBoundingClientRect();
  const needed = tip.offsetHeight + GAP;
  node.classList.toggle("is-up", bottom + needed > innerHeight && top - needed > document.querySelector("header").offsetHeight);
}

/** Write the explanation; `hit` has `parts` and `matches` once they were asked for. */
export function fillWhy(shown, hit) {
  shown.isFilled = Boolean(hit.parts);
  const { probability, scores } = hit;
  const lead =
    probability === null
      ? `Place ${hit.rank}, by a score of ${hit.score.toFixed(3)}.`
      : `${percent(probability)} of passages with such scores answer the query. Place ${hit.rank}, by a score of ${hit.score.toFixed(3)}.`;
  const parts = Object.entries(hit.parts ?? {}).filter(([, value]) => Math.abs(value) >= 0.0005);
  const table = el("table", {}, el("caption", {}, "The score is the sum of"), el("tbody", {}, bars(parts)));
  const told = [el("p", {}, lead), parts.length ? table : null, ...met(hit.matches), measured(scores)];
  shown.tip.replaceChildren(...told.filter(Boolean));
  place(shown);
}

function bars(parts) {
  const most = Math.max(0, ...parts.map(([, value]) => Math.abs(value)));
  return parts.map(([name, value]) => {
    const bar = el("span", { class: `bar-of${value < 0 ? " is-less" : ""}` });
    bar.style.setProperty("--share", String(Math.abs(value) / (most || 1)));
    const amount = `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(3)}`;
    return el("tr", {}, el("th", { scope: "row" }, MEANINGS[name] ?? foreign(name)), el("td", {}, bar), el("td", { class: "number" }, amount));
  });
}

/** The words of the query with those they met. */
function met(matches) {
  if (!matches?.length) return [];
  const best = [...matches].sort((a, b) => b.cosine - a.cosine).slice(0, SHOWN_MATCHES);
  const pairs = best.map((match) => {
    const where = match.start === null ? " (title or heading)" : "";
    return el("li", {}, foreign(match.query), " → ", foreign(match.word), where, el("span", { class: "number" }, ` ${match.cosine.toFixed(2)}`));
  });
  return [el("p", { class: "caption" }, "Words that met"), el("ul", { class: "met" }, pairs)];
}

function measured(scores) {
  const rows = [
    ["cosine", scores.dense],
    ["words (BM25)", scores.lexical],
    ["second look", scores.rerank],
  ].filter(([, value]) => value !== null && value !== undefined);
  if (!rows.length) return null;
  return el("p", { class: "quiet" }, rows.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(" · "));
}
