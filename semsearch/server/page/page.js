/** The page: its state is its address; this reads one, asks, and shows. */

import { ask, Failure } from "./api.js";
import { byId, count, counted, percent } from "./dom.js";
import { drawChips } from "./facets.js";
import { addFilters, isFilterError } from "./filtering.js";
import { addKeys } from "./keys.js";
import { nothing, readLink, whereOf, writeLink } from "./link.js";
import { hitList } from "./list.js";
import { addOutage } from "./outage.js";
import { facts, failed, likeHead, note, nothingFound, welcome } from "./states.js";
import { addTheme } from "./theming.js";
import { demandToken } from "./token.js";

const QUICK_MS = 120; // after a key, until the first look is asked for
const FULL_MS = 320; // until the passages are read again and marked
const BUSY_MS = 150; // until it is shown that something goes on
const STEP = 10;
const MOST_HITS = 100;
const BUSY_TRIES = 2;
const INDEX_EVERY_MS = 30_000;
const WRITING_EVERY_MS = 2_000;

const box = byId("q");
let state = nothing();
let index = null;
let wanted = STEP;
let isDraft = false; // whether the newest entry of the history is still being typed
let isLinked = false; // whether the hit of the address is still to be opened
let turn = 0;
let isSettled = false; // whether this turn's whole answer, or what is wrong, is there: a first look then comes too late
let running = new AbortController();
let explaining = null;
let timers = [];
let indexTimer = 0;

const on = {
  open(view) {
    view.toggle();
    point(view);
  },
  async like(view) {
    scrollTo({ top: 0 });
    await change({ like: view.hit.chunk_id });
    byId("like-title")?.focus({ preventScroll: true });
  },
  async context(view, lines) {
    try {
      return await ask(`documents/${view.hit.chunk_id}`, [["context", String(lines)]]);
    } catch (error) {
      if (error.kind === "asked") say("This passage is no longer in the index. Search again.");
      else stumble(error);
      return null;
    }
  },
  async explain(view) {
    if (view.why.isFilled || state.like !== null || list.isRough()) return;
    const { path, params } = question();
    const mine = turn;
    explaining ??= ask(path, [...params, ["explain", "true"]]);
    try {
      const { hits } = await explaining;
      if (mine === turn) for (const hit of hits) list.withId(hit.chunk_id)?.explained(hit);
    } catch {
      explaining = null; // the scores are there without it
    }
  },
  copied: say,
};
const list = hitList(byId("hits"), on);
const outage = addOutage(start);
const filters = addFilters({ state: () => state, change, stumble });

// Asking

const later = (ms, work) => timers.push(setTimeout(work, ms));

/** Stop what runs and what waits to be run. */
function stop() {
  turn += 1;
  isSettled = false;
  running.abort();
  running = new AbortController();
  explaining = null;
  for (const timer of timers) clearTimeout(timer);
  timers = [];
  document.body.classList.remove("is-searching");
  return turn;
}

function question() {
  const where = whereOf(state);
  const common = [["k", String(wanted)], ...(where ? [["where", where]] : [])];
  if (state.like !== null) return { path: `similar/${state.like}`, params: common };
  return { path: "search", params: [["q", state.q.trim()], ...common, ...(state.all ? [["min_probability", "0"]] : [])] };
}

/** Show what the state asks for. `isTyping`: wait for the next key first; `isSame`: it was shown before. */
function refresh({ isTyping = false, isSame = false } = {}) {
  const mine = stop();
  const words = state.q.trim();
  if (!isSame) wanted = STEP;
  document.title = words ? `${words} – semsearch` : "semsearch";
  if (!isTyping && !isSame) byId("count").textContent = "";
  drawChips(byId("chips"), state, change);
  if (state.like === null) byId("like").replaceChildren();
  if (state.like === null && !words) {
    byId("count").textContent = "";
    clear();
    byId("state").replaceChildren(welcome(index));
    return Promise.resolve();
  }
  const { path, params } = question();
  if (state.like === null && !isSame) later(isTyping ? QUICK_MS : 0, () => glance(mine, params));
  return new Promise((done) => later(isTyping ? FULL_MS : 0, () => full(mine, path, params, BUSY_TRIES).finally(done)));
}

/** A first look by vectors and words alone, for the eye while the passages are read. */
async function glance(mine, params) {
  try {
    const answer = await ask("search", [...params, ["rerank", "false"]], running.signal);
    if (mine !== turn || isSettled || !answer.hits.length || outage.isOn()) return;
    byId("state").replaceChildren();
    list.show(answer.hits, { isRough: true });
    list.mark(state.hit);
  } catch {
    // the full answer says what is wrong
  }
}

async function full(mine, path, params, tries) {
  const busy = setTimeout(() => mine === turn && document.body.classList.add("is-searching"), BUSY_MS);
  try {
    const isLike = state.like !== null;
    const [answer, source] = await Promise.all([
      ask(path, isLike ? params : [...params, ["highlight", "true"]], running.signal),
      isLike ? ask(`documents/${state.like}`, [], running.signal) : null,
    ]);
    if (mine !== turn) return;
    isSettled = true;
    outage.end();
    if (source) byId("like").replaceChildren(likeHead(source, leaveLike));
    answered(answer);
  } catch (error) {
    if (mine !== turn) return;
    isSettled = error.kind !== "busy" || tries === 0;
    if (isSettled) stumble(error);
    else later(error.waitMs, () => full(mine, path, params, tries - 1));
  } finally {
    clearTimeout(busy);
    if (mine === turn) document.body.classList.remove("is-searching");
  }
}

function answered({ hits, best_probability: best = null, elapsed_ms: elapsed }) {
  byId("state").replaceChildren();
  byId("note").replaceChildren();
  list.show(hits, { linked: isLinked ? state.hit : null });
  list.mark(state.hit);
  byId("onward").hidden = hits.length < wanted || wanted >= MOST_HITS;
  if (isLinked && state.hit !== null && !list.withId(state.hit)) say("The passage that the link points to is not among these.");
  isLinked = false;
  if (!hits.length) {
    const acts = { all: () => change({ all: true }), clear: unfilter };
    byId("state").replaceChildren(nothingFound(best, whereOf(state) !== "", acts));
    byId("count").textContent = best === null ? "No passages" : `Nothing relevant: at best ${percent(best)}`;
    return;
  }
  const many = hits.length >= wanted ? `The ${hits.length} best passages` : counted(hits.length, "passage");
  byId("count").textContent = `${many} in ${count(Math.max(1, Math.round(elapsed)))} ms`;
}

function clear() {
  list.clear();
  byId("state").replaceChildren();
  byId("note").replaceChildren();
  byId("onward").hidden = true;
}

function say(text) {
  byId("note").replaceChildren(note("quiet", text));
}

/** Tell what went wrong, and what can be done. */
function stumble(error) {
  if (!(error instanceof Failure)) throw error;
  if (error.kind === "token") return demandToken(start);
  if (error.kind === "gone") return outage.begin(list.views().length > 0);
  clear();
  byId("count").textContent = "No answer";
  const titles = { busy: "The service is busy.", slow: "That took too long.", asked: "That cannot be asked.", failed: "The service failed." };
  const isFilter = isFilterError(error);
  const title = isFilter ? "The filter cannot be used." : titles[error.kind];
  byId("state").replaceChildren(failed(title, error.message, () => refresh(), isFilter ? unfilter : null));
  return undefined;
}

// The state

function address(how) {
  try {
    history[how](null, "", writeLink(state));
  } catch {
    // some browsers take only so many in a while; the next one brings it up to date
  }
}

/** Take over changes, as a new entry of the history. */
function change(changes) {
  Object.assign(state, { hit: null, ...changes });
  isDraft = false;
  isLinked = false;
  address("pushState");
  filters.reset();
  filters.recount();
  return refresh();
}

const unfilter = () => change({ picked: new Map(), where: "" });

function typed() {
  const isNew = state.like !== null || !isDraft;
  Object.assign(state, { q: box.value, like: null, hit: null, all: false });
  address(isNew ? "pushState" : "replaceState");
  isDraft = true;
  isLinked = false;
  refresh({ isTyping: true });
}

function leaveLike() {
  change({ like: null });
  box.focus();
}

/** Remember in the address which hit is meant. */
function point(view) {
  isDraft = false;
  state.hit = view.hit.chunk_id;
  address("replaceState");
  list.mark(state.hit);
}

/** Read the address: at the start, and when the person goes back or forward. */
function follow() {
  state = readLink(location.search);
  isLinked = state.hit !== null;
  isDraft = false;
  box.value = state.q;
  clear();
  filters.reset();
  filters.recount();
  return refresh();
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
  byId("indexing").hidden = !index.writing;
  lookAgain();
  if (index.writing === before?.writing && index.updated === before?.updated) return;
  filters.learn(index);
  if (state.like === null && !state.q.trim()) byId("state").replaceChildren(welcome(index));
  else if (before && index.updated !== before.updated && !isDraft) refresh({ isSame: true });
}

function lookAgain() {
  clearTimeout(indexTimer);
  indexTimer = setTimeout(watch, index?.writing ? WRITING_EVERY_MS : INDEX_EVERY_MS);
}

async function watch() {
  lookAgain();
  if (!document.hidden && !outage.isOn()) await readIndex();
}

async function start() {
  await readIndex();
  if (!outage.isOn()) await refresh({ isSame: list.views().length > 0 });
}

function wire() {
  box.addEventListener("input", (event) => event.isComposing || typed());
  box.addEventListener("compositionend", typed);
  box.addEventListener("blur", () => (isDraft = false));
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    isDraft = false;
    if (matchMedia("(hover: none)").matches) box.blur(); // the keyboard covers the hits
    if (box.value.trim()) refresh();
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("results").focus();
  });
  byId("onward").addEventListener("click", async () => {
    const n = list.views().length;
    wanted = Math.min(MOST_HITS, wanted + STEP);
    await refresh({ isSame: true });
    list.views()[n]?.button.focus();
  });
  byId("home").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab or window
    event.preventDefault();
    box.value = "";
    change(nothing());
    box.focus();
  });
  byId("hits").addEventListener("focusin", (event) => {
    const view = list.views().find((each) => each.node.contains(event.target));
    if (view && view.hit.chunk_id !== state.hit) point(view);
  });
  const empty = () => {
    box.value = "";
    typed();
  };
  addEventListener("popstate", follow);
  addKeys({ box, views: list.views, on, state: () => state, clear: empty, leaveLike });
  addTheme(byId("theme"));
}

wire();
follow();
watch();
