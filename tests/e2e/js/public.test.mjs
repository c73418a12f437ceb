// pusher-js on public channels, published to by the Pusher server library.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, published, subscribe } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log, until, within } from "../lib/wait.mjs";

// Reverb's default limit counts head and body; the payloads here go up to 10,000 bytes and beyond.
const suite = withServer({ REVERB_MAX_REQUEST_SIZE: "200000" });

test("a connection gets a socket id that the server libraries accept", async () => {
  const first = await suite.clients.connect();
  const second = await suite.clients.connect();
  assert.match(first.connection.socket_id, /^\d+\.\d+$/);
  assert.match(second.connection.socket_id, /^\d+\.\d+$/);
  assert.notEqual(first.connection.socket_id, second.connection.socket_id);
});

test("an event reaches the subscriber", async () => {
  const client = await suite.clients.connect();
  const { log } = await subscribe(client, "news");
  const response = await backend(suite.server).trigger("news", "posted", { id: 1 });
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "{}");
  await log.first(({ event }) => event === "posted");
  assert.deepEqual(published(log), [{ event: "posted", data: { id: 1 } }]);
});

test("an event goes only to the channels it names", async () => {
  const client = await suite.clients.connect();
  const names = ["several-a", "several-b", "several-c"];
  const [a, b, c] = await Promise.all(names.map((name) => subscribe(client, name)));
  await backend(suite.server).trigger(["several-a", "several-c"], "e", "1");
  await backend(suite.server).trigger(names, "end", "x");
  await Promise.all([a, b, c].map(({ log }) => log.first(({ event }) => event === "end")));
  assert.deepEqual(
    published(a.log).map(({ event }) => event),
    ["e", "end"],
  );
  assert.deepEqual(
    published(b.log).map(({ event }) => event),
    ["end"],
  );
  assert.deepEqual(
    published(c.log).map(({ event }) => event),
    ["e", "end"],
  );
});

test("a batch delivers its events in order", async () => {
  const client = await suite.clients.connect();
  const { log } = await subscribe(client, "batch");
  const batch = Array.from({ length: 10 }, (_, index) => ({
    channel: "batch",
    name: `e${index}`,
    data: { index },
  }));
  const response = await backend(suite.server).triggerBatch(batch);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { batch: {} });
  await log.first(({ event }) => event === "e9");
  assert.deepEqual(
    published(log),
    Array.from({ length: 10 }, (_, index) => ({ event: `e${index}`, data: { index } })),
  );
});

test("socket_id excludes the sender, wherever it is connected", async () => {
  // Enough connections that sender and receivers meet on several cores.
  const all = await Promise.all(Array.from({ length: 8 }, () => suite.clients.connect()));
  const logs = await Promise.all(
    all.map(async (client) => (await subscribe(client, "others")).log),
  );
  const pusher = backend(suite.server);
  for (const [index, client] of all.entries()) {
    const response = await pusher.trigger("others", `not-${index}`, "x", {
      socket_id: client.connection.socket_id,
    });
    assert.equal(response.status, 200);
  }
  await pusher.trigger("others", "end", "x", { socket_id: "1.1" });
  await Promise.all(logs.map((log) => log.first(({ event }) => event === "end")));
  const expected = [...all.keys()].map((index) => `not-${index}`);
  for (const [index, log] of logs.entries()) {
    assert.deepEqual(
      published(log).map(({ event }) => event),
      [...expected.filter((event) => event !== `not-${index}`), "end"],
    );
  }
});

test("nothing arrives after unsubscribe", async () => {
  const client = await suite.clients.connect();
  const pusher = backend(suite.server);
  const before = await subscribe(client, "left");
  client.unsubscribe("left");
  await until(
    async () => (await pusher.get({ path: "/channels/left" })).json(),
    ({ occupied }) => occupied === false,
    "channel left is empty",
  );
  const raw = await suite.clients.raw();
  await raw.subscribe("left");
  await pusher.trigger("left", "between", "x");
  await raw.frames.first(({ event }) => event === "between");
  const after = await subscribe(client, "left");
  await pusher.trigger("left", "end", "x");
  await after.log.first(({ event }) => event === "end");
  assert.deepEqual(published(before.log), []);
  assert.deepEqual(
    published(after.log).map(({ event }) => event),
    ["end"],
  );
});

test("a raw unsubscribe has no answer, and one from a channel never joined is no error", async () => {
  const raw = await suite.clients.raw();
  await raw.subscribe("quiet");
  const from = raw.frames.items.length;
  raw.send({ event: "pusher:unsubscribe", data: { channel: "quiet" } });
  raw.send({ event: "pusher:unsubscribe", data: { channel: "never-joined" } });
  await raw.ask({ event: "pusher:ping", data: {} }, ({ event }) => event === "pusher:pong", "pong");
  assert.deepEqual(
    raw.frames.items.slice(from).map(({ event }) => event),
    ["pusher:pong"],
  );
});

test("the data string arrives byte for byte", async () => {
  const raw = await suite.clients.raw();
  await raw.subscribe("fidelity");
  const pusher = backend(suite.server);
  const strings = [
    "hello, not JSON",
    "{not json either",
    '"a quoted string"',
    " 1.50 ",
    "0",
    "null",
    '{"n":1.0,"big":12345678901234567890,"e":{},"l":[],"exp":1E+2}',
    '{"a":"\\u00e9 \\/ 1.0 \\ud83d\\ude00"}',
    '{"a":"é / 😀 \u2028 \u2029 \u00a0"}',
    "back\\slash \\\\ \\n \\u0041 /slash/ \\/",
    "tab\t line\n return\r bell\u0007 zero\u0000 del\u007f",
    "quotes \" and ' and </script>",
    "日本語 עברית العربية",
    "é combined e\u0301",
  ];
  for (const [index, data] of strings.entries()) {
    await pusher.trigger("fidelity", `string-${index}`, data);
    const frame = await raw.frames.first(({ event }) => event === `string-${index}`);
    assert.equal(frame.data, data);
    assert.deepEqual(Object.keys(frame).sort(), ["channel", "data", "event", "text"]);
  }
});

test("pusher-js hands over data that is not JSON as a string", async () => {
  const client = await suite.clients.connect();
  const { log } = await subscribe(client, "text");
  await backend(suite.server).trigger("text", "greeting", "hello {world");
  const { data } = await log.first(({ event }) => event === "greeting");
  assert.equal(data, "hello {world");
});

test("event names are opaque: namespaces, dots, unicode", async () => {
  const client = await suite.clients.connect();
  const { log } = await subscribe(client, "names");
  const names = ["App\\Events\\OrderShipped", ".dotted.name", "with space", "é/ü", "a:b", "client"];
  const pusher = backend(suite.server);
  for (const name of names) await pusher.trigger("names", name, {});
  await log.first(({ event }) => event === names.at(-1));
  assert.deepEqual(
    published(log).map(({ event }) => event),
    names,
  );
});

test("payloads around the sizes where buffers end", async () => {
  const client = await suite.clients.connect();
  const { log } = await subscribe(client, "sizes");
  const pusher = backend(suite.server);
  // The frame header grows at 126 and 65,536 bytes; buffers usually end at 4,096 to 16,384.
  const sizes = [
    1, 60, 64, 125, 126, 127, 4096, 8192, 9999, 10_000, 10_001, 16_384, 65_535, 65_536,
  ];
  for (const size of sizes) await pusher.trigger("sizes", `size-${size}`, "x".repeat(size));
  await log.first(({ event }) => event === "size-65536");
  assert.deepEqual(
    published(log).map(({ event, data }) => [event, data.length]),
    sizes.map((size) => [`size-${size}`, size]),
  );
});

test("one connection on 300 channels gets the event of each", async () => {
  const client = await suite.clients.connect();
  const names = Array.from({ length: 300 }, (_, index) => `many-${index}`);
  const logs = await Promise.all(names.map(async (name) => (await subscribe(client, name)).log));
  const pusher = backend(suite.server);
  for (let start = 0; start < names.length; start += 100) {
    await pusher.trigger(names.slice(start, start + 100), "e", { start });
  }
  await Promise.all(logs.map((log) => log.first(({ event }) => event === "e")));
  for (const [index, log] of logs.entries()) {
    assert.deepEqual(published(log), [
      { event: "e", data: { start: Math.floor(index / 100) * 100 } },
    ]);
  }
});

test("subscribing twice is acknowledged twice and delivered once", async () => {
  const raw = await suite.clients.raw();
  await raw.subscribe("twice");
  await raw.subscribe("twice");
  const pusher = backend(suite.server);
  await pusher.trigger("twice", "e", "1");
  await pusher.trigger("twice", "end", "2");
  await raw.frames.first(({ event }) => event === "end");
  assert.deepEqual(
    raw.on("twice").map(({ event }) => event),
    [
      "pusher_internal:subscription_succeeded",
      "pusher_internal:subscription_succeeded",
      "e",
      "end",
    ],
  );
});

test("a client that disconnects and connects again is subscribed again", async () => {
  const client = await suite.clients.connect();
  const { channel } = await subscribe(client, "again");
  const events = new Log("again");
  channel.bind("e", (data) => events.push(data));
  client.disconnect();
  assert.equal(client.connection.state, "disconnected");
  const back = new Promise((resolve) => channel.bind("pusher:subscription_succeeded", resolve));
  client.connect();
  await within(back, "second subscription");
  await backend(suite.server).trigger("again", "e", 7);
  assert.deepEqual(await events.atLeast(1), [7]);
});
