// nginx, HAProxy and Supervisor with the files of tuning/, each with a client through it: the client's address, a path
// in front, idle connections, and reloads that close no connection.

import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { test } from "node:test";
import { backend, RawClient } from "../lib/clients.mjs";
import {
  startChangedHaproxy,
  startHaproxy,
  startNginx,
  startSupervisor,
  timeoutOf,
} from "../lib/proxies.mjs";
import { APP, binary, freePort, startServer } from "../lib/server.mjs";
import { until, within } from "../lib/wait.mjs";

/** nginx reaches the server at several loopback addresses. */
const EVERYWHERE = { REVERB_SERVER_HOST: "0.0.0.0", RINGVERB_TRUSTED_PROXIES: "127.0.0.1" };
/** Longer than the server keeps a silent client: it pings after 60 s and closes 30 s later. */
const SILENT_S = 90;

async function page(port, { path = "", ...options } = {}) {
  const client = new RawClient(`ws://127.0.0.1:${port}${path}/app/${APP.key}?protocol=7`, options);
  await client.open();
  return client;
}

async function receives(client, publisher, name) {
  await publisher.trigger("news", name, { a: 1 });
  await client.frames.first((frame) => frame.event === name, `the event ${name}`);
}

/** Runs with a server and what is in front of it, and ends both. */
async function behind(start, environment, action) {
  const server = await startServer({ ...EVERYWHERE, ...environment });
  try {
    const front = await start(server);
    try {
      await action(front, server);
    } finally {
      front.stop();
    }
  } finally {
    await server.stop();
  }
}

test("nginx reloads and keeps its connections", async () => {
  await behind(startNginx, {}, async (front) => {
    const client = await page(front.port);
    await client.subscribe("news");
    const publisher = backend(front);
    await receives(client, publisher, "before");
    await front.reload();
    await receives(client, publisher, "after");
    const other = await page(front.port);
    assert.equal(client.closed.items.length, 0);
    other.close();
    client.close();
  });
});

test("HAProxy reloads and keeps its connections", async () => {
  await behind(startHaproxy, {}, async (front) => {
    const client = await page(front.port);
    await client.subscribe("news");
    const publisher = backend(front);
    await receives(client, publisher, "before");
    const next = await front.reload();
    try {
      await receives(client, publisher, "after");
      const other = await page(front.port);
      assert.equal(client.closed.items.length, 0);
      other.close();
      client.close();
      // The old process was asked to end, and did not before its client.
      await within(front.ended, "the old HAProxy ends");
      (await page(front.port)).close();
    } finally {
      next.stop();
    }
  });
});

for (const [name, start] of [
  ["nginx", startNginx],
  ["HAProxy", startHaproxy],
]) {
  test(`${name} passes on the client's address, and none that the client claims`, async () => {
    await behind(start, { RINGVERB_CONNECTIONS_PER_IP_MAX: "1" }, async (front) => {
      const from = (localAddress, claimed) => ({
        localAddress,
        headers: { "X-Forwarded-For": claimed },
      });
      const first = await page(front.port, from("127.0.0.9", "192.0.2.1"));
      const second = await page(front.port, from("127.0.0.9", "192.0.2.2"));
      assert.equal((await second.closed.first(() => true)).code, 4100);
      const other = await page(front.port, from("127.0.0.10", "192.0.2.1"));
      assert.equal(other.frames.items[0].event, "pusher:connection_established");
      assert.equal(first.closed.items.length, 0);
      first.close();
      other.close();
    });
  });
}

test("HAProxy names the client by the PROXY protocol, and its checks do, too", async () => {
  // The test asks the server for /up itself, without a header, so only this address is a proxy.
  const proxy = "127.0.0.3";
  const changes = [
    ["http-request set-header X-Forwarded-For %[src]", ""],
    ["default-server check", `default-server source ${proxy} send-proxy-v2 check-send-proxy check`],
  ];
  const environment = {
    RINGVERB_TRUSTED_PROXIES: proxy,
    RINGVERB_PROXY_PROTOCOL: "v2",
    RINGVERB_CONNECTIONS_PER_IP_MAX: "1",
  };
  await behind((server) => startChangedHaproxy([server], changes), environment, async (front) => {
    const first = await page(front.port, { localAddress: "127.0.0.9" });
    const second = await page(front.port, { localAddress: "127.0.0.9" });
    assert.equal((await second.closed.first(() => true)).code, 4100);
    const other = await page(front.port, { localAddress: "127.0.0.10" });
    assert.equal(other.frames.items[0].event, "pusher:connection_established");
    assert.equal(first.closed.items.length, 0);
    first.close();
    other.close();
  });
});

const PREFIXED = { REVERB_SERVER_PATH: "/ws" };
for (const [name, start] of [
  [
    "nginx",
    (server) => startNginx(server, [[/location \/app(s?) /g, "location /ws/app$1 "]]),
  ],
  [
    "HAProxy",
    (server) => startChangedHaproxy([server], [
      ["path_beg /app/ /apps/", "path_beg /ws/app/ /ws/apps/"],
      ["GET /up", "GET /ws/up"],
    ]),
  ],
]) {
  test(`${name} serves a server with a path of its own`, async () => {
    await behind(start, PREFIXED, async (front) => {
      const client = await page(front.port, { path: "/ws" });
      const response = await fetch(`http://127.0.0.1:${front.port}/ws/apps/${APP.id}/channels`);
      assert.equal(response.status, 401);
      client.close();
    });
  });
}

test("timeouts of the proxies are longer than the server waits for a silent client", () => {
  for (const [file, name] of [
    ["nginx.conf", "proxy_read_timeout"],
    ["nginx.conf", "proxy_send_timeout"],
    ["haproxy.cfg", "timeout tunnel"],
  ]) {
    assert.ok(timeoutOf(file, name) > SILENT_S, `${file}: ${name}`);
  }
});

/** Timeouts of one second for all but WebSockets. */
const SHORT_OF_NGINX = ["proxy_read_timeout", "proxy_send_timeout", "client_header_timeout"]
  .map((name) => `${name} 1s;`)
  .join(" ");
const SHORT_OF_HAPROXY = [
  ["timeout client 75s", "timeout client 1s"],
  ["timeout server 30s", "timeout server 1s"],
  ["timeout http-request 10s", "timeout http-request 1s"],
];
for (const [name, start] of [
  [
    "nginx",
    (server) => startNginx(server, [["proxy_http_version 1.1;", `$& ${SHORT_OF_NGINX}`]]),
  ],
  ["HAProxy", (server) => startChangedHaproxy([server], SHORT_OF_HAPROXY)],
]) {
  test(`${name}'s timeouts of requests do not end an idle WebSocket`, async () => {
    await behind(start, {}, async (front, server) => {
      const client = await page(front.port);
      await client.subscribe("news");
      // A connection without a request, made later, is closed by a timeout of the same length.
      const silent = createConnection({ port: front.port, host: "127.0.0.1" });
      silent.resume();
      await within(new Promise((resolve) => silent.once("close", resolve)), `${name} closes it`);
      await receives(client, backend(server), "after");
      assert.equal(client.closed.items.length, 0);
      client.close();
    });
  });
}

test("Supervisor: SIGUSR2 keeps process and connections, restart and stop end in time", async () => {
  const port = await freePort();
  const supervisor = await startSupervisor(
    binary,
    {
      REVERB_APP_ID: APP.id,
      REVERB_APP_KEY: APP.key,
      REVERB_APP_SECRET: APP.secret,
      REVERB_SERVER_HOST: "127.0.0.1",
      REVERB_SERVER_PORT: String(port),
      RINGVERB_WORKERS: "2",
      RINGVERB_IO: process.env.RINGVERB_IO ?? "auto",
      RINGVERB_ADMIN: "off",
    },
    port,
  );
  try {
    const up = () => fetch(`http://127.0.0.1:${port}/up`).then((answer) => answer.status, () => 0);
    await until(up, (status) => status === 200, "the server is up");
    const client = await page(port);
    await client.subscribe("news");
    const publisher = backend(supervisor);
    await receives(client, publisher, "before");
    const pid = supervisor.pid();
    assert.equal(supervisor.control("signal", "USR2", "ringverb").status, 0);
    const complete = (text) => text.includes("SIGUSR2 complete");
    await until(supervisor.log, complete, "the program is replaced", 30_000);
    await receives(client, publisher, "after");
    assert.equal(supervisor.pid(), pid);
    assert.equal(client.closed.items.length, 0);

    assert.equal(supervisor.control("restart", "ringverb").status, 0);
    assert.equal((await client.closed.first(() => true)).code, 4100);
    assert.notEqual(supervisor.pid(), pid);
    await until(up, (status) => status === 200, "the server is up again");
    (await page(port)).close();

    assert.equal(supervisor.control("stop", "ringverb").status, 0);
    assert.match(supervisor.control("status", "ringverb").output, /STOPPED/);
    assert.equal(await up(), 0);
  } finally {
    await supervisor.stop();
  }
});
