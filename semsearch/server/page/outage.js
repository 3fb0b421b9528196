/** A service that is not there: say so, keep what is shown, and look until it is back. */

import { ask } from "./api.js";
import { byId } from "./dom.js";
import { note } from "./states.js";

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 5_000;

/** `{isOn(), begin(hasHits), end()}`; `recover()` is called when the service answers again. */
export function addOutage(recover) {
  let isOn = false;
  let timer = 0;

  function begin(hasHits, waitMs = FIRST_WAIT_MS) {
    if (!isOn) {
      isOn = true;
      const kept = hasHits ? " These hits are from before." : "";
      const text = `The service does not answer. It is asked again until it does.${kept}`;
      byId("note").replaceChildren(note("gone", text, () => look(hasHits, FIRST_WAIT_MS)));
      byId("count").textContent = "";
      document.body.classList.add("is-gone");
    }
    clearTimeout(timer);
    timer = setTimeout(() => look(hasHits, waitMs), waitMs);
  }

  async function look(hasHits, waitMs) {
    clearTimeout(timer);
    try {
      await ask("health");
    } catch {
      begin(hasHits, Math.min(LONGEST_WAIT_MS, waitMs * 1.5));
      return;
    }
    end();
    await recover();
  }

  function end() {
    if (!isOn) return;
    isOn = false;
    clearTimeout(timer);
    byId("note").replaceChildren();
    document.body.classList.remove("is-gone");
  }

  addEventListener("online", () => isOn && look(false, FIRST_WAIT_MS));
  return { isOn: () => isOn, begin, end };
}
