/** Asking a person for the service's token. */

import { hasToken, setToken } from "./api.js";
import { byId } from "./dom.js";

/** Ask until something is entered, then go on. */
export function demandToken(goOn) {
  const dialog = byId("ask-token");
  if (dialog.open) return;
  const input = byId("token");
  byId("token-wrong").textContent = hasToken() ? "The service did not take that token." : "";
  byId("token-form").onsubmit = () => {
    setToken(input.value.trim());
    input.value = "";
    setTimeout(goOn);
  };
  dialog.oncancel = (event) => event.preventDefault();
  dialog.showModal();
}
