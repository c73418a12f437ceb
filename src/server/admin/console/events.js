// The event log, in all or of one connection, and the form that publishes an event.
import { element, field, setText, count, clockTime, say, repeat, link } from "./page.js";
import { post, stream } from "./server.js";
import { SLOW_REFRESH, heading, details, appChoice } from "./widgets.js";
import { refreshHeader } from "./header.js";

const KINDS = ["connected", "disconnected", "subscribed", "unsubscribed", "signed_in", "refused", "api_event",
  "client_event", "webhook"];
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
      event.channel && ["Channel", element("a", { href: link("channel", { app: event.app, name: event.channel }),
        text: event.channel })],
      event.socket_id && [event.kind === "api_event" ? "All but" : "Connection",
        element("a", { href: link("connection", { id: event.socket_id }), class: "mono", text: event.socket_id })],
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

export function eventList() {
  const list = element("ol", { class: "log", "aria-label": "Events, newest first" });
  const empty = element("p", { class: "empty", text: "Nothing has happened yet since you look." });
  const node = element("div", {}, empty, list);
  return {
    node,
    clear() { list.replaceChildren(); empty.hidden = false; },
    add(event) {
      empty.hidden = true;
      if (event.kind === "lost") {
        list.prepend(element("li", { class: "note warn",
          text: `${count(event.count)} events came too fast to be shown.` }));
      } else {
        list.prepend(eventRow(event));
      }
      while (list.childElementCount > EVENTS_SHOWN) list.lastElementChild.remove();
    },
  };
}

/**
 * Follows the event log until the view is left; connects again when the stream ends. Returns a function that begins
 * again.
 */
export function follow(view, parameters, onEvent) {
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

export async function events(view) {
  view.body.append(element("h1", { text: "Event log" }));
  const { select, choice } = await appChoice(view, true).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const channelFilter = element("input", { type: "search", placeholder: "part of a channel's name",
    value: view.parameters.get("channel") ?? "" });
  const socket = element("input", { type: "search", placeholder: "1234.5678",
    value: view.parameters.get("socket_id") ?? "" });
  const wanted = new Set((view.parameters.get("kind") ?? "").split(",").filter((kind) => KINDS.includes(kind)));
  const log = eventList();
  const held = [];
  let isPaused = false;
  const pause = element("button", { type: "button", class: "main", text: "Pause", "aria-pressed": "false",
    on: { click: () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    if (!isPaused) held.splice(0).forEach(log.add);
    label();
  } } });
  const label = () => setText(pause, isPaused ? `Continue (${count(held.length)} waiting)` : "Pause");
  const clear = () => {
    held.length = 0;
    log.clear();
    label();
  };
  const chips = KINDS.map((kind) => element("button", { type: "button",
    "aria-pressed": String(wanted.has(kind)), text: KIND_NAMES[kind] ?? kind, on: { click: (event) => {
    if (!wanted.delete(kind)) wanted.add(kind);
    event.target.setAttribute("aria-pressed", String(wanted.has(kind)));
    again();
  } } }));
  view.body.append(
    element("form", { class: "filters", role: "search", on: { submit: (event) => event.preventDefault() } },
      choice, field("Channel", channelFilter), field("Socket id", socket, true),
      element("div", { class: "pager" }, pause,
        element("button", { type: "button", text: "Clear", on: { click: clear } }))),
    element("fieldset", { class: "chips", "aria-label": "Kinds of events; none chosen shows all" }, ...chips),
    element("section", { class: "card" }, log.node));
  const add = (event) => {
    if (!isPaused) return log.add(event);
    held.push(event);
    if (held.length > EVENTS_SHOWN) held.shift();
    label();
  };
  const again = follow(view, () => ({ app: select.value, channel: channelFilter.value.trim(),
    socket_id: socket.value.trim(), kind: [...wanted].join(",") }), add);
  select.addEventListener("change", again);
  let typing = 0;
  for (const input of [channelFilter, socket]) {
    input.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(again, 300); });
  }
  repeat(view, () => refreshHeader(view), SLOW_REFRESH);
}

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

export async function publish(view) {
  view.body.append(element("h1", { text: "Publish an event" }));
  const { select, choice } = await appChoice(view, false).catch((error) => { view.failed(error); return {}; });
  if (!select || view.signal.aborted) return;
  const input = (name, options = {}) =>
    element("input", { name, autocomplete: "off", spellcheck: "false", ...options });
  const channelName = input("channel", { required: true, value: view.parameters.get("channel") ?? "",
    placeholder: "private-orders.1" });
  const event = input("event", { required: true, placeholder: "order.shipped, or App\\Events\\OrderShipped" });
  const except = input("socket_id", { placeholder: "nobody", pattern: "\\d+\\.\\d+",
    title: "a socket id such as 1234.5678" });
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
      sent.prepend(eventRow({ at: Date.now(), kind: "api_event", app: select.value, channel: body.channel,
        text: JSON.stringify({ event: body.name, data: text }) }));
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
      element("div", { class: "actions" }, send,
        element("button", { type: "button", text: "Format", on: { click: format } }),
        element("label", {}, asText, " send as plain text"))),
    element("section", { class: "card", hidden: true }, heading("Published here"), sent));
  verify();
  repeat(view, () => refreshHeader(view), SLOW_REFRESH);
}
