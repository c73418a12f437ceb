// The views of the console. Each is a function that fills `view.body` and refreshes it until the view is left.
import {
  HISTORY, Sparkline, bytes, clockTime, count, element, field, get, link, nanoseconds, post, quantile, reconcile, repeat, say,
  setText, short, showState, span, stream, visible,
} from "./console.js";

/** Tabs: name of the view, title, and views that belong to it. */
export const titles = [
  ["overview", "Overview"],
  ["channels", "Channels", "channel"],
  ["connections", "Connections", "connection"],
  ["events", "Event log"],
  ["refusals", "Refusals"],
  ["publish", "Publish"],
  ["apps", "Apps"],
  ["nodes", "Nodes"],
];

export const views = { overview, channels, channel, connections, connection, events, refusals, publish, apps, nodes };

const REFRESH = 1000;
const SLOW_REFRESH = 3000;
/** Nodes that a row names; of more it has the number. */
const NODES_NAMED = 3;
/** Refusals of one connection. */
const REFUSALS_SHOWN = 10;

const heading = (text, ...more) => element("h2", { text }, ...more);
const th = (text, isNumber = false) => element("th", { scope: "col", class: isNumber ? "n" : "", text });
const cell = (isNumber = false) => element("td", { class: isNumber ? "n" : "" });

/** A table: columns are [title, is a number, fill(cell, item), is of clusters only]. Returns its node and `show`. */
function table(columns, keyOf, emptyText) {
  const mark = (cells) => cells.map((one, index) => { one.toggleAttribute("data-cluster", Boolean(columns[index][3])); return one; });
  const head = element("tr", {}, ...mark(columns.map(([title, isNumber]) => th(title, isNumber))));
  const body = element("tbody");
  const empty = element("p", { class: "empty", text: emptyText, hidden: true });
  const node = element("div", {}, element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), body)), empty);
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
function named(at, text) {
  at.className = "name";
  return text;
}

/** Fills a cell with a link, once for each target. */
function linkIn(at, text, href, kind = "name") {
  if (at.firstChild?.getAttribute?.("href") === href && at.textContent === visible(text)) return;
  at.replaceChildren(element("a", { href, text, class: kind }));
}

function bar(at, share, text) {
  if (!at.firstChild) {
    at.append(element("div", { class: "bar" }, element("i", {}, element("b")), element("span")));
  }
  const fill = at.querySelector("b");
  fill.style.width = `${Math.min(100, share * 100).toFixed(1)}%`;
  fill.className = share > 0.9 ? "full" : share > 0.7 ? "hot" : "";
  setText(at.querySelector("span"), text);
}

function details(pairs) {
  return element("dl", {}, ...pairs.flatMap(([name, value]) => [
    element("dt", { text: name }),
    value instanceof Node ? element("dd", {}, value) : element("dd", { text: value }),
  ]));
}

async function appChoice(view, withAll) {
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

// Overview.

/** Values of the last minute, kept while other views are shown. */
const history = new Map();
let lastOverview = null;

function noteHistory(name, value) {
  const values = history.get(name) ?? history.set(name, []).get(name);
  values.push(value);
  if (values.length > HISTORY) values.shift();
  return values;
}

function rates(before, now) {
  if (!before || before.pid !== now.pid || before.started !== now.started) return null;
  const seconds = (now.clock_ms - before.clock_ms) / 1000;
  if (seconds <= 0) return null;
  const of = (a, b) => Math.max(0, (b - a) / seconds);
  const totals = Object.fromEntries(Object.entries(now.totals).map(([name, value]) => [name, of(before.totals[name], value)]));
  const workers = now.workers.map((worker, index) => {
    const was = before.workers[index] ?? worker;
    const sends = worker.sends - was.sends;
    const sent = worker.messages_sent - was.messages_sent;
    return {
      load: Math.min(1, (worker.tick_ns - was.tick_ns) / (seconds * 1e9)),
      sent: sent / seconds,
      received: of(was.messages_received, worker.messages_received),
      together: sends > 0 ? sent / sends : null,
      ticks: of(was.ticks, worker.ticks),
    };
  });
  const counts = (name) => now[name].counts.map((value, index) => value - before[name].counts[index]);
  return { totals, workers, flush: counts("publish_to_flush_ns"), trip: counts("round_trip_ms") };
}

/** A node of the cluster, as rows and notes name it. */
const nodeName = (host, node) => `${host ? `${host} ` : ""}${node.slice(0, 8)}`;

/** A note that names the nodes whose rows are missing. */
function missingNodes() {
  const node = element("p", { class: "note warn", hidden: true, role: "status" });
  const show = ({ nodes: answered = [], silent_nodes: silent = [], session_down: isDown }) => {
    const busy = answered.filter((one) => one.busy).map((one) => `${nodeName(one.host, one.node)} (too many questions)`);
    const names = [...silent.map((one) => `${nodeName("", one.node)} (last heartbeat ${one.seen_seconds_ago} s ago)`), ...busy];
    node.hidden = !names.length && !isDown;
    setText(node, isDown
      ? "This node has no connection to Redis now. The rows of other nodes are missing."
      : `Not answered in time: node ${names.join(", ")}. Its rows are missing.`);
  };
  return { node, show };
}

/** Over how many nodes a list is, as the end of its heading. */
const overNodes = (found) => (found.nodes ? ` on ${found.nodes.length === 1 ? "this node" : `${found.nodes.length} nodes`}` : "");

const where = document.getElementById("where");
export function showServer(now) {
  setText(where, `${now.host} · ${now.version} · ${now.kernel} · up ${span(now.uptime_seconds)}${now.node ? ` · node ${now.node.slice(0, 8)}` : ""}`);
  if (now.not_ready) showState("warn", `not ready: ${now.not_ready}`);
  else showState("good", "ready");
}

function tile(name) {
  const value = element("div", { class: "value" });
  const more = element("div", { class: "more" });
  const spark = new Sparkline(name);
  const node = element("section", { class: "card tile", "aria-label": name }, element("div", { class: "name", text: name }), value, more, spark.node);
  const show = (number, unit, note, raw) => {
    if (value.firstChild) { value.firstChild.data = number; value.lastChild.textContent = unit; }
    else value.append(number, element("small", { text: unit }));
    setText(more, note);
    if (raw !== null) spark.draw(noteHistory(name, raw));
  };
  return { node, show };
}

function overview(view) {
  const tiles = Object.fromEntries([
    ["connections", "Connections"], ["out", "Messages to clients"], ["in", "Messages of clients"],
    ["published", "Published events"], ["data", "Data to clients"], ["memory", "Memory"],
  ].map(([key, name]) => [key, tile(name)]));
  const cores = table([
    ["Core", false, ({ core }) => core],
    ["Load", false, ({ rate }, at) => bar(at, rate?.load ?? 0, rate ? `${(rate.load * 100).toFixed(rate.load < 0.1 ? 1 : 0)} %` : "–")],
    ["Ticks /s", true, ({ rate }) => (rate ? short(rate.ticks) : "–")],
    ["Messages per send", true, ({ rate }) => (rate?.together ? rate.together.toFixed(2) : "–")],
    ["To clients /s", true, ({ rate }) => (rate ? short(rate.sent) : "–")],
    ["Of clients /s", true, ({ rate }) => (rate ? short(rate.received) : "–")],
    ["Subscriptions", true, ({ subscriptions }) => count(subscriptions)],
    ["Waits to be sent", true, ({ queue_bytes, queue_bytes_max }) => `${bytes(queue_bytes)} (max ${bytes(queue_bytes_max)})`],
    ["Mail waiting", true, ({ mail_waiting, mail_waiting_max }) => `${count(mail_waiting)} (max ${count(mail_waiting_max)})`],
    ["HTTP", true, ({ http_connections }) => count(http_connections)],
  ], ({ core }) => core, "no cores");
  const latency = element("dl");
  const refused = table([["Refused", false, ([name], at) => linkIn(at, name, link("refusals", { reason: name }))], ["since the start", true, ([, number]) => count(number)]], ([name]) => name, "Nothing was refused.");
  const ended = table([["Closed by", false, ({ by, why }) => `${by}: ${why}`], ["since the start", true, ({ count: number }) => count(number)]], ({ by, why }) => `${by} ${why}`, "No connection has ended.");
  const webhooks = element("section", { class: "card", hidden: true }, heading("Webhooks"), element("dl"));
  view.body.append(
    element("h1", { text: "Overview" }),
    element("div", { class: "cards" }, ...Object.values(tiles).map(({ node }) => node)),
    element("section", { class: "card" }, heading("Cores"), cores.node),
    element("div", { class: "split" },
      element("section", { class: "card" }, heading("Times"), latency),
      element("section", { class: "card" }, heading("Ends of connections"), ended.node),
      element("section", { class: "card" }, heading("Refusals "), refused.node),
      webhooks),
  );
  const limits = (counts, { bounds }, show) => {
    const found = counts && [0.5, 0.99].map((share) => quantile(bounds, counts, share));
    if (!found?.[0]) return "nothing measured now";
    return found.map(({ bound, over }, index) => `${index ? "99 %" : "half"} ${over ? "over" : "within"} ${show(bound)}`).join(", ");
  };
  repeat(view, async () => {
    const now = await get("/api/overview", {}, view.signal);
    const rate = rates(lastOverview, now);
    lastOverview = now;
    view.works();
    showServer(now);
    const per = (name) => rate?.totals[name] ?? 0;
    const measured = (name) => rate?.totals[name] ?? null;
    tiles.connections.show(count(now.connections), "", `${count(now.totals.subscriptions)} subscriptions`, now.connections);
    tiles.out.show(short(per("messages_sent")), "/s", `${count(now.totals.messages_sent)} since the start`, measured("messages_sent"));
    tiles.in.show(short(per("messages_received")), "/s", `${short(per("client_events"))} client events /s`, measured("messages_received"));
    tiles.published.show(short(per("published_events")), "/s", `${short(per("http_calls"))} API requests /s`, measured("published_events"));
    tiles.data.show(bytes(per("sent_bytes")), "/s", `${bytes(per("received_bytes"))}/s of clients`, measured("sent_bytes"));
    tiles.memory.show(now.resident_bytes ? bytes(now.resident_bytes) : "–", "", now.memory_max ? `of ${bytes(now.memory_max)}` : "no limit is set", now.resident_bytes ?? 0);
    cores.show(now.workers.map((worker, index) => ({ ...worker, rate: rate?.workers[index] })));
    const rows = [
      ["Publish to last send", limits(rate?.flush, now.publish_to_flush_ns, nanoseconds)],
      ["Ping to pong", limits(rate?.trip, now.round_trip_ms, (ms) => `${ms} ms`)],
      ["New connections", `${short(per("new_connections"))} /s`],
      ["Channels on this node", count(now.totals.channels)],
      ["Viewers of the event log", `${now.viewers}${now.lost_events ? `, ${count(now.lost_events)} events were lost` : ""}`],
    ];
    reconcile(latency, rows.flatMap(([name, value]) => [[`t ${name}`, "dt", name], [`d ${name}`, "dd", value]]), ([key]) => key, ([, tag]) => element(tag), (node, [, , text]) => setText(node, text));
    refused.show(Object.entries(now.refused).sort(([, a], [, b]) => b - a));
    ended.show(now.ended.toSorted((a, b) => b.count - a.count));
    webhooks.hidden = !now.webhooks;
    if (now.webhooks) {
      const { waiting, oldest_ms: oldest, delivered, given_up: givenUp, requests, requests_failed: failed, failing_seconds: failing } = now.webhooks;
      const lines = [["Events delivered", count(delivered)], ["Events waiting", waiting ? `${count(waiting)}, the oldest for ${span(oldest / 1000)}` : "0"], ["Events given up", count(givenUp)], ["Requests", `${count(requests)}, ${count(failed)} failed`], ["Failing for", failing ? span(failing) : "–"]];
      reconcile(webhooks.lastChild, lines.flatMap(([name, value]) => [[`t ${name}`, "dt", name], [`d ${name}`, "dd", value]]), ([key]) => key, ([, tag]) => element(tag), (node, [, , text]) => setText(node, text));
    }
  }, REFRESH);
}

/** Views without numbers of the whole server keep the header right. */
async function refreshHeader(view) {
  lastOverview = await get("/api/overview", {}, view.signal);
  showServer(lastOverview);
}

// Channels.

async function channels(view) {
  view.body.append(element("h1", { text: "Channels" }));
  const { select, choice } = await appChoice(view, false).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const filter = element("input", { type: "search", placeholder: "part of a name, such as private-orders", value: view.parameters.get("filter") ?? "" });
  const asked = { sort: "subscribers", order: "", page: 1 };
  const hosts = new Map();
  /** The first nodes of a channel, by name, and how many more there are. `others`: without this node. */
  const placesOf = ({ isHere, others }) => {
    const names = [...(isHere ? ["this node"] : []), ...others.map((node) => nodeName(hosts.get(node), node))];
    return names.length > NODES_NAMED ? `${names.slice(0, NODES_NAMED).join(", ")} and ${names.length - NODES_NAMED} more` : names.join(", ");
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
    element("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } }, choice, field("Filter (press /)", filter)),
    missing.node, note,
    element("section", { class: "card" }, heading("", title, total), list.node, element("div", { class: "pager" }, previous, place, following)));
  const load = repeat(view, async () => {
    if (!lastOverview) await refreshHeader(view);
    const found = await get("/api/channels", { app: select.value, filter: filter.value.trim(), rows: 100, ...asked }, view.signal);
    view.works();
    found.nodes?.forEach(({ node, host }) => hosts.set(node, host));
    list.show(found.channels.map((row) => ({ ...row, nodes: row.nodes && { isHere: row.subscribers > 0, others: row.nodes } })));
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
  const again = () => { asked.page = 1; load(); };
  select.addEventListener("change", again);
  let typing = 0;
  filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(again, 200); });
}

function channel(view) {
  const app = view.parameters.get("app") ?? "";
  const name = view.parameters.get("name") ?? "";
  const members = table([
    ["User", false, ({ id }, at) => named(at, id)],
    ["user_info", false, ({ info }, at) => { at.className = "mono name"; return info; }],
  ], ({ id }) => id, "Nobody is in this channel.");
  const list = connectionTable(["Subscription", false, ({ socket_id }, at) => {
    if (at.firstChild) return;
    const end = async () => { if (await unsubscribe(view, socket_id, name)) { await load(); (list.node.querySelector("button") ?? view.body.querySelector("a")).focus(); } };
    at.append(element("button", { type: "button", class: "danger small", text: "Unsubscribe", "aria-label": `Unsubscribe ${socket_id}`, on: { click: end } }));
  }]);
  const total = element("span", { class: "count" });
  const title = element("span", { text: "Subscribers " });
  const missing = missingNodes();
  const note = element("p", { class: "note warn", hidden: true });
  const memberCard = element("section", { class: "card", hidden: !name.startsWith("presence-") }, heading("Members, of all nodes"), members.node);
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
    setText(total, found.all_nodes === undefined ? count(found.subscribers) : `${count(found.all_nodes)}, of these ${count(found.subscribers)} on this node`);
    note.hidden = !found.left_out;
    setText(note, `${count(found.left_out)} more are not shown.`);
    await refreshHeader(view);
  }, SLOW_REFRESH);
}

// Connections.

/** Ends a subscription after a question. Returns whether it was ended. */
async function unsubscribe(view, id, channel) {
  if (!confirm(`Unsubscribe connection ${id} from ${visible(channel)}? Its client gets pusher:subscription_error, and may subscribe again.`)) return false;
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
function connectionTable(...more) {
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

async function connections(view) {
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
    element("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } }, choice, field("Filter (press /)", filter)),
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

function connection(view) {
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
    element("button", { type: "button", class: "quiet", text: "✕", title: `Unsubscribe from ${name}`, "aria-label": `Unsubscribe from ${visible(name)}`, on: { click: () => endSubscription(name) } }));
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
    const flags = [found.is_closing && "is closing", found.is_blocked && "its network takes no more data now", found.is_pinged && "a ping is unanswered"].filter(Boolean);
    const rows = [
      ["App", found.app], ["User", found.user ? `${found.user}${found.has_signed_in ? " (signed in)" : " (of a presence channel)"}` : "–"],
      ["Address", found.address ? `${found.address}${found.is_tls ? ", TLS" : ""}` : "–"],
      ["Round trip", found.round_trip_ms === undefined ? "–" : `${found.round_trip_ms} ms, ${count(found.retransmissions)} retransmissions`],
      ["Open for", found.age_seconds === undefined ? "a moment" : span(found.age_seconds)], ["Silent for", span(found.silent_seconds)],
      ["Waits to be sent", bytes(found.queue_bytes)], ["Keeps memory", bytes(found.kept_bytes)],
      ...(lastOverview?.node ? [["Node", found.node ? nodeName(found.host, found.node) : "this node"]] : []), ["Worker", found.worker],
      ["State", flags.join(", ") || "open"],
    ];
    elsewhere.hidden = !found.node;
    now.hidden = why.hidden = Boolean(found.node);
    setText(elsewhere, found.node ? `Another node has this connection: ${found.host} ${found.node}. Its events and refusals are in the console of that node.` : "");
    facts.replaceChildren(heading("Inside"), details(rows.map(([name, value]) => [name, String(value)])));
    setText(nameTotal, count(found.channels));
    appId = found.app;
    reconcile(names, found.channel_names, (name) => name, channelTag, () => {});
  }, SLOW_REFRESH);
  follow(view, () => ({ socket_id: id }), (event) => log.add(event));
}

// Events.

const KINDS = ["connected", "disconnected", "subscribed", "unsubscribed", "signed_in", "refused", "api_event", "client_event", "webhook"];
const KIND_NAMES = { api_event: "API event", client_event: "client event", signed_in: "signed in" };
const EVENTS_SHOWN = 500;

function pretty(text) {
  try {
    const value = JSON.parse(text);
    if (typeof value.data === "string") {
      try { value.data = JSON.parse(value.data); } catch { /* data may be any text */ }
    }
    return JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}

/** One line about a payload: the name of the event and its data. A payload that was cut is shown as it is. */
function brief({ kind, cause, text = "" }) {
  if (kind === "disconnected") return `${cause}, ${text}`;
  if (kind !== "api_event" && kind !== "client_event") return text;
  try {
    const { event, data } = JSON.parse(text);
    return `${event}  ${typeof data === "string" ? data : JSON.stringify(data)}`;
  } catch {
    return text;
  }
}

function eventRow(event) {
  const about = event.channel ?? event.socket_id ?? "";
  const inside = element("div", { class: "inside", hidden: true });
  const kind = `kind ${event.kind}${event.cause === "failed" ? " failed" : ""}`;
  const button = element("button", { class: "row", type: "button", "aria-expanded": "false", on: { click: () => {
    inside.hidden = !inside.hidden;
    button.setAttribute("aria-expanded", String(!inside.hidden));
    if (inside.hidden || inside.firstChild) return;
    const rows = [
      event.app && ["App", event.app],
      event.channel && ["Channel", element("a", { href: link("channel", { app: event.app, name: event.channel }), text: event.channel })],
      event.socket_id && [event.kind === "api_event" ? "All but" : "Connection", element("a", { href: link("connection", { id: event.socket_id }), class: "mono", text: event.socket_id })],
      event.cause && ["Cause", event.cause],
    ].filter(Boolean);
    inside.append(details(rows));
    if (event.text) inside.append(element("pre", { lines: pretty(event.text) }));
  } } },
  element("time", { datetime: new Date(event.at).toISOString(), text: clockTime(event.at) }),
  element("span", {}, element("span", { class: kind, text: KIND_NAMES[event.kind] ?? event.kind })),
  element("span", { class: "about", text: about, title: about }),
  element("span", { class: "text", text: brief(event) }));
  return element("li", {}, button, inside);
}

function eventList() {
  const list = element("ol", { class: "log", "aria-label": "Events, newest first" });
  const empty = element("p", { class: "empty", text: "Nothing has happened yet since you look." });
  const node = element("div", {}, empty, list);
  return {
    node,
    clear() { list.replaceChildren(); empty.hidden = false; },
    add(event) {
      empty.hidden = true;
      if (event.kind === "lost") {
        list.prepend(element("li", { class: "note warn", text: `${count(event.count)} events came too fast to be shown.` }));
      } else {
        list.prepend(eventRow(event));
      }
      while (list.childElementCount > EVENTS_SHOWN) list.lastElementChild.remove();
    },
  };
}

/** Follows the event log until the view is left; connects again when the stream ends. Returns a function that begins again. */
function follow(view, parameters, onEvent) {
  let current = null;
  const run = async () => {
    current?.abort();
    const mine = new AbortController();
    current = mine;
    view.signal.addEventListener("abort", () => mine.abort());
    while (!mine.signal.aborted) {
      try {
        await stream(parameters(), mine.signal, onEvent, () => view.works());
      } catch (error) {
        if (error.name === "AbortError") return;
        view.failed(error);
        if (error.status >= 400 && error.status < 500) return;
      }
      await new Promise((done) => { setTimeout(done, 1500); });
    }
  };
  run();
  return run;
}

async function events(view) {
  view.body.append(element("h1", { text: "Event log" }));
  const { select, choice } = await appChoice(view, true).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const channelFilter = element("input", { type: "search", placeholder: "part of a channel's name", value: view.parameters.get("channel") ?? "" });
  const socket = element("input", { type: "search", placeholder: "1234.5678", value: view.parameters.get("socket_id") ?? "" });
  const wanted = new Set((view.parameters.get("kind") ?? "").split(",").filter((kind) => KINDS.includes(kind)));
  const log = eventList();
  const held = [];
  let isPaused = false;
  const pause = element("button", { type: "button", class: "main", text: "Pause", "aria-pressed": "false", on: { click: () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    if (!isPaused) held.splice(0).forEach(log.add);
    label();
  } } });
  const label = () => setText(pause, isPaused ? `Continue (${count(held.length)} waiting)` : "Pause");
  const chips = KINDS.map((kind) => element("button", { type: "button", "aria-pressed": String(wanted.has(kind)), text: KIND_NAMES[kind] ?? kind, on: { click: (event) => {
    if (!wanted.delete(kind)) wanted.add(kind);
    event.target.setAttribute("aria-pressed", String(wanted.has(kind)));
    again();
  } } }));
  view.body.append(
    element("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } },
      choice, field("Channel", channelFilter), field("Socket id", socket, true),
      element("div", { class: "pager" }, pause, element("button", { type: "button", text: "Clear", on: { click: () => { held.length = 0; log.clear(); label(); } } }))),
    element("fieldset", { class: "chips", "aria-label": "Kinds of events; none chosen shows all" }, ...chips),
    element("section", { class: "card" }, log.node));
  const add = (event) => {
    if (!isPaused) return log.add(event);
    held.push(event);
    if (held.length > EVENTS_SHOWN) held.shift();
    label();
  };
  const again = follow(view, () => ({ app: select.value, channel: channelFilter.value.trim(), socket_id: socket.value.trim(), kind: [...wanted].join(",") }), add);
  select.addEventListener("change", again);
  let typing = 0;
  for (const input of [channelFilter, socket]) {
    input.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(again, 300); });
  }
  repeat(view, () => refreshHeader(view), SLOW_REFRESH);
}

// Refusals.

function refusalTable() {
  return table([
    ["Time", false, ({ at: ms }, at) => { at.className = "mono"; return clockTime(ms); }],
    ["Reason", false, ({ reason, cause }) => (reason === cause ? reason : `${reason}: ${cause}`)],
    ["Connection", false, ({ socket_id }, at) => (socket_id ? linkIn(at, socket_id, link("connection", { id: socket_id }), "id") : "–")],
    ["What and why", false, ({ text }, at) => named(at, text)],
  ], ({ at, cause, socket_id, text }) => `${at} ${cause} ${socket_id} ${text}`, "Nothing was refused that this server remembers.");
}

function refusals(view) {
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
    element("p", { class: "note", text: "What the server refused or closed last, with the text of its log. Each worker remembers 128. The reason is the one of the overview and of ringverb_refusals_total; after it, the cause in the log." }),
    element("form", { class: "filters", on: { submit: (event) => event.preventDefault() } }, field("Reason", choice, true)),
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

// Publish.

/** Why a text is no JSON, with the line; `null` if it is JSON. */
function jsonProblem(text) {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    const at = /position (\d+)/.exec(error.message);
    const line = at ? `Line ${text.slice(0, Number(at[1])).split("\n").length}: ` : "";
    return line + error.message;
  }
}

async function publish(view) {
  view.body.append(element("h1", { text: "Publish an event" }));
  const { select, choice } = await appChoice(view, false).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const input = (name, options = {}) => element("input", { name, autocomplete: "off", spellcheck: "false", ...options });
  const channelName = input("channel", { required: true, value: view.parameters.get("channel") ?? "", placeholder: "private-orders.1" });
  const event = input("event", { required: true, placeholder: "order.shipped, or App\\Events\\OrderShipped" });
  const except = input("socket_id", { placeholder: "nobody", pattern: "\\d+\\.\\d+", title: "a socket id such as 1234.5678" });
  const data = element("textarea", { name: "data", spellcheck: "false", "aria-describedby": "json-state" });
  data.value = "{\n  \"message\": \"Hello\"\n}";
  const check = element("p", { class: "note", id: "json-state" });
  const send = element("button", { class: "main", type: "submit", text: "Publish" });
  const asText = element("input", { type: "checkbox" });
  asText.style.width = "auto";
  const verify = () => {
    const problem = asText.checked ? null : jsonProblem(data.value);
    data.setAttribute("aria-invalid", String(Boolean(problem)));
    check.className = problem ? "note bad" : "note";
    setText(check, problem ?? (asText.checked ? "Sent as plain text." : "Valid JSON."));
    send.disabled = Boolean(problem);
    return !problem;
  };
  data.addEventListener("input", verify);
  asText.addEventListener("change", verify);
  const format = () => { if (!jsonProblem(data.value)) data.value = JSON.stringify(JSON.parse(data.value), null, 2); };
  const sent = element("ol", { class: "log", "aria-label": "Published, newest first" });
  const submit = async (submitted) => {
    submitted.preventDefault();
    if (!verify()) return;
    const text = asText.checked ? data.value : JSON.stringify(JSON.parse(data.value));
    const body = { name: event.value, channel: channelName.value, data: text };
    if (except.value.trim()) body.socket_id = except.value.trim();
    try {
      await post("/api/publish", body, select.value);
      view.works();
      say("Published.");
      sent.prepend(eventRow({ at: Date.now(), kind: "api_event", app: select.value, channel: body.channel, text: JSON.stringify({ event: body.name, data: text }) }));
      sent.parentNode.hidden = false;
    } catch (error) {
      view.failed(error);
    }
  };
  view.body.append(
    element("form", { class: "card form", on: { submit } },
      choice,
      element("div", { class: "two" }, field("Channel", channelName), field("Event", event)),
      field("Data", data), check,
      element("div", { class: "two" }, field("To all but this socket id", except)),
      element("div", { class: "actions" }, send, element("button", { type: "button", text: "Format", on: { click: format } }),
        element("label", {}, asText, " send as plain text"))),
    element("section", { class: "card", hidden: true }, heading("Published here"), sent));
  verify();
  repeat(view, () => refreshHeader(view), SLOW_REFRESH);
}

// Apps and nodes.

function apps(view) {
  const list = element("div");
  const note = element("p", { class: "note warn", hidden: true });
  view.body.append(element("h1", { text: "Apps" }), note, list);
  const make = ({ id, key, settings }) => element("section", { class: "card" },
    heading(`App ${id}`), element("p", { class: "numbers" }),
    element("details", {}, element("summary", { text: "Settings" }), details([["key", key], ...settings])));
  repeat(view, async () => {
    const found = await get("/api/traffic", {}, view.signal);
    view.works();
    reconcile(list, found.apps, ({ id }) => id, make, (row, { enabled, connections: open, totals }) => {
      setText(row.querySelector(".numbers"), `${enabled ? "" : "Disabled. "}${count(open)} connections, ${count(totals.channels)} channels, ${count(totals.messages_sent)} messages to clients, ${count(totals.published_events)} published events, ${count(totals.client_events)} client events`);
    });
    note.hidden = !found.left_out;
    setText(note, `${count(found.left_out)} more apps are not shown.`);
    await refreshHeader(view);
  }, SLOW_REFRESH);
}

function nodes(view) {
  const lead = element("p", { class: "note" });
  const list = table([
    ["Node", false, ({ node }, at) => { at.className = "mono"; return node; }],
    ["Last heartbeat", true, ({ seen_seconds_ago: seconds }) => (seconds === undefined ? "this node" : `${seconds} s ago`)],
  ], ({ node }) => node, "This node sees no other one.");
  const card = element("section", { class: "card" }, heading("Cluster"), list.node);
  view.body.append(element("h1", { text: "Nodes" }), lead, card);
  repeat(view, async () => {
    const found = await get("/api/nodes", {}, view.signal);
    view.works();
    card.hidden = !found.own;
    setText(lead, found.own
      ? `${found.sessions_up} of ${found.sessions} cluster sessions of this node are up. Channels, connections and members are those of all nodes. Rates, refusals and the event log are those of this node: open the console of each node at its RINGVERB_ADMIN.`
      : "This node is alone. REVERB_SCALING_ENABLED=true connects several nodes through Redis.");
    if (found.own) list.show([{ node: found.own }, ...found.nodes]);
    await refreshHeader(view);
  }, SLOW_REFRESH);
}
