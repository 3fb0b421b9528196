/** The keyboard: letters act outside of text boxes, and can be turned off. */

import { byId } from "./dom.js";

const LETTERS_KEY = "semsearch.letters";

/** Listen. `page` is `{box, views(), on, state(), clear(), leaveLike()}`. */
export function addKeys(page) {
  const help = byId("keys");
  const letters = byId("letters");
  letters.checked = remembered() !== "off";
  letters.addEventListener("change", () => remember(letters.checked ? "on" : "off"));
  byId("help").addEventListener("click", () => help.showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog === help && dialog.close());
  }
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const act = actionFor(event, page, letters.checked, help);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function actionFor(event, page, hasLetters, help) {
  const { key, target } = event;
  const views = page.views();
  const at = views.findIndex((view) => view.node.contains(document.activeElement));
  const view = views[at];
  if (key === "Escape") return () => escape(page, view);
  if (target === page.box) return key === "ArrowDown" && views.length ? () => focusOn(views[0]) : null;
  if (target.matches("input:not([type=checkbox]), textarea, select")) return null;
  const isInList = at >= 0 || target === document.body || target.closest("main");
  if (key === "ArrowDown" && isInList) return () => focusOn(views[Math.min(views.length - 1, at + 1)]);
  if (key === "ArrowUp" && isInList) return () => (at > 0 ? focusOn(views[at - 1]) : page.box.focus());
  if (!hasLetters) return null;
  const chosen = view ?? views.find((each) => each.hit.chunk_id === page.state().hit);
  const acts = {
    "/": () => toBox(page.box),
    "?": () => help.showModal(),
    f: toFilters,
    j: () => focusOn(views[Math.min(views.length - 1, at + 1)]),
    k: () => (at > 0 ? focusOn(views[at - 1]) : page.box.focus()),
    m: chosen && (() => page.on.like(chosen)),
    c: chosen && (() => chosen.more()),
    w: chosen && (() => chosen.why.button.focus()),
  };
  return Object.hasOwn(acts, key) ? acts[key] : null;
}

/** One step back: an explanation, an open hit, the passage that others are like, the words typed. */
function escape(page, view) {
  const tip = document.activeElement?.closest(".why") ?? document.querySelector(".why:hover");
  if (tip && !tip.classList.contains("is-shut")) {
    tip.classList.add("is-shut");
    return;
  }
  if (document.activeElement === page.box) {
    if (page.state().like !== null) page.leaveLike();
    else if (page.box.value) page.clear();
    return;
  }
  if (view?.isOpen) {
    view.toggle(false);
    view.button.focus();
  } else if (page.state().like !== null) page.leaveLike();
  else page.box.focus();
}

function focusOn(view) {
  view?.button.focus();
}

function toBox(box) {
  box.focus();
  box.select();
}

function toFilters() {
  if (byId("fold").offsetParent && byId("fold").getAttribute("aria-expanded") === "false") byId("fold").click();
  (document.querySelector("#facets input") ?? byId("where")).focus();
}

function remembered() {
  try {
    return localStorage.getItem(LETTERS_KEY);
  } catch {
    return null;
  }
}

function remember(value) {
  try {
    localStorage.setItem(LETTERS_KEY, value);
  } catch {
    // then until the page is left
  }
}
