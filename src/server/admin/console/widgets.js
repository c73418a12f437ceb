// What several views have: tables, cells, the choice of an app, notes about nodes.
import { visible, element, field, reconcile, setText } from "./page.js";
import { get } from "./server.js";

/** Milliseconds between two refreshes. */
export const REFRESH = 1000;
export const SLOW_REFRESH = 3000;

export const heading = (text, ...more) => element("h2", { text }, ...more);
export const th = (text, isNumber = false) => element("th", { scope: "col", class: isNumber ? "n" : "", text });
export const cell = (isNumber = false) => element("td", { class: isNumber ? "n" : "" });

/** A table: columns are [title, is a number, fill(cell, item), is of clusters only]. Returns its node and `show`. */
export function table(columns, keyOf, emptyText) {
  const mark = (cells) => cells.map((one, index) => {
    one.toggleAttribute("data-cluster", Boolean(columns[index][3]));
    return one;
  });
  const head = element("tr", {}, ...mark(columns.map(([title, isNumber]) => th(title, isNumber))));
  const body = element("tbody");
  const empty = element("p", { class: "empty", text: emptyText, hidden: true });
  const node = element("div", {}, element("div", { class: "scroll" },
    element("table", {}, element("thead", {}, head), body)), empty);
  const make = () => element("tr", {}, ...mark(columns.map(([, isNumber]) => cell(isNumber))));
  const update = (row, item) => columns.forEach(([, , fill], index) => {
    const text = fill(item, row.children[index]);
    if (text !== undefined) setText(row.children[index], String(text));
  });
  const show = (items) => {
    reconcile(body, items, keyOf, make, update);
    empty.hidden = items.length > 0;
    node.firstChild.hidden = !items.length;
  };
  return { node, show, head };
}

/** The text of a cell that a peer has chosen, in a column of limited width. */
export function named(at, text) {
  at.className = "name";
  return text;
}

/** Fills a cell with a link, once for each target. */
export function linkIn(at, text, href, kind = "name") {
  if (at.firstChild?.getAttribute?.("href") === href && at.textContent === visible(text)) return;
  at.replaceChildren(element("a", { href, text, class: kind }));
}

export function bar(at, share, text) {
  if (!at.firstChild) {
    at.append(element("div", { class: "bar" }, element("i", {}, element("b")), element("span")));
  }
  const fill = at.querySelector("b");
  fill.style.width = `${Math.min(100, share * 100).toFixed(1)}%`;
  fill.className = share > 0.9 ? "full" : share > 0.7 ? "hot" : "";
  setText(at.querySelector("span"), text);
}

export function details(pairs) {
  return element("dl", {}, ...pairs.flatMap(([name, value]) => [
    element("dt", { text: name }),
    value instanceof Node ? element("dd", {}, value) : element("dd", { text: value }),
  ]));
}

export async function appChoice(view, withAll) {
  const { apps: list } = await get("/api/traffic", {}, view.signal);
  const options = list.map(({ id }) => element("option", { value: id, text: id }));
  if (withAll) options.unshift(element("option", { value: "", text: "all apps" }));
  const select = element("select", {}, ...options);
  const asked = view.parameters.get("app");
  if (asked && list.some(({ id }) => id === asked)) select.value = asked;
  const choice = field("App", select, true);
  choice.hidden = list.length < 2;
  return { select, choice };
}

/** A node of the cluster, as rows and notes name it. */
export const nodeName = (host, node) => `${host ? `${host} ` : ""}${node.slice(0, 8)}`;

/** A note that names the nodes whose rows are missing. */
export function missingNodes() {
  const node = element("p", { class: "note warn", hidden: true, role: "status" });
  const show = ({ nodes: answered = [], silent_nodes: silent = [], session_down: isDown }) => {
    const whyOf = (one) => one.busy ? "too many questions, or this one was late" : "no memory here for its answer";
    const busy = answered.filter((one) => one.busy || one.no_memory)
      .map((one) => `${nodeName(one.host, one.node)} (${whyOf(one)})`);
    const names = [...silent.map((one) => `${nodeName("", one.node)} (last heartbeat ${one.seen_seconds_ago} s ago)`),
      ...busy];
    node.hidden = !names.length && !isDown;
    setText(node, isDown
      ? "This node has no connection to Redis now. The rows of other nodes are missing."
      : `No answer: node ${names.join(", ")}. Its rows are missing.`);
  };
  return { node, show };
}

/** Over how many nodes a list is, as the end of its heading. */
export const overNodes = (found) => (found.nodes ?
  ` on ${found.nodes.length === 1 ? "this node" : `${found.nodes.length} nodes`}` : "");
