/** Values of fields to tick, and chips for what is in use. */

import { count, el, foreign } from "./dom.js";
import { pick, whereOf } from "./link.js";

// nearly one value a document, or what a field of every index says already
const NOT_COUNTED = new Set(["path", "title", "modified", "language", "metadata.lang", "metadata.path", "metadata.title"]);
const MAX_FIELDS = 8;
const SHOWN_VALUES = 6;
const MOST_VALUES = 100; // of a field that is worth choosing from

const LEAST_SHARE = 0.05; // of the documents that have a field, unless every index has it

const names = { type: "Type", lang: "Language" };
const unfolded = new Set();

/** The fields to count, those that every index has first. */
export function countable(fields) {
  const known = ["type", "lang"].filter((field) => fields.includes(field));
  return [...known, ...fields.filter((field) => !NOT_COUNTED.has(field) && !known.includes(field))].slice(0, 16);
}

/** Those fields whose values set documents apart, of an index of so many documents. */
export async function helpful(fields, documents, ask) {
  const answer = await ask("facets", [...fields.map((field) => ["key", field]), ["limit", String(MOST_VALUES + 1)]]);
  const all = new Map(Object.entries(answer.facets));
  return fields.filter((field) => isHelpful(field, all.get(field) ?? [], documents)).slice(0, MAX_FIELDS);
}

/**
 * Count the values of fields under a state's filter; what is ticked of a field does not narrow that field's own counts.
 *
 * @param ask `(path, params) => answer`
 * @returns field -> [{value, documents, passages}, …]
 */
export async function counts(helpful, state, ask) {
  const fields = [...new Set([...helpful, ...state.picked.keys()])];
  const ticked = fields.filter((field) => state.picked.has(field));
  const others = fields.filter((field) => !state.picked.has(field));
  const groups = [others, ...ticked.map((field) => [field])].filter((group) => group.length);
  const answers = await Promise.all(
    groups.map((group) => {
      const where = whereOf(state, state.picked.has(group[0]) ? group[0] : null);
      const asked = ask("facets", [...group.map((field) => ["key", field]), ["limit", String(MOST_VALUES)], ...(where ? [["where", where]] : [])]);
      return helpful.includes(group[0]) ? asked : asked.catch(unknown);
    }),
  );
  const all = new Map(answers.flatMap((answer) => Object.entries(answer.facets)));
  return new Map(fields.map((field) => [field, all.get(field) ?? []]));
}

/** A link may name a field that no document has. */
function unknown(error) {
  if (error.kind !== "asked") throw error;
  return { facets: {} };
}

function isHelpful(field, values, documents) {
  const least = field in names ? 2 : Math.max(2, LEAST_SHARE * documents);
  const n = values.reduce((sum, { documents: own }) => sum + own, 0);
  const isOneForAll = values.length === 1 && n >= documents;
  return values.length > 0 && values.length <= MOST_VALUES && n >= least && n > values.length && !isOneForAll;
}

/** Show the values of each field with a box to tick; `on(field, value, isWanted)` hears of it. */
export function drawFacets(place, found, state, on) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const redraw = () => drawFacets(place, found, state, on);
  place.replaceChildren(...[...found].map(([field, values]) => group(field, values, state, on, redraw)));
  if (focused) [...place.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused)?.focus();
}

function group(field, values, state, on, redraw) {
  const ticked = state.picked.get(field) ?? [];
  const absent = ticked.filter((value) => !values.some((other) => other.value === value));
  const all = [...values, ...absent.map((value) => ({ value, documents: 0 }))];
  const isAll = unfolded.has(field) || all.length <= SHOWN_VALUES + 1;
  const shown = isAll ? all : all.filter(({ value }, i) => i < SHOWN_VALUES || ticked.includes(value));
  const boxes = shown.map(({ value, documents }) => {
    const key = JSON.stringify([field, value]);
    const box = el("input", { type: "checkbox", "data-key": key, onchange: (event) => on(field, value, event.target.checked) });
    box.checked = ticked.includes(value);
    return el("label", { class: `value${documents ? "" : " is-none"}` }, box, foreign(String(value)), el("span", { class: "number" }, count(documents)));
  });
  const onward = isAll
    ? null
    : el("button", { type: "button", class: "plain", "data-key": `all ${field}`, onclick: () => (unfolded.add(field), redraw()) }, `All ${count(all.length)}`);
  return el("fieldset", {}, el("legend", {}, foreign(names[field] ?? field)), boxes, onward);
}

/** Show what narrows the search, each with a button to take it away; `on(state)` hears what is left. */
export function drawChips(place, state, on) {
  const chips = [];
  for (const [field, values] of state.picked) {
    for (const value of values) {
      const picked = new Map(state.picked);
      pick(picked, field, value, false);
      chips.push(chip(field, String(value), () => on({ picked })));
    }
  }
  if (state.where.trim()) chips.push(chip("filter", state.where.trim(), () => on({ where: "" })));
  if (state.all) chips.push(chip("nearest", "even if improbable", () => on({ all: false })));
  if (chips.length > 1) {
    const clear = () => on({ picked: new Map(), where: "", all: false });
    chips.push(el("button", { type: "button", class: "plain", onclick: clear }, "Clear all"));
  }
  const hadFocus = place.contains(document.activeElement);
  place.replaceChildren(...chips);
  if (hadFocus) (chips[0] ?? place.closest("main")).focus();
}

function chip(name, value, remove) {
  return el(
    "button",
    { type: "button", class: "chip", onclick: remove, "aria-label": `Remove ${name}: ${value}` },
    el("span", { class: "name" }, foreign(name)),
    foreign(value),
    el("span", { class: "cross", "aria-hidden": "true" }, "×"),
  );
}
