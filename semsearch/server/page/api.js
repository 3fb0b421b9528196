/** Questions to the service, and what may go wrong with them. */

const PATIENCE_MS = 20_000;
const TOKEN_KEY = "semsearch.token";

/** Why there is no answer. `kind`: gone, busy, slow, token, asked (what was asked is wrong) or failed. */
export class Failure extends Error {
  constructor(kind, message, { status = 0, field = "", waitMs = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, field, waitMs });
  }
}

let token = stored();

/** Remember a token for as long as the tab is open. */
export function setToken(text) {
  token = text;
  try {
    sessionStorage.setItem(TOKEN_KEY, text);
  } catch {
    // then until the page is left
  }
}

export const hasToken = () => token !== "";

/** The JSON of a GET; `params` is [name, value] pairs. An AbortError where `signal` says so, else a Failure. */
export async function ask(path, params = [], signal = undefined) {
  const query = new URLSearchParams(params).toString();
  const limit = new AbortController();
  const stop = () => limit.abort();
  signal?.addEventListener("abort", stop);
  const timer = setTimeout(stop, PATIENCE_MS);
  try {
    signal?.throwIfAborted();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(query ? `${path}?${query}` : path, { headers, signal: limit.signal, cache: "no-store" });
    const body = await response.json();
    if (!response.ok) throw refused(response, body);
    return body;
  } catch (error) {
    if (error instanceof Failure || signal?.aborted) throw error;
    throw new Failure("gone", "The service does not answer.");
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function refused(response, body) {
  const status = response.status;
  const { message = response.statusText, field = "" } = body?.error ?? {};
  const kinds = { 400: "asked", 401: "token", 404: "asked", 422: "asked", 503: "busy", 504: "slow" };
  const waitMs = 1000 * Math.min(30, Number(response.headers.get("Retry-After")) || 1);
  return new Failure(kinds[status] ?? "failed", String(message), { status, field: String(field ?? ""), waitMs });
}

function stored() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  } catch {
    return "";
  }
}
