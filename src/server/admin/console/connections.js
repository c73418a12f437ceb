// The views of connections: their list, one of them, and what was refused.
import {
  visible, element, field, reconcile, setText, count, bytes, span, clockTime, say, repeat, link,
} from "./page.js";
import { get, post } from "./server.js";
import {
  SLOW_REFRESH, heading, table, named, linkIn, details, appChoice, nodeName, missingNodes, overNodes,
} from "./widgets.js";
import { lastOverview, refreshHeader } from "./header.js";
import { eventList, follow } from "./events.js";

/** Refusals of one connection. */
const REFUSALS_SHOWN = 10;

/** Ends a subscription after a question. Returns whether it was ended. */
export async function unsubscribe(view, id, channel) {
  const question = `Unsubscribe connection ${id} from ${visible(channel)}? ` +
    "Its client gets pusher:subscription_error, and may subscribe again.";
  if (!confirm(question)) return false;
  try {
    await post("/api/unsubscribe", { socket_id: id, channel });
    say("The subscription was ended.");
    return true;
  } catch (error) {
    view.failed(error);
    return false;
  }
}

/** `more`: further columns. */
export function connectionTable(...more) {
  return table([
    ["Socket id", false, ({ socket_id }, at) => linkIn(at, socket_id, link("connection", { id: socket_id }), "id")],
    ["App", false, ({ app }) => app],
    ["User", false, ({ user }, at) => named(at, user ?? "–")],
    ["Channels", true, ({ channels: number }) => count(number)],
    ["Waits to be sent", true, ({ queue_bytes }) => bytes(queue_bytes)],
    ["Open for", true, ({ age_seconds }) => (age_seconds === undefined ? "a moment" : span(age_seconds))],
    ["Silent for", true, ({ silent_seconds }) => span(silent_seconds)],
    ["Node", false, ({ node, host }, at) => named(at, node ? nodeName(host, node) : "this node"), true],
    ...more,
  ], ({ socket_id }) => socket_id, "No connection matches.");
}

export async function connections(view) {
  view.body.append(element("h1", { text: "Connections" }));
  const { select, choice } = await appChoice(view, true).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const filter = element("input", { type: "search", placeholder: "part of a socket id or of a user's id" });
  const missing = missingNodes();
  const title = element("span", { text: "Longest queue first " });
  const list = connectionTable();
  const total = element("span", { class: "count" });
  const note = element("p", { class: "note warn", hidden: true });
  view.body.append(
    element("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } }, choice,
      field("Filter (press /)", filter)),
    missing.node, note,
    element("section", { class: "card" }, heading("", title, total), list.node));
  const load = repeat(view, async () => {
    const found = await get("/api/connections", { app: select.value, filter: filter.value.trim() }, view.signal);
    view.works();
    list.show(found.connections);
    setText(total, count(found.total));
    note.hidden = !found.left_out;
    setText(note, `${count(found.left_out)} more connections match than are shown: narrow the filter.`);
    list.node.classList.toggle("alone", !found.nodes);
    setText(title, found.nodes ? `Connections${overNodes(found)}, longest queue first ` : "Longest queue first ");
    missing.show(found);
    await refreshHeader(view);
  }, SLOW_REFRESH);
  select.addEventListener("change", load);
  let typing = 0;
  filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(load, 200); });
}

export function connection(view) {
  const id = view.parameters.get("id") ?? "";
  const facts = element("section", { class: "card" });
  const names = element("ul", { class: "tags" });
  const nameTotal = element("span", { class: "count" });
  const past = refusalTable();
  const pastTotal = element("span", { class: "count" });
  const log = eventList();
  const gone = element("p", { class: "note warn", hidden: true, role: "status" });
  const elsewhere = element("p", { class: "note", hidden: true });
  const now = element("section", { class: "card" }, heading("What happens now"), log.node);
  const why = element("section", { class: "card" }, heading("Why was something refused ", pastTotal), past.node);
  const end = element("button", { type: "button", class: "danger", text: "Disconnect", on: { click: async () => {
    if (!confirm(`Close connection ${id}? Its client gets 4009 and does not reconnect by itself.`)) return;
    try {
      await post("/api/disconnect", { socket_id: id });
      say("The connection was closed.");
      load();
    } catch (error) {
      view.failed(error);
    }
  } } });
  view.body.append(
    element("a", { class: "back", href: "#/connections", text: "← Connections" }),
    element("h1", {}, "Connection ", element("span", { class: "mono", text: id })),
    gone, elsewhere,
    element("p", {}, end),
    element("div", { class: "split" }, facts,
      element("section", { class: "card" }, heading("Channels ", nameTotal), names)),
    now, why);
  const endSubscription = async (name) => {
    if (!await unsubscribe(view, id, name)) return;
    await load();
    // The button that had the focus is gone.
    (names.querySelector("button") ?? end).focus();
  };
  const channelTag = (name) => element("li", {},
    element("a", { href: link("channel", { app: appId, name }), text: name }),
    element("button", { type: "button", class: "quiet", text: "✕", title: `Unsubscribe from ${name}`,
      "aria-label": `Unsubscribe from ${visible(name)}`, on: { click: () => endSubscription(name) } }));
  let appId = "";
  const load = repeat(view, async () => {
    const { refusals: refused } = await get("/api/refusals", { socket_id: id }, view.signal);
    past.show(refused.slice(0, REFUSALS_SHOWN));
    setText(pastTotal, refused.length > REFUSALS_SHOWN ? `the last ${REFUSALS_SHOWN} of ${count(refused.length)}` : "");
    await refreshHeader(view);
    let found;
    try {
      found = await get("/api/connection", { socket_id: id }, view.signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      gone.hidden = false;
      end.disabled = true;
      setText(gone, error.message);
      return view.works();
    }
    view.works();
    const flags = [found.is_closing && "is closing", found.is_blocked && "its network takes no more data now",
      found.is_pinged && "a ping is unanswered"].filter(Boolean);
    const rows = [
      ["App", found.app],
      ["User", found.user ? `${found.user}${found.has_signed_in ? " (signed in)" : " (of a presence channel)"}` : "–"],
      ["Address", found.address ? `${found.address}${found.is_tls ? ", TLS" : ""}` : "–"],
      ["Round trip", found.round_trip_ms === undefined ? "–" :
        `${found.round_trip_ms} ms, ${count(found.retransmissions)} retransmissions`],
      ["Open for", found.age_seconds === undefined ? "a moment" : span(found.age_seconds)],
      ["Silent for", span(found.silent_seconds)],
      ["Waits to be sent", bytes(found.queue_bytes)], ["Keeps memory", bytes(found.kept_bytes)],
      ...(lastOverview?.node ? [["Node", found.node ? nodeName(found.host, found.node) : "this node"]] : []),
      ["Worker", found.worker],
      ["State", flags.join(", ") || "open"],
    ];
    elsewhere.hidden = !found.node;
    now.hidden = why.hidden = Boolean(found.node);
    const isElsewhere = `Another node has this connection: ${found.host} ${found.node}. ` +
      "Its events and refusals are in the console of that node.";
    setText(elsewhere, found.node ? isElsewhere : "");
    facts.replaceChildren(heading("Inside"), details(rows.map(([name, value]) => [name, String(value)])));
    setText(nameTotal, count(found.channels));
    appId = found.app;
    reconcile(names, found.channel_names, (name) => name, channelTag, () => {});
  }, SLOW_REFRESH);
  follow(view, () => ({ socket_id: id }), (event) => log.add(event));
}

function refusalTable() {
  return table([
    ["Time", false, ({ at: ms }, at) => { at.className = "mono"; return clockTime(ms); }],
    ["Reason", false, ({ reason, cause }) => (reason === cause ? reason : `${reason}: ${cause}`)],
    ["Connection", false, ({ socket_id }, at) => (socket_id ?
      linkIn(at, socket_id, link("connection", { id: socket_id }), "id") : "–")],
    ["What and why", false, ({ text }, at) => named(at, text)],
  ], ({ at, cause, socket_id, text }) => `${at} ${cause} ${socket_id} ${text}`,
    "Nothing was refused that this server remembers.");
}

export function refusals(view) {
  const list = refusalTable();
  const choice = element("select", {}, element("option", { value: "", text: "all reasons" }));
  const names = new Set();
  const offer = (name) => {
    if (!name || names.has(name)) return;
    names.add(name);
    choice.append(element("option", { value: name, text: name }));
  };
  // One that nothing was refused for lately has to be an option, too.
  const asked = view.parameters.get("reason") ?? "";
  offer(asked);
  choice.value = asked;
  view.body.append(
    element("h1", { text: "Refusals" }),
    element("p", { class: "note", text: "What the server refused or closed last, with the text of its log. " +
      "Each worker remembers 128. The reason is the one of the overview and of ringverb_refusals_total; " +
      "after it, the cause in the log." }),
    element("form", { class: "filters", on: { submit: (event) => event.preventDefault() } },
      field("Reason", choice, true)),
    element("section", { class: "card" }, list.node));
  const load = repeat(view, async () => {
    const { refusals: refused } = await get("/api/refusals", {}, view.signal);
    view.works();
    refused.forEach(({ reason }) => offer(reason));
    list.show(refused.filter(({ reason }) => !choice.value || reason === choice.value));
    await refreshHeader(view);
  }, SLOW_REFRESH);
  choice.addEventListener("change", load);
}
