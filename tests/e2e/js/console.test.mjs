// The console in a browser: what it shows of real clients, what it does, and what it must not do. With
// SCREENSHOTS=folder it leaves pictures for people to look at.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { Browser } from "../lib/browser.mjs";
import { Clients, backend, subscribe } from "../lib/clients.mjs";
import { freePort, startServer } from "../lib/server.mjs";
import { until } from "../lib/wait.mjs";

const TOKEN = "0123456789abcdef-token";
const HOSTILE = "<img src=x onerror=alert(1)>";

let server;
let clients;
let browser;
let url;

before(async () => {
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  server = await startServer({
    RINGVERB_ADMIN: `127.0.0.1:${port}`,
    RINGVERB_WORKERS: "2",
    // Without a token, contents are for developers only.
    RINGVERB_DEVELOPMENT: "true",
    REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM: "members",
  });
  clients = new Clients(server);
  browser = await Browser.start();
});

after(async () => {
  clients?.closeAll();
  await browser?.stop();
  await server?.stop();
});

async function open(hash = "", options = {}) {
  const page = await browser.page(options);
  await page.open(`${url}/${hash}`);
  return page;
}

/** All that a page may complain about is nothing, and all that it loads is the listener's. */
function assertClean(page, expected = []) {
  assert.deepEqual(page.problems.filter((problem) => !expected.some((text) => problem.includes(text))), []);
  const elsewhere = page.requests.filter((address) => !address.startsWith(url) && !address.startsWith("data:") &&
    address !== "about:blank");
  assert.deepEqual(elsewhere, []);
}

const rowsText = `[...document.querySelectorAll("tbody tr")].map((row) => row.innerText)`;

test("the overview shows connections, cores and rates of a running server", async () => {
  const client = await clients.connect();
  await subscribe(client, "overview-channel");
  const page = await open();
  await page.sees(`document.querySelector('[aria-label="Connections"] .value').textContent === "1"`, "one connection");
  await page.sees(`document.querySelector("#state").textContent === "ready"`);
  await page.sees(`${rowsText}.length >= 2`, "two cores");
  const publish = setInterval(() => backend(server).trigger("overview-channel", "tick", { at: 1 }).catch(() => {}), 20);
  try {
    await page.sees(`!document.querySelector('[aria-label="Published events"] .value').textContent.startsWith("0")`,
      "a rate");
    await page.sees(`[...document.querySelectorAll(".spark path")].some((path) => path.getAttribute("d"))`, "a line");
  } finally {
    clearInterval(publish);
  }
  assertClean(page);
});

test("channels are filtered, sorted and paged, and their names are never markup", async () => {
  const client = await clients.raw();
  for (let index = 0; index < 130; index += 1) await client.subscribe(`paged-${String(index).padStart(3, "0")}`);
  await client.subscribe(`hostile-${HOSTILE}`);
  const other = await clients.raw();
  await other.subscribe("paged-077");
  const page = await open("#/channels");
  await page.type("input[type=search]", "paged-");
  await page.seesText("130 channels, 131 subscriptions");
  await page.sees(`${rowsText}.length === 100 && ${rowsText}[0].startsWith("paged-077")`, "the largest channel first");
  await page.press("Next →");
  await page.sees(`${rowsText}.length === 30`, "the second page");
  await page.press("Name");
  await page.sees(`${rowsText}[0].startsWith("paged-000")`, "sorted by name");
  assert.equal(await page.eval(`document.querySelector("th[aria-sort]").getAttribute("aria-sort")`), "ascending");
  await page.type("input[type=search]", "hostile-");
  await page.sees(`${rowsText}.length === 1`, "one channel");
  await page.press(`hostile-${HOSTILE}`);
  await page.sees(`document.querySelector("h1").textContent === ${JSON.stringify(`hostile-${HOSTILE}`)}`,
    "the name as text");
  assert.equal(await page.eval(`document.querySelectorAll("main img").length`), 0);
  assertClean(page);
});

test("a channel shows its members, and a connection its inside and why it was refused", async () => {
  const member = { user_id: "7", user_info: { name: "Ada" } };
  const client = await clients.connect({ member });
  await subscribe(client, "presence-console");
  const raw = await clients.raw();
  raw.send({ event: "pusher:subscribe", data: { channel: "private-secret", auth: "app-key:wrong" } });
  await raw.frames.first(({ event }) => event === "pusher:error", "a refusal");
  const page = await open("#/channel?app=1001&name=presence-console");
  await page.seesText('{"name":"Ada"}');
  await page.press(client.connection.socket_id);
  await page.seesText("of a presence channel");
  await page.seesText("presence-console");
  await page.sees(`/Round trip\\s+[0-9.]+ ms/.test(document.querySelector("main").innerText)`, "a round trip");
  await page.open(`${url}/#/connection?id=${raw.socketId}`);
  await page.open(`${url}/?again#/connection?id=${raw.socketId}`);
  await page.seesText("signature");
  await page.seesText("private-secret");
  assertClean(page);
});

test("hidden characters of names are shown escaped, and long ones do not widen the page", async () => {
  const id = `a\u202eb\u200b${"x".repeat(120)}`;
  const client = await clients.connect({ member: { user_id: id, user_info: { name: "a  b" } } });
  await subscribe(client, "presence-hidden");
  const page = await open("#/channel?app=1001&name=presence-hidden");
  await page.seesText(`a\\u{202e}b\\u{200b}xxx`);
  assert.ok(!/[\u202e\u200b]/.test(await page.eval(`document.querySelector("main").textContent`)));
  const cell = `document.querySelector("tbody td.name")`;
  assert.equal(await page.eval(`getComputedStyle(${cell}).whiteSpaceCollapse`), "preserve");
  const [inner, outer] =
    await page.eval(`[document.documentElement.scrollWidth, document.documentElement.clientWidth]`);
  assert.ok(inner <= outer, `${inner} of ${outer}`);
  assertClean(page);
});

test("disconnect closes the connection with a code after which its client stays away", async () => {
  const raw = await clients.raw();
  for (let index = 0; index < 12; index += 1) {
    raw.send({ event: "pusher:subscribe", data: { channel: `private-${index}`, auth: "app-key:wrong" } });
  }
  await raw.frames.atLeast(12);
  const page = await open(`#/connection?id=${raw.socketId}`);
  await page.seesText("Inside");
  await page.seesText("the last 10 of 12");
  const order = await page.eval(
    `[...document.querySelectorAll("main button.danger, main h2")].map((node) => node.textContent.split(" ")[0])`);
  assert.deepEqual(order, ["Disconnect", "Inside", "Channels", "What", "Why"]);
  await page.press("Disconnect");
  const [{ code }] = await raw.closed.atLeast(1);
  assert.equal(code, 4009);
  await page.seesText("is open on this node");
  // The browser reports the 404 of a connection that is gone.
  assertClean(page, ["404"]);
});

test("a subscription is ended with the keyboard, and from the channel's page", async () => {
  const raw = await clients.raw();
  const told = (channel) => raw.frames.first(({ event, channel: of }) => event === "pusher:subscription_error" &&
    of === channel, channel);
  for (const channel of ["ended-by-key", "ended-there", "kept"]) await raw.subscribe(channel);
  const page = await open(`#/connection?id=${raw.socketId}`);
  await page.sees(`document.querySelectorAll(".tags button").length === 3`, "a button for each channel");
  const names = await page.eval(`[...document.querySelectorAll(".tags button")].map((button) => button.ariaLabel)`);
  assert.deepEqual(names.sort(), ["Unsubscribe from ended-by-key", "Unsubscribe from ended-there",
    "Unsubscribe from kept"]);
  await page.eval(`document.querySelector('[aria-label="Unsubscribe from ended-by-key"]').focus()`);
  await page.key("Enter");
  await told("ended-by-key");
  await page.sees(`document.querySelectorAll(".tags button").length === 2`, "the channel is gone");
  await page.sees(`document.activeElement.matches(".tags button")`, "the focus stays in the list");
  await page.open(`${url}/#/channel?app=1001&name=ended-there`);
  await page.open(`${url}/?again#/channel?app=1001&name=ended-there`);
  await page.press("Unsubscribe");
  await told("ended-there");
  await page.seesText("No connection matches.");
  await page.open(`${url}/?again#/refusals`);
  await page.open(`${url}/?once-more#/refusals?reason=access_withdrawn`);
  await page.sees(`${rowsText}.filter((row) => row.includes("access_withdrawn: subscription_ended")).length === 2`,
    "both are refusals with the overview's reason");
  await page.open(`${url}/?at-last#/overview`);
  await page.press("access_withdrawn");
  await page.sees(
    `location.hash === "#/refusals?reason=access_withdrawn" && ` +
    `document.querySelector("select").value === "access_withdrawn"`);
  assertClean(page);
});

test("the event log shows what happens, filters it, and pauses", async () => {
  const page = await open("#/events?kind=subscribed,api_event,client_event,refused");
  await page.seesText("Nothing has happened yet");
  await until(async () => (await (await fetch(`${url}/api/overview`)).json()).viewers, (viewers) => viewers > 0,
    "the page looks");
  const one = await clients.connect();
  const { channel } = await subscribe(one, "private-log");
  const two = await clients.connect();
  await subscribe(two, "private-log");
  await backend(server).trigger("private-log", "order.shipped", { note: HOSTILE });
  channel.trigger("client-typing", { who: "ada" });
  const raw = await clients.raw();
  raw.send("no JSON");
  const shown = ["subscribed", "order.shipped", "client-typing", "client event", "refused"];
  for (const text of shown) await page.seesText(text);
  const seen = () => page.eval(`document.querySelectorAll(".log li").length`);
  assert.equal(await page.eval(`document.querySelectorAll("main img").length`), 0);
  assert.ok(!(await page.eval(`document.querySelector(".log").innerText.includes("connected\\n")`)),
    "a kind that was not asked for");
  await page.press("Pause");
  const before = await seen();
  await backend(server).trigger("private-log", "while.paused", {});
  await page.press("Continue (1 waiting)");
  await page.seesText("while.paused");
  assert.ok((await seen()) > before);
  await page.type('input[placeholder="part of a channel\'s name"]', "elsewhere");
  const isAsked = (address) => address.includes("/api/events") && address.includes("channel=elsewhere");
  await until(() => page.requests.some(isAsked), Boolean, "the page asks for the channel");
  await page.press("Clear");
  await until(async () => {
    await backend(server).trigger("private-log", "not.shown", {});
    await backend(server).trigger("elsewhere-1", "is.shown", {});
    return page.eval(`document.querySelector(".log").innerText`);
  }, (text) => text.includes("is.shown"), "the filter holds");
  assert.ok(!(await page.eval(`document.querySelector(".log").innerText.includes("not.shown")`)));
  assertClean(page);
});

test("the event creator checks its JSON and publishes to subscribers", async () => {
  const client = await clients.connect();
  const { log } = await subscribe(client, "made-by-hand");
  const page = await open("#/publish?channel=made-by-hand");
  await page.seesText("Valid JSON.");
  await page.type("input[name=event]", "hand.made");
  await page.type("textarea", '{"a": 1,}');
  await page.sees(`document.querySelector("form button[type=submit]").disabled`, "no event of broken JSON");
  await page.sees(`document.querySelector("textarea").getAttribute("aria-invalid") === "true"`);
  await page.type("textarea", '{"a": 1}');
  await page.sees(`!document.querySelector("form button[type=submit]").disabled`);
  await page.click("form button[type=submit]");
  const received = await log.first(({ event }) => event === "hand.made", "the event");
  assert.deepEqual(received.data, { a: 1 });
  await page.seesText("Published here");
  assertClean(page);
});

/** Passes requests below /ops on as the package for Laravel does, and asks for the value of a cookie before changes. */
async function application() {
  const seen = [];
  const proxy = createServer((request, answer) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk)).on("end", async () => {
      const path = request.url.replace(/^\/ops\/?/, "/");
      const token = request.headers["x-xsrf-token"];
      seen.push([request.method, request.url, token]);
      if (!request.url.startsWith("/ops") || (request.method === "POST" && token !== "a value=")) {
        answer.writeHead(419).end();
        return;
      }
      const body = request.method === "POST" ? Buffer.concat(chunks) : undefined;
      const type = request.headers["content-type"] ?? "";
      const headers = { accept: path === "/" ? "text/html" : "*/*", "content-type": type };
      const found = await fetch(`${url}${path}`, { method: request.method, headers, body });
      const text = (await found.text()).replace(/\b(href|src)="\/(?=[a-z])/g, '$1="/ops/');
      answer.writeHead(found.status, {
        "content-type": found.headers.get("content-type"),
        "content-security-policy": found.headers.get("content-security-policy") ?? "",
        "set-cookie": "XSRF-TOKEN=a%20value%3D; Path=/",
      });
      answer.end(path === "/" ? text : Buffer.from(text));
    });
  });
  await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening));
  return { proxy, seen, at: `http://127.0.0.1:${proxy.address().port}/ops` };
}

test("the page works below a folder of an application, and sends its CSRF token with changes", async () => {
  const { proxy, seen, at } = await application();
  try {
    const client = await clients.connect();
    const { log } = await subscribe(client, "from-a-folder");
    const page = await browser.page();
    await page.open(`${at}#/publish?channel=from-a-folder`);
    await page.seesText("Valid JSON.");
    await page.type("input[name=event]", "foldered");
    await page.click("form button[type=submit]");
    await log.first(({ event }) => event === "foldered", "the event");
    assert.deepEqual(page.problems, []);
    assert.deepEqual(page.requests.filter((address) => /^http/.test(address) && !address.startsWith(at)), []);
    assert.deepEqual(seen.filter(([method, , token]) => method === "GET" && token), [], "only changes need the token");
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
});

test("apps are shown without their secrets, and a node without a cluster as alone", async () => {
  const page = await open("#/apps");
  await page.seesText("App 1001");
  await page.click("summary");
  await page.seesText("set, not shown");
  assert.ok(!(await page.eval("document.documentElement.outerHTML")).includes("app-secret"));
  assert.ok(!(await (await fetch(`${url}/api/traffic`)).text()).includes("app-secret"));
  await page.press("Nodes");
  await page.seesText("This node is alone");
  assertClean(page);
});

test("keys lead to views and to the filter, and every control has a name", async () => {
  const page = await open();
  await page.seesText("Overview");
  await page.key("2");
  await page.sees(`location.hash === "#/channels" && document.querySelector("input[type=search]")`);
  await page.key("/");
  await page.sees(`document.activeElement.type === "search"`, "the filter has the focus");
  const nameless = `[...document.querySelectorAll("button, a, input, select, textarea")].filter((node) =>
    !(node.innerText?.trim() || node.getAttribute("aria-label") || node.labels?.length)).map((node) => node.outerHTML)`;
  for (const view of ["overview", "channels", "connections", "events", "refusals", "publish", "apps", "nodes"]) {
    await page.eval(`location.hash = "#/${view}"`);
    await page.sees(`document.querySelector("h1")`);
    assert.deepEqual(await page.eval(nameless), [], view);
    assert.equal(await page.eval(`document.querySelectorAll('#tabs [aria-current="page"]').length`), 1);
  }
  assertClean(page);
});

test("the page fits a phone, and the switch changes its colours for good", async () => {
  const page = await open("", { width: 390, height: 844, mobile: true });
  for (const view of ["overview", "channels", "connections", "events", "refusals", "publish", "apps", "nodes"]) {
    await page.eval(`location.hash = "#/${view}"`);
    await page.sees(`document.querySelector("h1")`);
    const width = await page.eval("document.documentElement.scrollWidth");
    assert.ok(width <= 390, `${view} is ${width} wide`);
  }
  const ground = () => page.eval("getComputedStyle(document.body).backgroundColor");
  const light = await ground();
  await page.click("#theme");
  await page.click("#theme");
  await page.sees(`document.documentElement.dataset.theme === "dark"`);
  assert.notEqual(await ground(), light);
  await page.open(`${url}/?again`);
  assert.equal(await page.eval("document.documentElement.dataset.theme"), "dark");
  assertClean(page);
});

test("without a token the views say what to set, and the overview works", async () => {
  const port = await freePort();
  const closed = await startServer({ RINGVERB_ADMIN: `127.0.0.1:${port}`, RINGVERB_WORKERS: "1" });
  try {
    const page = await browser.page();
    await page.open(`http://127.0.0.1:${port}/`);
    await page.sees(`document.querySelector("#state").textContent === "ready"`);
    for (const view of ["Channels", "Connections", "Event log", "Refusals", "Publish", "Apps", "Nodes"]) {
      await page.press(view);
      await page.sees(
        `document.querySelector("main").innerText.startsWith("This view needs a token: set RINGVERB_ADMIN_TOKEN")`,
        view);
    }
  } finally {
    await closed.stop();
  }
});

test("with a token the page asks for it, keeps it for the tab, and sends it", async () => {
  const port = await freePort();
  const guarded = await startServer({ RINGVERB_ADMIN: `127.0.0.1:${port}`, RINGVERB_ADMIN_TOKEN: TOKEN,
    RINGVERB_WORKERS: "1" });
  try {
    const page = await browser.page();
    await page.open(`http://127.0.0.1:${port}/`);
    await page.seesText("This console needs a token");
    await page.picture("token");
    await page.type("input[type=password]", "not the right token");
    await page.press("Open the console");
    await page.seesText("The server refused this token.");
    await page.type("input[type=password]", TOKEN);
    await page.press("Open the console");
    await page.sees(`document.querySelector("#state").textContent === "ready"`);
    await page.press("Event log");
    await page.seesText("Nothing has happened yet");
    await page.open(`http://127.0.0.1:${port}/?again`);
    await page.sees(`document.querySelector("#state").textContent === "ready"`, "the tab has the token");
    await page.press("Forget token");
    await page.seesText("This console needs a token");
    assert.equal(await page.eval("sessionStorage.length"), 0);
  } finally {
    await guarded.stop();
  }
});
