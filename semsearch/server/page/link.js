/** What the page shows, as its address: ?q=…&f.type=md&where=…&like=7&hit=9 */

const NUMBER = /^-?\d{1,15}(\.\d+)?([eE][+-]?\d+)?$/;

/** Nothing asked yet. `picked` maps a field to the values ticked. */
export const nothing = () => ({ q: "", where: "", picked: new Map(), like: null, hit: null, all: false });

/** The state that an address stands for. */
export function readLink(search) {
  const params = new URLSearchParams(search);
  const state = nothing();
  state.q = params.get("q") ?? "";
  state.where = params.get("where") ?? "";
  state.like = idOf(params.get("like"));
  state.hit = idOf(params.get("hit"));
  state.all = params.get("all") === "1";
  for (const [name, text] of params) {
    if (name.startsWith("f.") && name.length > 2) pick(state.picked, name.slice(2), valueOf(text));
  }
  return state;
}

/** The address that stands for a state, relative to the page. */
export function writeLink(state) {
  const params = new URLSearchParams();
  if (state.q.trim()) params.set("q", state.q);
  for (const [field, values] of state.picked) for (const value of values) params.append(`f.${field}`, textOf(value));
  if (state.where.trim()) params.set("where", state.where);
  if (state.all) params.set("all", "1");
  if (state.like !== null) params.set("like", state.like);
  if (state.hit !== null) params.set("hit", state.hit);
  const text = params.toString();
  return text ? `?${text}` : location.pathname;
}

/** Tick a value of a field, or untick it. */
export function pick(picked, field, value, isWanted = true) {
  const others = (picked.get(field) ?? []).filter((other) => other !== value);
  const values = isWanted ? [...others, value] : others;
  if (values.length) picked.set(field, values);
  else picked.delete(field);
}

/** The filter of a state in the service's grammar, "" for none; without what is ticked of the field `except`. */
export function whereOf(state, except = null) {
  const parts = state.where.trim() ? [`(${state.where.trim()})`] : [];
  for (const [field, values] of state.picked) {
    if (field !== except) parts.push(`${quoted(field)} in (${values.map(literal).join(", ")})`);
  }
  return parts.length === 1 && !state.picked.size ? state.where.trim() : parts.join(" and ");
}

const literal = (value) => (typeof value === "string" ? quoted(value) : String(value));

const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** Numbers and true, false stand for themselves; texts that look like one are in quotes. */
function valueOf(text) {
  if (NUMBER.test(text)) return Number(text);
  if (text === "true" || text === "false") return text === "true";
  if (!text.startsWith('"')) return text;
  try {
    const value = JSON.parse(text);
    return typeof value === "string" ? value : text;
  } catch {
    return text;
  }
}

function textOf(value) {
  if (typeof value !== "string") return String(value);
  return valueOf(value) === value ? value : JSON.stringify(value);
}

const idOf = (text) => (/^[1-9]\d{0,14}$/.test(text ?? "") ? Number(text) : null);
