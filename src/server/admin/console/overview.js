// The views of the whole server: its overview, its apps, the nodes of its cluster.
import {
  element, reconcile, setText, count, short, bytes, span, nanoseconds, quantile, HISTORY, Sparkline, repeat, link,
} from "./page.js";
import { get } from "./server.js";
import { REFRESH, SLOW_REFRESH, heading, table, linkIn, bar, details } from "./widgets.js";
import { lastOverview, showServer, refreshHeader } from "./header.js";

/** Values of the last minute, kept while other views are shown. */
const history = new Map();

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
  const each = Object.entries(now.totals).map(([name, value]) => [name, of(before.totals[name], value)]);
  const totals = Object.fromEntries(each);
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

function tile(name) {
  const value = element("div", { class: "value" });
  const more = element("div", { class: "more" });
  const spark = new Sparkline(name);
  const node = element("section", { class: "card tile", "aria-label": name },
    element("div", { class: "name", text: name }), value, more, spark.node);
  const show = (number, unit, note, raw) => {
    if (value.firstChild) { value.firstChild.data = number; value.lastChild.textContent = unit; }
    else value.append(number, element("small", { text: unit }));
    setText(more, note);
    if (raw !== null) spark.draw(noteHistory(name, raw));
  };
  return { node, show };
}

export function overview(view) {
  const tiles = Object.fromEntries([
    ["connections", "Connections"], ["out", "Messages to clients"], ["in", "Messages of clients"],
    ["published", "Published events"], ["data", "Data to clients"], ["memory", "Memory"],
  ].map(([key, name]) => [key, tile(name)]));
  const cores = table([
    ["Core", false, ({ core }) => core],
    ["Load", false, ({ rate }, at) => bar(at, rate?.load ?? 0, rate ?
      `${(rate.load * 100).toFixed(rate.load < 0.1 ? 1 : 0)} %` : "–")],
    ["Ticks /s", true, ({ rate }) => (rate ? short(rate.ticks) : "–")],
    ["Messages per send", true, ({ rate }) => (rate?.together ? rate.together.toFixed(2) : "–")],
    ["To clients /s", true, ({ rate }) => (rate ? short(rate.sent) : "–")],
    ["Of clients /s", true, ({ rate }) => (rate ? short(rate.received) : "–")],
    ["Subscriptions", true, ({ subscriptions }) => count(subscriptions)],
    ["Waits to be sent", true,
      ({ queue_bytes, queue_bytes_max }) => `${bytes(queue_bytes)} (max ${bytes(queue_bytes_max)})`],
    ["Mail waiting", true,
      ({ mail_waiting, mail_waiting_max }) => `${count(mail_waiting)} (max ${count(mail_waiting_max)})`],
    ["HTTP", true, ({ http_connections }) => count(http_connections)],
  ], ({ core }) => core, "no cores");
  const latency = element("dl");
  const refused = table([["Refused", false, ([name], at) => linkIn(at, name, link("refusals", { reason: name }))],
    ["since the start", true, ([, number]) => count(number)]], ([name]) => name, "Nothing was refused.");
  const ended = table([["Closed by", false, ({ by, why }) => `${by}: ${why}`],
    ["since the start", true, ({ count: number }) => count(number)]], ({ by, why }) => `${by} ${why}`,
    "No connection has ended.");
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
    const text = ({ bound, over }, index) =>
      `${index ? "99 %" : "half"} ${over ? "over" : "within"} ${show(bound)}`;
    return found.map(text).join(", ");
  };
  repeat(view, async () => {
    const now = await get("/api/overview", {}, view.signal);
    const rate = rates(lastOverview, now);
    view.works();
    showServer(now);
    const per = (name) => rate?.totals[name] ?? 0;
    const measured = (name) => rate?.totals[name] ?? null;
    tiles.connections.show(count(now.connections), "", `${count(now.totals.subscriptions)} subscriptions`,
      now.connections);
    tiles.out.show(short(per("messages_sent")), "/s", `${count(now.totals.messages_sent)} since the start`,
      measured("messages_sent"));
    tiles.in.show(short(per("messages_received")), "/s", `${short(per("client_events"))} client events /s`,
      measured("messages_received"));
    tiles.published.show(short(per("published_events")), "/s", `${short(per("http_calls"))} API requests /s`,
      measured("published_events"));
    tiles.data.show(bytes(per("sent_bytes")), "/s", `${bytes(per("received_bytes"))}/s of clients`,
      measured("sent_bytes"));
    const limit = now.memory_max ? `of ${bytes(now.memory_max)}` : "no limit is set";
    tiles.memory.show(now.resident_bytes ? bytes(now.resident_bytes) : "–", "", limit, now.resident_bytes ?? 0);
    cores.show(now.workers.map((worker, index) => ({ ...worker, rate: rate?.workers[index] })));
    const rows = [
      ["Publish to last send", limits(rate?.flush, now.publish_to_flush_ns, nanoseconds)],
      ["Ping to pong", limits(rate?.trip, now.round_trip_ms, (ms) => `${ms} ms`)],
      ["New connections", `${short(per("new_connections"))} /s`],
      ["Channels on this node", count(now.totals.channels)],
      ["Viewers of the event log",
        `${now.viewers}${now.lost_events ? `, ${count(now.lost_events)} events were lost` : ""}`],
    ];
    reconcile(latency, rows.flatMap(([name, value]) => [[`t ${name}`, "dt", name], [`d ${name}`, "dd", value]]),
      ([key]) => key, ([, tag]) => element(tag), (node, [, , text]) => setText(node, text));
    refused.show(Object.entries(now.refused).sort(([, a], [, b]) => b - a));
    ended.show(now.ended.toSorted((a, b) => b.count - a.count));
    webhooks.hidden = !now.webhooks;
    if (now.webhooks) {
      const { waiting, oldest_ms: oldest, delivered, given_up: givenUp, requests, requests_failed: failed,
        failing_seconds: failing } = now.webhooks;
      const lines = [["Events delivered", count(delivered)],
        ["Events waiting", waiting ? `${count(waiting)}, the oldest for ${span(oldest / 1000)}` : "0"],
        ["Events given up", count(givenUp)], ["Requests", `${count(requests)}, ${count(failed)} failed`],
        ["Failing for", failing ? span(failing) : "–"]];
      reconcile(webhooks.lastChild, lines.flatMap(([name, value]) => [[`t ${name}`, "dt", name],
        [`d ${name}`, "dd", value]]), ([key]) => key, ([, tag]) => element(tag),
        (node, [, , text]) => setText(node, text));
    }
  }, REFRESH);
}

export function apps(view) {
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
      const counted = totals
        ? `${count(totals.channels)} channels, ${count(totals.messages_sent)} messages to clients, ` +
          `${count(totals.published_events)} published events, ${count(totals.client_events)} client events`
        : "not counted on its own until the next restart or take-over";
      setText(row.querySelector(".numbers"), `${enabled ? "" : "Disabled. "}${count(open)} connections, ${counted}`);
    });
    note.hidden = !found.left_out;
    setText(note, `${count(found.left_out)} more apps are not shown.`);
    await refreshHeader(view);
  }, SLOW_REFRESH);
}

export function nodes(view) {
  const lead = element("p", { class: "note" });
  const list = table([
    ["Node", false, ({ node }, at) => { at.className = "mono"; return node; }],
    ["Last heartbeat", true, ({ seen_seconds_ago: seconds }) => (seconds === undefined ? "this node" :
      `${seconds} s ago`)],
  ], ({ node }) => node, "This node sees no other one.");
  const card = element("section", { class: "card" }, heading("Cluster"), list.node);
  view.body.append(element("h1", { text: "Nodes" }), lead, card);
  repeat(view, async () => {
    const found = await get("/api/nodes", {}, view.signal);
    view.works();
    card.hidden = !found.own;
    setText(lead, found.own
      ? `${found.sessions_up} of ${found.sessions} cluster sessions of this node are up. ` +
        "Channels, connections and members are those of all nodes. Rates, refusals and the event log are those of " +
        "this node: open the console of each node at its RINGVERB_ADMIN."
      : "This node is alone. REVERB_SCALING_ENABLED=true connects several nodes through Redis.");
    if (found.own) list.show([{ node: found.own }, ...found.nodes]);
    await refreshHeader(view);
  }, SLOW_REFRESH);
}
