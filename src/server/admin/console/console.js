// The console: its tabs, the view that the address names, the token, the colours. Each view is a function that fills
// `view.body` and refreshes it until the view is left.
import { element, field, setText, showState } from "./page.js";
import { TOKEN, Refused, onTokenNeeded } from "./server.js";
import { overview, apps, nodes } from "./overview.js";
import { channels, channel } from "./channels.js";
import { connections, connection, refusals } from "./connections.js";
import { events, publish } from "./events.js";

/** Tabs: name of the view, title, and views that belong to it. */
const titles = [
  ["overview", "Overview"],
  ["channels", "Channels", "channel"],
  ["connections", "Connections", "connection"],
  ["events", "Event log"],
  ["refusals", "Refusals"],
  ["publish", "Publish"],
  ["apps", "Apps"],
  ["nodes", "Nodes"],
];

const views = { overview, channels, channel, connections, connection, events, refusals, publish, apps, nodes };

const main = document.getElementById("main");
let leaveView = () => {};

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { name: views[path] ? path : "overview", parameters: new URLSearchParams(query) };
}

const TOKEN_NEEDED = "This view needs a token: set RINGVERB_ADMIN_TOKEN for the server and run `ringverb reload`. " +
  "This page then asks for the token.";

function show(keepsFocus = false) {
  leaveView();
  const { name, parameters } = route();
  const ends = new AbortController();
  leaveView = () => ends.abort();
  const problem = element("p", { class: "note bad", role: "alert", hidden: true });
  const body = element("div");
  const view = {
    parameters,
    body,
    signal: ends.signal,
    failed(error) {
      // The view was left while the server answered.
      if (error.name === "AbortError") return;
      const needsToken = error.status === 403 && error.message.includes("RINGVERB_ADMIN_TOKEN");
      if (needsToken) {
        body.replaceChildren();
        showState("warn", "token needed");
      }
      setText(problem, needsToken ? TOKEN_NEEDED : error.message);
      problem.hidden = false;
      if (error.status === 0) showState("bad", "no connection");
      // A fault of this page, not an answer of the server.
      if (!(error instanceof Refused)) reportError(error);
    },
    works() { problem.hidden = true; },
  };
  main.replaceChildren(problem, body);
  const shown = titles.find(([of, , ...inner]) => of === name || inner.includes(name));
  for (const tab of document.querySelectorAll("#tabs a")) {
    const isCurrent = tab.dataset.name === shown?.[0];
    if (isCurrent) {
      tab.setAttribute("aria-current", "page");
      tab.scrollIntoView({ block: "nearest", inline: "center" });
    } else tab.removeAttribute("aria-current");
  }
  document.title = `${shown?.[1] ?? "Overview"} · ringverb console`;
  views[name](view);
  if (!keepsFocus) main.focus({ preventScroll: true });
}

function askForToken(wasWrong) {
  leaveView();
  sessionStorage.removeItem(TOKEN);
  document.getElementById("leave").hidden = true;
  showState("warn", "token needed");
  const input = element("input", { type: "password", name: "token", autocomplete: "current-password", required: true,
    "aria-invalid": wasWrong ? "true" : null });
  const enter = (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, input.value.trim());
    begin();
  };
  main.replaceChildren(
    element("form", { class: "card gate form", on: { submit: enter } },
      element("h1", { text: "This console needs a token" }),
      element("p",
        { class: "note", text: "It is the value of RINGVERB_ADMIN_TOKEN. This tab keeps it until it is closed." }),
      wasWrong ? element("p", { class: "note bad", role: "alert", text: "The server refused this token." }) : null,
      field("Token", input),
      element("div", { class: "actions" },
        element("button", { class: "main", type: "submit", text: "Open the console" }))),
  );
  input.focus();
}

function begin() {
  document.getElementById("leave").hidden = !sessionStorage.getItem(TOKEN);
  show();
}

// Colours: those of the system, or a choice that this browser keeps.
const THEME = "ringverb theme";
const theme = document.getElementById("theme");
function applyTheme() {
  const chosen = localStorage.getItem(THEME);
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  theme.textContent = { light: "☀ light", dark: "☾ dark" }[chosen] ?? "◐ auto";
}
theme.addEventListener("click", () => {
  const next = { auto: "light", light: "dark", dark: null }[localStorage.getItem(THEME) ?? "auto"];
  if (next) localStorage.setItem(THEME, next);
  else localStorage.removeItem(THEME);
  applyTheme();
});
applyTheme();

onTokenNeeded(askForToken);
document.getElementById("leave").addEventListener("click", () => askForToken(false));
document.getElementById("tabs").append(...titles.map(([name, title], index) =>
  element("a", { href: `#/${name}`, text: title, "data-name": name, title: `${title} (key ${index + 1})` })));
// The skip link is no route.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => show());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  const title = titles[Number(event.key) - 1];
  if (title) location.hash = `#/${title[0]}`;
  if (event.key === "/") {
    const filter = main.querySelector("input[type=search]");
    if (filter) { event.preventDefault(); filter.focus(); }
  }
});
begin();
