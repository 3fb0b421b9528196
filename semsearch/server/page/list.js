/** The list of hits: what stays when another answer comes. */

import { hitView } from "./hits.js";

/** `{views(), show(hits, options), clear(), mark(id), chosen(id), isRough()}` over an `<ol>`; `on` as for `hitView`. */
export function hitList(node, on) {
  let views = [];
  const withId = (id) => views.find((view) => view.hit.chunk_id === id);

  /** Show hits. Those that are there already stay as they are, with the focus. */
  function show(hits, { isRough = false, linked = null } = {}) {
    const focused = views.find((view) => view.node.contains(document.activeElement));
    const before = new Map(views.map((view) => [view.hit.chunk_id, view]));
    const isFirst = !views.length;
    views = hits.map((hit) => {
      const old = before.get(hit.chunk_id);
      if (old && JSON.stringify(old.hit) === JSON.stringify(hit)) return old;
      const view = hitView(hit, on);
      if (old?.isOpen) view.toggle(true);
      if (old || !isFirst) view.node.classList.add("is-still");
      return view;
    });
    node.classList.toggle("is-rough", isRough);
    node.replaceChildren(...views.map((view) => view.node));
    const target = withId(linked);
    if (target) {
      target.toggle(true);
      target.button.focus();
    } else if (focused) withId(focused.hit.chunk_id)?.button.focus({ preventScroll: true });
  }

  function clear() {
    views = [];
    node.replaceChildren();
  }

  function mark(id) {
    for (const view of views) view.node.classList.toggle("is-chosen", view.hit.chunk_id === id);
  }

  return { views: () => views, show, clear, mark, withId, isRough: () => node.classList.contains("is-rough") };
}
