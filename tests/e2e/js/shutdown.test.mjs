// SIGTERM: everybody is told to come back in a second, and does.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, Clients, RawClient, subscribe } from "../lib/clients.mjs";
import { APP, startServer } from "../lib/server.mjs";
import { Log, until } from "../lib/wait.mjs";

test("every connection is closed with 4100, and the server ends with exit code 0", async () => {
  const server = await startServer();
  const url = `ws://127.0.0.1:${server.port}/app/${APP.key}?protocol=7`;
  const all = Array.from({ length: 50 }, () => new RawClient(url));
  await Promise.all(all.map((raw) => raw.open()));
  await Promise.all(all.slice(0, 25).map((raw) => raw.subscribe("closing")));
  const [closes] = await Promise.all([
    Promise.all(all.map((raw) => raw.closed.first(() => true))),
    server.stop(),
  ]);
  assert.deepEqual([...new Set(closes.map(({ code }) => code))], [4100]);
});

test("a pusher-js client comes back to the next server and is subscribed again", async () => {
  const first = await startServer();
  const clients = new Clients(first);
  const client = await clients.connect();
  const { channel } = await subscribe(client, "survives");
  const events = new Log("survives");
  channel.bind("e", (data) => events.push(data));
  await first.stop();
  const second = await startServer({}, first.port);
  try {
    const pusher = backend(second);
    // 1 s after the close; restart.test.mjs measures it.
    await until(
      async () => (await pusher.get({ path: "/channels/survives" })).json(),
      ({ occupied }) => occupied,
      "the client is back",
    );
    await pusher.trigger("survives", "e", 1);
    assert.deepEqual(await events.atLeast(1), [1]);
  } finally {
    clients.closeAll();
    await second.stop();
  }
});
