// A supervisor stops the server and starts it again: pages are back within 2 s, directly and through the proxies whose
// files are in tuning/, although one client does not answer the close.

import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { test } from "node:test";
import Pusher8 from "pusher-js";
import Pusher7 from "pusher-js-7";
import { connected, clientOptions, RawClient } from "../lib/clients.mjs";
import { checkHaproxy, checkNginx, startHaproxy, startNginx } from "../lib/proxies.mjs";
import { APP, startServer } from "../lib/server.mjs";
import { until, within } from "../lib/wait.mjs";

// With the fault it is 15 s: pusher-js is refused at its first try, and the next one comes when that has timed out.
const OFFLINE_MAX_MS = 2_000;

/** nginx reaches the server at several loopback addresses. */
const EVERYWHERE = { REVERB_SERVER_HOST: "0.0.0.0", RINGVERB_TRUSTED_PROXIES: "127.0.0.1" };

/** A page that notes when it is back. */
class Page {
  constructor(Pusher, port) {
    this.client = new Pusher(APP.key, clientOptions({ port }));
    // pusher-js calls itself connected until it tries again, so the count of its connections tells.
    this.back = new Promise((resolve) => {
      let connections = 0;
      this.client.connection.bind("connected", () => {
        connections += 1;
        if (connections === 2) resolve(Date.now());
      });
    });
  }
}

/** A WebSocket whose client reads the close and never answers it. */
async function mute(port) {
  const socket = createConnection({ port, host: "127.0.0.1", allowHalfOpen: true });
  const head = [
    `GET /app/${APP.key}?protocol=7 HTTP/1.1`,
    "Host: x",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
  ];
  socket.on("error", () => {});
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  await within(new Promise((resolve) => socket.once("data", resolve)), "a welcome");
  socket.on("data", () => {});
  return socket;
}

/** Milliseconds from the signal until each page is back, with the name of its version. */
async function restarted(server, port) {
  const pages = [
    ["pusher-js 7", new Page(Pusher7, port)],
    ["pusher-js 8", new Page(Pusher8, port)],
  ];
  const silent = await mute(port);
  let next;
  try {
    await Promise.all(pages.map(([, page]) => connected(page.client)));
    const signal = Date.now();
    await server.stop();
    next = await startServer(EVERYWHERE, server.port);
    return await Promise.all(
      pages.map(async ([name, page]) => {
        const back = await within(page.back, `${name} is back`, 25_000);
        return [name, back - signal];
      }),
    );
  } finally {
    for (const [, page] of pages) page.client.disconnect();
    silent.destroy();
    await next?.stop();
  }
}

const fronts = {
  directly: async (server) => ({ port: server.port, stop: () => {} }),
  "through nginx": startNginx,
  "through HAProxy": startHaproxy,
};

for (const [name, start] of Object.entries(fronts)) {
  test(`pages are back within 2 s of a restart, ${name}`, async (context) => {
    const server = await startServer(EVERYWHERE);
    const front = await start(server);
    try {
      const offline = await restarted(server, front.port);
      context.diagnostic(JSON.stringify(offline));
      for (const [version, ms] of offline) {
        assert.ok(ms < OFFLINE_MAX_MS, `${version} was offline for ${ms} ms`);
      }
    } finally {
      front.stop();
    }
  });
}

// nginx takes an address that refused a connection out for 10 s, unless max_fails is 0.
for (const [name, start] of [
  ["nginx", startNginx],
  ["HAProxy", startHaproxy],
]) {
  test(`${name} serves again within a second of a stop and a start`, async () => {
    const server = await startServer(EVERYWHERE);
    const front = await start(server);
    const url = `http://127.0.0.1:${front.port}/apps/${APP.id}/channels`;
    // Unsigned: 401 is the server's answer, 502 and 503 are the proxy's.
    // A connection that ends without an answer is a refusal, too.
    const status = () => fetch(url).then((response) => response.status, () => 502);
    let next;
    try {
      assert.equal(await status(), 401);
      await server.stop();
      await until(status, (code) => code === 502 || code === 503, "the proxy finds nobody");
      next = await startServer(EVERYWHERE, server.port);
      await until(status, (code) => code === 401, `${name} finds the server again`, 1_000);
      const page = new RawClient(`ws://127.0.0.1:${front.port}/app/${APP.key}?protocol=7`);
      await page.open();
      page.close();
    } finally {
      front.stop();
      await next?.stop();
    }
  });
}

test("the shipped files are valid for the real nginx and HAProxy", () => {
  for (const [name, { status, output }] of [
    ["nginx", checkNginx()],
    ["haproxy", checkHaproxy()],
  ]) {
    assert.equal(status, 0, `${name}: ${output}`);
    assert.doesNotMatch(output, /warn|alert|emerg/i, name);
  }
});

test("a client cannot claim another address through HAProxy", async () => {
  const server = await startServer({ ...EVERYWHERE, RINGVERB_CONNECTIONS_PER_IP_MAX: "1" });
  const front = await startHaproxy(server);
  const open = (claimed) =>
    new RawClient(`ws://127.0.0.1:${front.port}/app/${APP.key}?protocol=7`, {
      headers: { "X-Forwarded-For": claimed },
    });
  const first = open("192.0.2.1");
  let second;
  try {
    assert.equal((await first.open()).event, "pusher:connection_established");
    // Only now: of two at once, either could be the one that is let in.
    second = open("192.0.2.2");
    const { code } = await second.closed.first(() => true);
    assert.equal(code, 4100);
  } finally {
    first.close();
    second?.close();
    front.stop();
    await server.stop();
  }
});
