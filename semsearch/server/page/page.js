/** The page: its state is its address; this reads one, asks, and shows. */

import { ask, Failure } from "./api.js";
import { addKeys } from "./keys.js";
import { addTheme } from "./theming.js";
import { byId, counted, percent } from "./dom.js";
import { countable, counts, drawChips, drawFacets, helpful } from "./facets.js";
import { hitView } from "./hits.js";
import { nothing, pick, readLink, whereOf, writeLink } from "./link.js";
import { demandToken } from "./token.js";
import { facts, failed, likeHead, note, nothingFound, welcome } from "./states.js";

const QUICK_MS = 120; // after a key, until the first look is asked for
const FULL_MS = 320; // until the passages are read again and marked
const STEP = 10;
const MOST_HITS = 100;
const INDEX_EVERY_MS = 30_000;
const WRITING_EVERY_MS = 2_000;

const box = byId("q");
const whereBox = byId("where");
const list = byId("hits");

let state = nothing();
let index = null;
let fields = []; // worth counting
let views = [];
let shownFor = ""; // the question that the hits answer
let wanted = STEP;
let isDraft = false; // whether the newest entry of the history is still being typed
let turn = 0;
let running = new AbortController();
let explaining = null;
let timers = [];
let isGone = false;
let retryTimer = 0;

// Asking

const later = (ms, work) => timers.push(setTimeout(work, ms));

/** Stop what runs and wait for nothing. */
function stop() {
  turn += 1;
  running.abort();
  running = new AbortController();
  for (const timer of timers) clearTimeout(timer);
  timers = [];
  document.body.classList.remove("is-searching");
  return turn;
}

function question() {
  const where = whereOf(state);
  const common = [["k", String(wanted)], ...(where ? [["where", where]] : [])];
  if (state.like !== null) return { path: `similar/${state.like}`, params: common };
  const params = [["q", state.q.trim()], ...common, ...(state.all ? [["min_probability", "0"]] : [])];
  return { path: "search", params };
}

/** Show what the state asks for; `isTyping` waits for the next key first. */
function refresh({ isTyping = false, isSame = false } = {}) {
  const mine = stop();
  if (!isSame) wanted = STEP;
  document.title = state.q.trim() ? `${state.q.trim()} – semsearch` : "semsearch";
  byId("count").textContent = isTyping && state.q.trim() ? byId("count").textContent : "";
  drawChips(byId("chips"), state, change);
  if (state.like === null) byId("like").replaceChildren();
  if (state.like === null && !state.q.trim()) {
    clear();
    byId("state").replaceChildren(welcome(index));
    return Promise.resolve();
  }
  const { path, params } = question();
  if (state.like === null && !isSame) later(isTyping ? QUICK_MS : 0, () => first(mine, params));
  return new Promise((done) => later(isTyping ? FULL_MS : 0, () => full(mine, path, params).finally(done)));
}

/** A first look by vectors and words alone, for the eye while the passages are read. */
async function first(mine, params) {
  try {
    const answer = await ask("search", [...params, ["rerank", "false"]], running.signal);
    if (mine !== turn || !answer.hits.length || isGone) return;
    show(answer.hits, { isRough: true });
  } catch {
    // the full answer says what is wrong
  }
}

async function full(mine, path, params, tries = 2) {
  const busy = setTimeout(() => mine === turn && document.body.classList.add("is-searching"), 150);
  try {
    const isSearch = path === "search";
    const extra = isSearch ? [["highlight", "true"]] : [];
    const [answer, source] = await Promise.all([
      ask(path, [...params, ...extra], running.signal),
      isSearch ? null : ask(`documents/${state.like}`, [], running.signal),
    ]);
    if (mine !== turn) return;
    back();
    if (source) byId("like").replaceChildren(likeHead(source, leaveLike));
    answered(answer, path, params);
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    if (error.kind === "busy" && tries > 0) {
      later(error.waitMs, () => full(mine, path, params, tries - 1));
      return;
    }
    stumble(error);
  } finally {
    clearTimeout(busy);
    if (mine === turn) document.body.classList.remove("is-searching");
  }
}

function answered(answer, path, params) {
  const { hits } = answer;
  shownFor = JSON.stringify([path, params]);
  explaining = null;
  show(hits, { isRough: false });
  byId("onward").hidden = hits.length < wanted || wanted >= MOST_HITS;
  const best = answer.best_probability ?? null;
  const isFiltered = whereOf(state) !== "";
  if (!hits.length) {
    const on = { all: () => change({ all: true }), clear: () => change({ picked: new Map(), where: "" }) };
    byId("state").replaceChildren(nothingFound(best, isFiltered, on));
    byId("count").textContent = best === null ? "No passages" : `Nothing relevant: at best ${percent(best)}`;
    return;
  }
  const many = hits.length >= wanted ? `The ${hits.length} best passages` : counted(hits.length, "passage");
  byId("count").textContent = `${many} in ${Math.max(1, Math.round(answer.elapsed_ms))} ms`;
  if (state.hit !== null && !views.some((view) => view.hit.chunk_id === state.hit)) {
    byId("note").replaceChildren(note("quiet", "The passage that the link points to is not among these."));
  }
}

/** Put hits into the list. Those that are there already keep what is open, and the focus. */
function show(hits, { isRough }) {
  const focused = views.find((view) => view.node.contains(document.activeElement));
  const before = new Map(views.map((view) => [view.hit.chunk_id, view]));
  const isFirst = !views.length;
  views = hits.map((hit) => {
    const old = before.get(hit.chunk_id);
    const isSame = old && JSON.stringify(old.hit) === JSON.stringify(hit);
    if (isSame) return old;
    const view = hitView(hit, on);
    if (old?.isOpen) view.toggle(true);
    if (old || !isFirst) view.node.classList.add("is-still");
    return view;
  });
  byId("state").replaceChildren();
  byId("note").replaceChildren();
  list.classList.toggle("is-rough", isRough);
  list.replaceChildren(...views.map((view) => view.node));
  const linked = views.find((view) => view.hit.chunk_id === state.hit);
  if (linked && !isRough && !linked.isOpen && state.opens) linked.toggle(true);
  if (linked && !isRough && state.opens) linked.button.focus();
  if (!isRough) state.opens = false;
  mark();
  if (focused) views.find((view) => view.hit.chunk_id === focused.hit.chunk_id)?.button.focus({ preventScroll: true });
}

function clear() {
  views = [];
  shownFor = "";
  list.replaceChildren();
  byId("state").replaceChildren();
  byId("note").replaceChildren();
  byId("onward").hidden = true;
}

// What goes wrong

function stumble(error) {
  if (!(error instanceof Failure)) throw error;
  if (error.kind === "token") return demandToken(() => start());
  if (error.kind === "gone") return gone();
  clear();
  byId("count").textContent = "No answer";
  const titles = { busy: "The service is busy.", slow: "That took too long.", asked: "That cannot be asked.", failed: "The service failed." };
  const wrong = isFilterError(error) ? "The filter cannot be read." : titles[error.kind];
  byId("state").replaceChildren(failed(wrong, error.message, () => refresh()));
  return undefined;
}

const isFilterError = (error) => error.field === "where" || /^the filter/.test(error.message);

/** The service is not there: say so, keep what is shown, and look until it is back. */
function gone(waitMs = 1_000) {
  const retry = () => look(1_000);
  if (!isGone) {
    isGone = true;
    const kept = views.length ? " These hits are from before." : "";
    byId("note").replaceChildren(note("gone", `The service does not answer. It is asked again until it does.${kept}`, retry));
    byId("count").textContent = "";
    document.body.classList.add("is-gone");
  }
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => look(waitMs), waitMs);
}

async function look(waitMs) {
  clearTimeout(retryTimer);
  try {
    await ask("health");
  } catch {
    gone(Math.min(5_000, waitMs * 1.5));
    return;
  }
  back();
  await start();
}

function back() {
  if (!isGone) return;
  isGone = false;
  clearTimeout(retryTimer);
  byId("note").replaceChildren();
  document.body.classList.remove("is-gone");
}

// Changing the state

/** Take over changes, as a new entry of the history. */
function change(changes) {
  Object.assign(state, { hit: null, ...changes });
  whereBox.value = state.where;
  isDraft = false;
  history.pushState(null, "", writeLink(state));
  refresh();
  recount();
}

function typed() {
  const isNew = state.like !== null || !isDraft;
  Object.assign(state, { q: box.value, like: null, hit: null, all: false });
  history[isNew ? "pushState" : "replaceState"](null, "", writeLink(state));
  isDraft = true;
  refresh({ isTyping: true });
}

function leaveLike() {
  change({ like: null });
  box.focus();
}

/** Read the address: at the start, and when the person goes back or forward. */
function follow() {
  state = readLink(location.search);
  state.opens = true;
  isDraft = false;
  box.value = state.q;
  whereBox.value = state.where;
  byId("where-error").textContent = "";
  clear();
  const done = refresh();
  recount();
  return done;
}

const on = {
  open(view) {
    view.toggle();
    point(view);
  },
  async like(view) {
    change({ like: view.hit.chunk_id });
    scrollTo({ top: 0 });
    await settled();
    byId("like-title")?.focus({ preventScroll: true });
  },
  async context(view, lines) {
    try {
      return await ask(`documents/${view.hit.chunk_id}`, [["context", String(lines)]]);
    } catch (error) {
      if (error.kind === "asked") say("This passage has changed. Search again.");
      else stumble(error);
      return null;
    }
  },
  async explain(view) {
    if (view.why.isFilled || state.like !== null || list.classList.contains("is-rough")) return;
    const { path, params } = question();
    explaining ??= ask(path, [...params, ["explain", "true"]]);
    try {
      const { hits } = await explaining;
      for (const hit of hits) views.find((other) => other.hit.chunk_id === hit.chunk_id)?.explained(hit);
    } catch {
      explaining = null; // the scores are there without it
    }
  },
  copied: say,
};

function say(text) {
  byId("note").replaceChildren(note("quiet", text));
}

const settled = () => new Promise((done) => {
  const look = () => (document.body.classList.contains("is-searching") || !byId("like-title") ? setTimeout(look, 30) : done());
  setTimeout(look, 30);
});

/** Remember in the address which hit is meant. */
function point(view) {
  state.hit = view.hit.chunk_id;
  isDraft = false;
  history.replaceState(null, "", writeLink(state));
  mark();
}

function mark() {
  for (const view of views) view.node.classList.toggle("is-chosen", view.hit.chunk_id === state.hit);
}

// Filters

let counting = new AbortController();

async function recount() {
  counting.abort();
  counting = new AbortController();
  const { signal } = counting;
  try {
    const found = await counts(fields, state, (path, params) => ask(path, params, signal));
    if (signal.aborted) return;
    byId("where-error").textContent = "";
    whereBox.removeAttribute("aria-invalid");
    drawFacets(byId("facets"), found, state, tick);
  } catch (error) {
    if (signal.aborted || error.kind !== "asked") return;
    if (isFilterError(error) && state.where.trim()) refuse(error);
  }
}

function tick(field, value, isWanted) {
  const picked = new Map(state.picked);
  pick(picked, field, value, isWanted);
  change({ picked });
}

function refuse(error) {
  byId("where-error").textContent = error.message;
  whereBox.setAttribute("aria-invalid", "true");
}

/** Try a filter by itself, so that the service points at the right character; then use it. */
async function filter() {
  const where = whereBox.value;
  if (where.trim() === state.where.trim()) {
    byId("where-error").textContent = "";
    whereBox.removeAttribute("aria-invalid");
    return;
  }
  try {
    if (where.trim()) await ask("facets", [["key", "type"], ["limit", "1"], ["where", where.trim()]]);
    if (whereBox.value === where) change({ where });
  } catch (error) {
    if (whereBox.value !== where) return;
    if (error.kind === "asked") refuse(error);
    else stumble(error);
  }
}

// The index

async function readIndex() {
  const before = index;
  try {
    index = await ask("index");
  } catch (error) {
    if (["token", "gone"].includes(error.kind)) stumble(error);
    return;
  }
  byId("facts").replaceChildren(...facts(index));
  byId("fields").textContent = index.fields.join(", ");
  document.body.classList.toggle("is-writing", index.writing);
  if (index.writing !== before?.writing || index.updated !== before?.updated) {
    fields = await helpful(countable(index.fields), index.documents, ask).catch(() => fields);
    recount();
    if (state.like === null && !state.q.trim()) byId("state").replaceChildren(welcome(index));
    else if (before && index.updated !== before.updated && !isDraft) refresh({ isSame: true });
  }
  byId("indexing").hidden = !index.writing;
}

async function watch() {
  if (!document.hidden && !isGone) await readIndex();
  setTimeout(watch, index?.writing ? WRITING_EVERY_MS : INDEX_EVERY_MS);
}

async function start() {
  await readIndex();
  if (!isGone) await refresh({ isSame: views.length > 0 });
}

// Wiring

let filterTimer = 0;

function wire() {
  box.addEventListener("input", (event) => event.isComposing || typed());
  box.addEventListener("compositionend", typed);
  box.addEventListener("blur", () => (isDraft = false));
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    isDraft = false;
    if (box.value.trim() && !list.contains(document.activeElement)) refresh();
  });
  whereBox.addEventListener("input", () => {
    clearTimeout(filterTimer);
    filterTimer = setTimeout(filter, 500);
  });
  whereBox.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    clearTimeout(filterTimer);
    filter();
  });
  byId("fold").addEventListener("click", () => {
    const isOpen = document.body.classList.toggle("has-filters");
    byId("fold").setAttribute("aria-expanded", String(isOpen));
  });
  byId("onward").addEventListener("click", async () => {
    const n = views.length;
    wanted = Math.min(MOST_HITS, wanted + STEP);
    await refresh({ isSame: true });
    views[n]?.button.focus();
  });
  byId("home").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    box.value = "";
    change(nothing());
    box.focus();
  });
  list.addEventListener("focusin", (event) => {
    const view = views.find((each) => each.node.contains(event.target));
    if (view && view.hit.chunk_id !== state.hit) point(view);
  });
  addEventListener("popstate", follow);
  addEventListener("online", () => isGone && look(1_000));
  addKeys({ box, views: () => views, on, state: () => state, clear: () => ((box.value = ""), typed()), leaveLike });
  addTheme(byId("theme"));
}

wire();
follow();
watch();
