/** What is shown where there are no hits, and notes above those there are. */

import { count, counted, el, foreign, percent } from "./dom.js";
import { passage, excerpt } from "./passage.js";
import { source, trail } from "./hits.js";

/** Before anything was asked. */
export function welcome(index) {
  if (!index) return panel("", []);
  if (!index.documents) {
    const command = `semsearch index FOLDER --index ${index.name}`;
    return panel("This index is empty.", [
      index.writing ? el("p", {}, "Documents are being added now; they can be found as soon as that is done.") : el("p", {}, "Fill it, then search: ", el("code", {}, command)),
    ]);
  }
  return panel("What are you looking for?", [
    el("p", {}, `${counted(index.documents, "document")} in ${counted(index.chunks, "passage")}, searched on this machine by meaning and by words.`),
    el("p", { class: "keys" }, el("kbd", {}, "/"), " to type, ", el("kbd", {}, "j"), " ", el("kbd", {}, "k"), " to move, ", el("kbd", {}, "Enter"), " to open, ", el("kbd", {}, "?"), " for all keys"),
  ]);
}

/** A search that found nothing worth showing. `on` is `{all(), clear()}`. */
export function nothingFound(best, isFiltered, on) {
  const clear = isFiltered ? button("Search without filters", on.clear) : null;
  if (best === null) {
    return panel(isFiltered ? "No passage passes the filters." : "No passage was found.", [el("div", { class: "actions" }, clear)]);
  }
  return panel("Nothing here answers that.", [
    el("p", {}, `The nearest passage would do so with a probability of ${percent(best)}. Other words may find more.`),
    el("div", { class: "actions" }, button("Show the nearest all the same", on.all), clear),
  ]);
}

/** A search that failed; `clear` where it may go without filters. */
export function failed(title, text, retry, clear = null) {
  const buttons = [button("Try again", retry), clear ? button("Search without filters", clear) : null];
  return panel(title, [text ? el("p", {}, text) : null, el("div", { class: "actions" }, buttons)]);
}

/** A line above the hits: `kind` is gone or quiet; `retry` adds a button. */
export function note(kind, text, retry = null) {
  const again = retry ? button("Try now", retry) : null;
  return el("div", { class: `note is-${kind}`, role: kind === "gone" ? "alert" : "status" }, el("p", {}, text), again);
}

/** The passage that others are like. */
export function likeHead(found, leave) {
  const span = excerpt(found.text, null, 240);
  return el(
    "section",
    { class: "like-head", "aria-labelledby": "like-title" },
    el("div", { class: "head" }, el("h3", { id: "like-title", tabindex: "-1" }, "Passages like ", foreign(found.title)), el("button", { type: "button", class: "plain", onclick: leave }, "Back")),
    el("p", { class: "trail" }, trail(found.heading, found.title)),
    el("div", { class: "passage" }, passage(found.text, found.path, { sentence: null, words: [] }, span)),
    source(found),
  );
}

/** The foot of the page. */
export function facts(index) {
  const size = index.bytes < 1e6 ? `${count(Math.ceil(index.bytes / 1e3))} KB` : `${count(Math.round(index.bytes / 1e6))} MB`;
  return [foreign(index.name), `${counted(index.documents, "document")}, ${counted(index.chunks, "passage")}`, size, foreign(index.model), `semsearch ${index.version}`]
    .flatMap((part, i) => [i ? " · " : "", part])
    .filter((part) => part !== "");
}

const button = (text, act) => el("button", { type: "button", class: "button", onclick: act }, text);

function panel(title, children) {
  return el("section", { class: "panel" }, title ? el("h3", {}, title) : null, children);
}
