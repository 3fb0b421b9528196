/** The filters at the side: counts to tick, and a box for the grammar. */

import { ask } from "./api.js";
import { byId } from "./dom.js";
import { countable, counts, drawFacets, helpful } from "./facets.js";
import { pick } from "./link.js";

const TYPING_MS = 500;

/** Whether a failure is about the filter. */
export const isFilterError = (error) => error.field === "where" || /^the filter/.test(error.message);

/** `{recount(), learn(index), reset()}`; `page` is `{state(), change(changes), stumble(error)}`. */
export function addFilters(page) {
  const box = byId("where");
  let fields = [];
  let counting = new AbortController();
  let timer = 0;

  /** Count again under the present filter. */
  async function recount() {
    counting.abort();
    counting = new AbortController();
    const { signal } = counting;
    const state = page.state();
    try {
      const found = await counts(fields, state, (path, params) => ask(path, params, signal));
      if (signal.aborted) return;
      accept();
      drawFacets(byId("facets"), found, state, tick);
    } catch (error) {
      if (!signal.aborted && error.kind === "asked" && isFilterError(error) && state.where.trim()) refuse(error);
    }
  }

  /** Find out what is worth counting. */
  async function learn(index) {
    fields = await helpful(countable(index.fields), index.documents, ask).catch(() => fields);
    await recount();
  }

  function tick(field, value, isWanted) {
    const picked = new Map(page.state().picked);
    pick(picked, field, value, isWanted);
    page.change({ picked });
  }

  function refuse(error) {
    byId("where-error").textContent = error.message;
    box.setAttribute("aria-invalid", "true");
  }

  function accept() {
    byId("where-error").textContent = "";
    box.removeAttribute("aria-invalid");
  }

  /** Show the state's filter. */
  function reset() {
    clearTimeout(timer);
    if (box.value.trim() !== page.state().where.trim()) box.value = page.state().where;
    accept();
  }

  /** Try a filter by itself, so that the service points at the right character; then use it. */
  async function use() {
    clearTimeout(timer);
    const where = box.value;
    if (where.trim() === page.state().where.trim()) return accept();
    try {
      if (where.trim()) await ask("facets", [["key", "type"], ["limit", "1"], ["where", where.trim()]]);
      if (box.value === where) page.change({ where });
    } catch (error) {
      if (box.value !== where) return undefined;
      if (error.kind === "asked") refuse(error);
      else page.stumble(error);
    }
    return undefined;
  }

  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(use, TYPING_MS);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    use();
  });
  byId("fold").addEventListener("click", () => {
    const isOpen = document.body.classList.toggle("has-filters");
    byId("fold").setAttribute("aria-expanded", String(isOpen));
  });
  return { recount, learn, reset };
}
