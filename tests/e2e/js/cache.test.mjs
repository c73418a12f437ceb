// Cache channels: a new subscriber gets the last event, or is told that there is none.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, subscribe } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";

const suite = withServer();

for (const name of ["cache-c", "private-cache-c", "presence-cache-c"]) {
  const member = { user_id: "1" };
  const signed = (socketId) => {
    if (name.startsWith("cache-")) return {};
    const data = name.startsWith("presence-") ? member : undefined;
    return backend(suite.server).authorizeChannel(socketId, name, data);
  };

  test(`${name}: a miss, then the last event for every later subscriber`, async () => {
    const client = await suite.clients.connect({ member });
    const { log } = await subscribe(client, name);
    await log.first(({ event }) => event === "pusher:cache_miss");
    const pusher = backend(suite.server);
    await pusher.trigger(name, "first", { v: 1 });
    await pusher.trigger(name, "second", '{"v":2.0}');
    await log.first(({ event }) => event === "second");
    for (let index = 0; index < 6; index += 1) {
      const raw = await suite.clients.raw();
      await raw.subscribe(name, signed(raw.socketId));
      await raw.frames.first(({ event }) => event === "second");
      const frames = raw.on(name).map(({ event, data }) => [event, data]);
      assert.equal(frames[0][0], "pusher_internal:subscription_succeeded");
      assert.deepEqual(frames.slice(1), [["second", '{"v":2.0}']]);
    }
  });
}

test("the cached event outlives the last subscriber", async () => {
  const pusher = backend(suite.server);
  const first = await suite.clients.raw();
  await first.subscribe("cache-survives");
  await pusher.trigger("cache-survives", "e", "kept");
  await first.frames.first(({ event }) => event === "e");
  first.close();
  const second = await suite.clients.raw();
  await second.subscribe("cache-survives");
  assert.equal((await second.frames.first(({ event }) => event === "e")).data, "kept");
});

test("an event published before anybody subscribed is cached", async () => {
  await backend(suite.server).trigger("cache-early", "e", "early");
  const raw = await suite.clients.raw();
  await raw.subscribe("cache-early");
  assert.equal((await raw.frames.first(({ event }) => event === "e")).data, "early");
});

test("client events and membership changes are not cached", async () => {
  const name = "presence-cache-only-published";
  const ann = await subscribe(await suite.clients.connect({ member: { user_id: "ann" } }), name);
  await ann.log.first(({ event }) => event === "pusher:cache_miss");
  const pusher = backend(suite.server);
  await pusher.trigger(name, "kept", "1");
  const bobClient = await suite.clients.connect({ member: { user_id: "bob" } });
  const bob = await subscribe(bobClient, name);
  bob.channel.trigger("client-e", { not: "cached" });
  await ann.log.first(({ event }) => event === "client-e");
  bobClient.disconnect();
  await ann.log.first(({ event }) => event === "pusher:member_removed");
  const raw = await suite.clients.raw();
  await raw.subscribe(name, pusher.authorizeChannel(raw.socketId, name, { user_id: "eve" }));
  await raw.frames.first(({ event }) => event === "kept");
  assert.deepEqual(
    raw.on(name).map(({ event }) => event),
    ["pusher_internal:subscription_succeeded", "kept"],
  );
});
