// TLS of the server: pusher-js over wss, and the Pusher server library over https.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import https from "node:https";
import path from "node:path";
import { test } from "node:test";
import tls from "node:tls";
import { fileURLToPath } from "node:url";
import { backend, published, subscribe } from "../lib/clients.mjs";
import { freePort } from "../lib/server.mjs";
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
