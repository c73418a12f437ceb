// Private and encrypted channels, and client events on them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { authorizeWith, backend, published, subscribe } from "../lib/clients.mjs";
import { APP } from "../lib/server.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log, within } from "../lib/wait.mjs";

const suite = withServer();

const isError = ({ event }) => event === "pusher:error";

function errorOf(frame) {
  assert.equal(typeof frame.data, "string", "the data of pusher:error is a string, as Reverb's is");
  return JSON.parse(frame.data);
}

test("a signed subscription to a private channel gets events", async () => {
  const client = await suite.clients.connect();
  const { log } = await subscribe(client, "private-orders.7");
  await backend(suite.server).trigger("private-orders.7", "e", { id: 7 });
  await log.first(({ event }) => event === "e");
  assert.deepEqual(published(log), [{ event: "e", data: { id: 7 } }]);
});

test("a wrong signature is refused with 4009 and the connection stays", async () => {
  const client = await suite.clients.connect({
    channelAuthorization: {
      customHandler: (_, callback) => callback(null, { auth: `${APP.key}:${"0".repeat(64)}` }),
    },
  });
  const errors = new Log("errors");
  client.connection.bind("error", (error) => errors.push(error));
  const channel = client.subscribe("private-refused");
  const refused = new Log("subscription_error");
  channel.bind("pusher:subscription_error", (error) => refused.push(error));
  const error = await errors.first(() => true);
  assert.equal(error.data.code, 4009);
  assert.equal(error.data.message, "Connection is unauthorized");
  // Still connected: a subscription that needs no signature works on the same connection.
  const { log } = await subscribe(client, "after-refusal");
  await backend(suite.server).trigger(["private-refused", "after-refusal"], "e", "x");
  await log.first(({ event }) => event === "e");
  assert.equal(client.connection.state, "connected");
  assert.equal(channel.subscribed, false);
  // The channel-scoped error is an extra of this server; where it is sent it says 401.
  for (const { status } of refused.items) assert.equal(status, 401);
});

test("signatures that must not be accepted", async () => {
  const raw = await suite.clients.raw();
  const other = await suite.clients.raw();
  const pusher = backend(suite.server);
  const { auth } = pusher.authorizeChannel(raw.socketId, "private-a");
  const hex = auth.split(":")[1];
  const refused = {
    "no auth at all": undefined,
    "an empty auth": "",
    "only the key": `${APP.key}:`,
    "only the signature": hex,
    "another key with the right signature": `other-key:${hex}`,
    "another channel's": pusher.authorizeChannel(raw.socketId, "private-b").auth,
    "another socket's": pusher.authorizeChannel(other.socketId, "private-a").auth,
    "a truncated one": auth.slice(0, -1),
  };
  for (const [what, given] of Object.entries(refused)) {
    const answer = await raw.ask(
      { event: "pusher:subscribe", data: { channel: "private-a", auth: given } },
      ({ event }) => event.startsWith("pusher"),
      what,
    );
    assert.equal(answer.event, "pusher:error", what);
    assert.deepEqual(errorOf(answer), { code: 4009, message: "Connection is unauthorized" }, what);
  }
  await raw.subscribe("private-a", { auth });
});

test("channel_data on a private channel is part of what is signed", async () => {
  const raw = await suite.clients.raw();
  const pusher = backend(suite.server);
  const { auth } = pusher.authorizeChannel(raw.socketId, "private-cd");
  const refused = await raw.ask(
    { event: "pusher:subscribe", data: { channel: "private-cd", auth, channel_data: '{"a":1}' } },
    isError,
    "refusal",
  );
  assert.equal(errorOf(refused).code, 4009);
  const signed = pusher.authorizeChannel(raw.socketId, "private-cd", { user_id: "1" });
  await raw.subscribe("private-cd", signed);
});

test("client events go to the other members, never to the sender", async () => {
  const all = await Promise.all(Array.from({ length: 6 }, () => suite.clients.connect()));
  const joined = await Promise.all(all.map((client) => subscribe(client, "private-chat")));
  const data = { on: true, f: 1.5, text: "é \\ /", e: {}, l: [] };
  assert.equal(joined[0].channel.trigger("client-typing", data), true);
  await Promise.all(
    joined.slice(1).map(({ log }) => log.first(({ event }) => event === "client-typing")),
  );
  await backend(suite.server).trigger("private-chat", "end", "x");
  await Promise.all(joined.map(({ log }) => log.first(({ event }) => event === "end")));
  for (const [index, { log }] of joined.entries()) {
    const expected = index === 0 ? [] : [{ event: "client-typing", data }];
    assert.deepEqual(
      published(log).filter(({ event }) => event !== "end"),
      expected,
      `connection ${index}`,
    );
  }
});

test("the data of a client event is not rewritten", async () => {
  const [sender, receiver] = [await suite.clients.raw(), await suite.clients.raw()];
  const pusher = backend(suite.server);
  for (const raw of [sender, receiver]) {
    await raw.subscribe("private-as-is", pusher.authorizeChannel(raw.socketId, "private-as-is"));
  }
  const data = '{"on":true,"f":1.0,"big":12345678901234567890,"e":{},"s":"\\u00e9\\/"}';
  sender.send(`{"event":"client-as-is","channel":"private-as-is","data":${data}}`);
  const frame = await receiver.frames.first(({ event }) => event === "client-as-is");
  assert.ok(frame.text.includes(data), frame.text);
  assert.equal("user_id" in frame, false);
});

test("a client event from outside the channel is refused with 4009", async () => {
  const raw = await suite.clients.raw();
  const answer = await raw.ask(
    { event: "client-typing", channel: "private-not-joined", data: {} },
    isError,
    "refusal",
  );
  assert.deepEqual(errorOf(answer), {
    code: 4009,
    message: "The client is not a member of the specified channel.",
  });
});

test("an encrypted channel works end to end, and the server sees only ciphertext", async () => {
  const name = "private-encrypted-vault";
  const client = await suite.clients.connect();
  const pusher = backend(suite.server);
  const { log } = await subscribe(client, name);
  const raw = await suite.clients.raw();
  await raw.subscribe(name, { auth: pusher.authorizeChannel(raw.socketId, name).auth });
  const secret = { text: "for your eyes only", n: [1, 2, 3] };
  await pusher.trigger(name, "e", secret);
  assert.deepEqual((await log.first(({ event }) => event === "e")).data, secret);
  const frame = await raw.frames.first(({ event }) => event === "e");
  assert.deepEqual(Object.keys(JSON.parse(frame.data)).sort(), ["ciphertext", "nonce"]);
});

test("an authorizer that fails leaves the connection alone", async () => {
  const client = suite.clients.start({
    channelAuthorization: {
      customHandler: (params, callback) => {
        if (params.channelName === "private-no") callback(new Error("no"), null);
        else authorizeWith(suite.server)(params, callback);
      },
    },
  });
  const channel = client.subscribe("private-no");
  const error = await within(
    new Promise((resolve) => channel.bind("pusher:subscription_error", resolve)),
    "subscription_error",
  );
  assert.equal(error.type, "AuthError");
  await subscribe(client, "private-yes");
});
