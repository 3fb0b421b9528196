/** Elements made by hand. Text is only ever text: nothing here reads markup. */

/** An element with attributes (`on...` are listeners; null, undefined and false are left out) and children. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Foreign words within ours: they keep their own direction. */
export const foreign = (text, attributes = {}) => el("bdi", { class: "foreign", ...attributes }, text);

export const byId = (id) => document.getElementById(id);

const numbers = new Intl.NumberFormat("en");

/** 1,234 */
export const count = (n) => numbers.format(n);

/** "1 passage", "1,234 passages" */
export const counted = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** A probability as whole percent, never 0 or 100. */
export const percent = (p) => (p < 0.005 ? "<1 %" : p > 0.995 ? ">99 %" : `${Math.round(100 * p)} %`);
