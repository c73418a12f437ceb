// TLS of the server: pusher-js over wss, and the Pusher server library over https.

import assert from "node:assert/strict";
import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import https from "node:https";
import path from "node:path";
import { test } from "node:test";
import tls from "node:tls";
import { fileURLToPath } from "node:url";
import { Browser } from "../lib/browser.mjs";
import { backend, published, subscribe } from "../lib/clients.mjs";
import { APP, freePort } from "../lib/server.mjs";
import { withServer } from "../lib/suite.mjs";

const certificates = path.resolve(fileURLToPath(import.meta.url), "../../../certificates");
const file = (name) => path.join(certificates, name);

// pusher-js takes no certificate of an authority, so every TLS connection of this process trusts the tests' one.
const createSecureContext = tls.createSecureContext;
const ca = readFileSync(file("authority.pem"));
tls.createSecureContext = (options = {}) => createSecureContext({ ...options, ca });
https.globalAgent.options.ca = ca;

const tlsPort = await freePort();
const suite = withServer({
  RINGVERB_TLS_CERT: file("server.pem"),
  RINGVERB_TLS_KEY: file("server.key.pem"),
  RINGVERB_TLS_PORT: String(tlsPort),
});

const secure = { forceTLS: true, wsHost: "localhost", wssPort: tlsPort, enabledTransports: ["ws", "wss"] };
const overHttps = { useTLS: true, host: "localhost", port: String(tlsPort) };

test("pusher-js subscribes over wss and gets what is published over https", async () => {
  const client = await suite.clients.connect(secure);
  const { log } = await subscribe(client, "private-orders.7");
  for (let id = 0; id < 20; id++) {
    await backend(suite.server, overHttps).trigger("private-orders.7", "e", { id });
  }
  await log.first(({ event, data }) => event === "e" && data.id === 19);
  const ids = published(log).map(({ data }) => data.id);
  assert.deepEqual(ids, [...Array(20).keys()]);
});

test("presence and client events work between a plain and a secure client", async () => {
  const plain = await suite.clients.connect({ member: { user_id: "1" } });
  const other = await suite.clients.connect({ ...secure, member: { user_id: "2" } });
  const first = await subscribe(plain, "presence-room");
  const second = await subscribe(other, "presence-room");
  await first.log.first(({ event, data }) => event === "pusher:member_added" && data.id === "2");
  second.channel.trigger("client-hello", { from: 2 });
  await first.log.first(({ event }) => event === "client-hello");
});

test("node fetches over https and resumes its session", async () => {
  const agent = new https.Agent({ keepAlive: false, ca, maxCachedSessions: 10 });
  const get = () =>
    new Promise((resolve, reject) => {
      const request = https.get({ host: "localhost", port: tlsPort, path: "/up", agent }, (answer) => {
        answer.resume();
        const reused = answer.socket.isSessionReused();
        answer.once("end", () => resolve({ status: answer.statusCode, reused }));
      });
      request.once("error", reject);
    });
  assert.deepEqual(await get(), { status: 200, reused: false });
  assert.deepEqual(await get(), { status: 200, reused: true });
});

/** Chromium refuses a certificate of an authority that it does not know, unless its key is named. */
function trusted() {
  const { publicKey } = new X509Certificate(readFileSync(file("server.pem")));
  const hash = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64");
  return `--ignore-certificate-errors-spki-list=${hash}`;
}

test("pusher-js in Chromium subscribes over wss, on a page of https, and sends client events", async () => {
  const browser = await Browser.start([trusted()]);
  try {
    const page = await browser.page();
    await page.send("Page.navigate", { url: `https://localhost:${tlsPort}/up` });
    await page.sees("isSecureContext && document.readyState === 'complete' && location.protocol === 'https:'");
    await page.eval(readFileSync(path.resolve(certificates, "../e2e/node_modules/pusher-js/dist/web/pusher.js"),
      "utf8"));
    await page.eval(`(() => {
      const sign = async (text) => {
        const bytes = (text) => new TextEncoder().encode(text);
        const name = { name: "HMAC", hash: "SHA-256" };
        const key = await crypto.subtle.importKey("raw", bytes(${JSON.stringify(APP.secret)}), name, false, ["sign"]);
        const signed = new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes(text)));
        return [...signed].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      };
      window.received = [];
      window.pusher = new Pusher(${JSON.stringify(APP.key)}, {
        cluster: "", forceTLS: true, wsHost: "localhost", wssPort: ${tlsPort}, enabledTransports: ["ws", "wss"],
        disableStats: true,
        channelAuthorization: {
          customHandler: ({ socketId, channelName }, callback) =>
            sign(socketId + ":" + channelName)
              .then((hex) => callback(null, { auth: ${JSON.stringify(APP.key)} + ":" + hex })),
        },
      });
      window.channel = pusher.subscribe("private-chromium");
      channel.bind_global((event, data) => received.push([event, data]));
    })()`);
    await page.sees("pusher.connection.state === 'connected' && channel.subscribed");
    const other = await suite.clients.connect(secure);
    const { log } = await subscribe(other, "private-chromium");
    await backend(suite.server, overHttps).trigger("private-chromium", "e", { text: "x".repeat(5_000) });
    await page.sees(`received.some(([event, data]) => event === "e" && data.text.length === 5000)`);
    await page.eval(`channel.trigger("client-hello", { from: "Chromium" })`);
    await log.first(({ event, data }) => event === "client-hello" && data.from === "Chromium");
    assert.deepEqual(page.problems.filter((problem) => !problem.includes("favicon")), []);
  } finally {
    await browser.stop();
  }
});
