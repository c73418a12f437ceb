// Requests to the admin API, with the token of this tab.

/** Name of the value in `sessionStorage`: the tab keeps the token until it is closed. */
export const TOKEN = "ringverb token";
let tokenIsNeeded = () => {};

/** `act(wasWrong)` is called when the server refuses a request without a token, or with a wrong one. */
export function onTokenNeeded(act) {
  tokenIsNeeded = act;
}

/** The folder of this script: `/`, or a folder of a web application that passes requests on to this listener. */
const FOLDER = new URL(".", import.meta.url);
/** Laravel refuses a change without the value of its cookie. A page of another origin cannot read the cookie. */
const csrf = () => document.cookie.split("; ").find((cookie) => cookie.startsWith("XSRF-TOKEN="))?.slice(11);
const fields = () => {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
};

export class Refused extends Error {
  constructor(status, text) {
    super(text.trim() || `The server answered ${status}.`);
    this.status = status;
  }
}

async function request(path, options = {}) {
  let answer;
  try {
    const url = new URL(path.slice(1), FOLDER);
    answer = await fetch(url, { cache: "no-store", ...options, headers: { ...fields(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  if (answer.status === 401) tokenIsNeeded(Boolean(sessionStorage.getItem(TOKEN)));
  throw new Refused(answer.status, text);
}

export async function get(path, parameters = {}, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(given);
  return (await request(given.length ? `${path}?${query}` : path, { signal })).json();
}

export async function post(path, body, app) {
  const headers = { "Content-Type": "application/json" };
  if (FOLDER.pathname !== "/" && csrf()) headers["X-XSRF-TOKEN"] = decodeURIComponent(csrf());
  const options = { method: "POST", headers, body: JSON.stringify(body) };
  return (await request(app ? `${path}?${new URLSearchParams({ app })}` : path, options)).text();
}

/** Reads server-sent events with the token, which `EventSource` cannot send. */
export async function stream(parameters, signal, onEvent, onOpen) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  const answer = await request(`/api/events?${new URLSearchParams(given)}`, { signal });
  onOpen();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) onEvent(JSON.parse(line.slice(6)));
  }
}
