// What a client is told when it does something wrong, and that the connection outlives it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, RawClient } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log } from "../lib/wait.mjs";

const suite = withServer();

test("an unknown key: error 4001, and pusher-js gives up for good", async () => {
  const client = suite.clients.start({ key: "no-such-key" });
  const [errors, states] = [new Log("errors"), new Log("states")];
  client.connection.bind("error", (error) => errors.push(error));
  client.connection.bind("state_change", ({ current }) => states.push(current));
  const error = await errors.first(({ data, error: nested }) => data ?? nested?.data);
  const { code, message } = error.data ?? error.error.data;
  assert.equal(code, 4001);
  if (message) assert.equal(message, "Application does not exist");
  // pusher-js is "disconnected" after a refusal; "failed" is for lack of a transport.
  await states.first((state) => state === "disconnected");
  assert.ok(!states.items.includes("connected"));
});

test("an unknown key on a bare socket: the error event, then a close with 4001", async () => {
  const raw = new RawClient(`ws://127.0.0.1:${suite.server.port}/app/no-such-key?protocol=7`);
  suite.clients.onClose(() => raw.close());
  const hello = await raw.open();
  assert.equal(hello.event, "pusher:error");
  assert.deepEqual(JSON.parse(hello.data), { code: 4001, message: "Application does not exist" });
  const { code } = await raw.closed.first(() => true);
  assert.equal(code, 4001);
});

test("the greeting is Reverb's", async () => {
  const raw = await suite.clients.raw("");
  const [hello] = raw.frames.items;
  assert.equal(hello.event, "pusher:connection_established");
  const data = JSON.parse(hello.data);
  assert.deepEqual(Object.keys(data).sort(), ["activity_timeout", "socket_id"]);
  assert.equal(data.activity_timeout, 30);
});

test("messages that are not valid: 4200, and the socket stays", async () => {
  const raw = await suite.clients.raw();
  const messages = [
    "not json",
    "[]",
    "1",
    '{"data":{}}',
    '{"event":1}',
    '{"event":"pusher:nothing","data":{}}',
    '{"event":"pusher:subscribe","data":{}}',
    '{"event":"pusher:subscribe"}',
    '{"event":"pusher:subscribe","data":{"channel":""}}',
    '{"event":"pusher:subscribe","data":{"channel":7}}',
  ];
  for (const message of messages) {
    const answer = await raw.ask(message, () => true, `answer to ${message}`);
    assert.equal(answer.event, "pusher:error", message);
    assert.equal(typeof answer.data, "string", message);
    assert.deepEqual(
      JSON.parse(answer.data),
      { code: 4200, message: "Invalid message format" },
      message,
    );
  }
  await raw.subscribe("still-here");
});

test("data may be an object or a JSON string", async () => {
  const raw = await suite.clients.raw();
  await raw.ask(
    { event: "pusher:subscribe", data: JSON.stringify({ channel: "as-string", auth: "" }) },
    ({ event, channel }) =>
      event === "pusher_internal:subscription_succeeded" && channel === "as-string",
    "subscription",
  );
  assert.equal(raw.on("as-string")[0].data, "{}");
});

test("events that are neither pusher: nor client- are dropped in silence", async () => {
  const raw = await suite.clients.raw();
  const other = await suite.clients.raw();
  await raw.subscribe("silence");
  await other.subscribe("silence");
  raw.send({ event: "whatever", channel: "silence", data: {} });
  await raw.ask({ event: "pusher:ping", data: {} }, ({ event }) => event === "pusher:pong", "pong");
  await backend(suite.server).trigger("silence", "end", "x");
  await other.frames.first(({ event }) => event === "end");
  assert.deepEqual(
    other.on("silence").map(({ event }) => event),
    ["pusher_internal:subscription_succeeded", "end"],
  );
});

test("a WebSocket ping is answered with the same payload", async () => {
  const raw = await suite.clients.raw();
  const pongs = new Log("pongs");
  raw.socket.on("pong", (payload) => pongs.push(payload.toString()));
  for (const payload of ["", "hello", "x".repeat(125)]) raw.socket.ping(payload);
  assert.deepEqual(await pongs.atLeast(3), ["", "hello", "x".repeat(125)]);
});

test("a close is answered with the client's code", async () => {
  const raw = await suite.clients.raw();
  raw.socket.close(1000, "bye");
  const { code } = await raw.closed.first(() => true);
  assert.equal(code, 1000);
});

test("a message above the app's limit closes with 1009", async () => {
  const raw = await suite.clients.raw();
  const event = { event: "client-big", channel: "private-x", data: "x".repeat(10_001) };
  raw.send(event);
  const { code } = await raw.closed.first(() => true);
  assert.equal(code, 1009);
});
