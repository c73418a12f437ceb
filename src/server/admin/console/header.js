// The header: which server is shown, and its state.
import { setText, span, showState } from "./page.js";
import { get } from "./server.js";

/** The overview that was read last; `null` before the first. */
export let lastOverview = null;

const where = document.getElementById("where");

/** Keeps an overview, and shows its server and its state. */
export function showServer(now) {
  lastOverview = now;
  const node = now.node ? ` · node ${now.node.slice(0, 8)}` : "";
  setText(where, `${now.host} · ${now.version} · ${now.kernel} · up ${span(now.uptime_seconds)}${node}`);
  if (now.not_ready) showState("warn", `not ready: ${now.not_ready}`);
  else showState("good", "ready");
}

/** Views without numbers of the whole server keep the header right. */
export async function refreshHeader(view) {
  showServer(await get("/api/overview", {}, view.signal));
}
