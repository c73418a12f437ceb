// The views of channels: their list, and one of them.
import { element, field, setText, count, repeat, link } from "./page.js";
import { get } from "./server.js";
import {
  SLOW_REFRESH, heading, table, named, linkIn, appChoice, nodeName, missingNodes, overNodes,
} from "./widgets.js";
import { lastOverview, refreshHeader } from "./header.js";
import { unsubscribe, connectionTable } from "./connections.js";

/** Nodes that a row names; of more it has the number. */
const NODES_NAMED = 3;

export async function channels(view) {
  view.body.append(element("h1", { text: "Channels" }));
  const { select, choice } = await appChoice(view, false).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const filter = element("input", { type: "search", placeholder: "part of a name, such as private-orders",
    value: view.parameters.get("filter") ?? "" });
  // The filter counts once the typing has paused, with its first page.
  const asked = { filter: filter.value.trim(), sort: "subscribers", order: "", page: 1 };
  const hosts = new Map();
  /** The first nodes of a channel, by name, and how many more there are. `others`: without this node. */
  const placesOf = ({ isHere, others }) => {
    const names = [...(isHere ? ["this node"] : []), ...others.map((node) => nodeName(hosts.get(node), node))];
    if (names.length <= NODES_NAMED) return names.join(", ");
    return `${names.slice(0, NODES_NAMED).join(", ")} and ${names.length - NODES_NAMED} more`;
  };
  const list = table([
    ["", false, ({ name }, at) => linkIn(at, name, link("channel", { app: select.value, name }))],
    ["", true, ({ subscribers, all_nodes }) => count(all_nodes ?? subscribers)],
    ["", true, ({ name, users }) => (name.startsWith("presence-") ? count(users) : "–")],
    ["On this node", true, ({ subscribers }) => count(subscribers), true],
    ["Nodes", false, ({ nodes: of }, at) => named(at, of ? placesOf(of) : "–"), true],
  ], ({ name }) => name, "No channel matches.");
  const heads = [["name", "Name"], ["subscribers", "Subscribers"], ["users", "Members"]].map(([sort, title], index) => {
    const button = element("button", { type: "button", text: title, on: { click: () => {
      asked.order = asked.sort === sort && !asked.order ? "reverse" : "";
      Object.assign(asked, { sort, page: 1 });
      load();
    } } });
    list.head.children[index].replaceChildren(button);
    return [sort, list.head.children[index]];
  });
  const total = element("span", { class: "count" });
  const note = element("p", { class: "note warn", hidden: true });
  const missing = missingNodes();
  const title = element("span", { text: "Channels " });
  const step = (by) => () => { asked.page += by; load(); };
  const previous = element("button", { type: "button", text: "← Previous", on: { click: step(-1) } });
  const following = element("button", { type: "button", text: "Next →", on: { click: step(1) } });
  const place = element("span");
  view.body.append(
    element("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } }, choice,
      field("Filter (press /)", filter)),
    missing.node, note,
    element("section", { class: "card" }, heading("", title, total), list.node,
      element("div", { class: "pager" }, previous, place, following)));
  let newest = 0;
  const load = repeat(view, async () => {
    newest += 1;
    const own = newest;
    if (!lastOverview) await refreshHeader(view);
    const found = await get("/api/channels", { app: select.value, rows: 100, ...asked }, view.signal);
    view.works();
    // Another page, filter or order was asked for while this answer was on its way.
    if (own !== newest) return;
    found.nodes?.forEach(({ node, host }) => hosts.set(node, host));
    const nodes = (row) => row.nodes && { isHere: row.subscribers > 0, others: row.nodes };
    list.show(found.channels.map((row) => ({ ...row, nodes: nodes(row) })));
    setText(total, `${count(found.total)} channels, ${count(found.subscribers)} subscriptions`);
    setText(title, `Channels${overNodes(found)} `);
    missing.show(found);
    list.node.classList.toggle("alone", !found.nodes);
    note.hidden = !found.left_out;
    setText(note, `${count(found.left_out)} more channels match than can be shown: narrow the filter.`);
    asked.page = found.page;
    setText(place, `page ${found.page} of ${found.pages}`);
    previous.disabled = found.page <= 1;
    following.disabled = found.page >= found.pages;
    for (const [sort, head] of heads) {
      const isDescending = (sort === "name") === Boolean(asked.order);
      if (sort === asked.sort) head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    await refreshHeader(view);
  }, SLOW_REFRESH);
  const again = () => { Object.assign(asked, { filter: filter.value.trim(), page: 1 }); load(); };
  select.addEventListener("change", again);
  let typing = 0;
  filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(again, 200); });
}

export function channel(view) {
  const app = view.parameters.get("app") ?? "";
  const name = view.parameters.get("name") ?? "";
  const members = table([
    ["User", false, ({ id }, at) => named(at, id)],
    ["user_info", false, ({ info }, at) => { at.className = "mono name"; return info; }],
  ], ({ id }) => id, "Nobody is in this channel.");
  const list = connectionTable(["Subscription", false, ({ socket_id }, at) => {
    if (at.firstChild) return;
    const end = async () => {
      if (!await unsubscribe(view, socket_id, name)) return;
      await load();
      (list.node.querySelector("button") ?? view.body.querySelector("a")).focus();
    };
    at.append(element("button", { type: "button", class: "danger small", text: "Unsubscribe",
      "aria-label": `Unsubscribe ${socket_id}`, on: { click: end } }));
  }]);
  const total = element("span", { class: "count" });
  const title = element("span", { text: "Subscribers " });
  const missing = missingNodes();
  const note = element("p", { class: "note warn", hidden: true });
  const memberCard = element("section", { class: "card", hidden: !name.startsWith("presence-") },
    heading("Members, of all nodes"), members.node);
  view.body.append(
    element("a", { class: "back", href: link("channels", { app }), text: "← Channels" }),
    element("h1", { text: name }),
    element("p", { class: "filters" },
      element("a", { class: "button", href: link("publish", { app, channel: name }), text: "Publish here" }),
      element("a", { class: "button", href: link("events", { app, channel: name }), text: "Watch its events" })),
    missing.node, note, memberCard,
    element("section", { class: "card" }, heading("", title, total), list.node));
  const load = repeat(view, async () => {
    if (!lastOverview) await refreshHeader(view);
    const found = await get("/api/channel", { app, name }, view.signal);
    view.works();
    members.show(found.members);
    list.show(found.connections);
    list.node.classList.toggle("alone", !found.nodes);
    missing.show(found);
    setText(title, `Subscribers${overNodes(found)} `);
    setText(total, found.all_nodes === undefined ? count(found.subscribers) :
      `${count(found.all_nodes)}, of these ${count(found.subscribers)} on this node`);
    note.hidden = !found.left_out;
    setText(note, `${count(found.left_out)} more are not shown.`);
    await refreshHeader(view);
  }, SLOW_REFRESH);
}
