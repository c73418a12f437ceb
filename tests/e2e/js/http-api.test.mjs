// The HTTP API as the Pusher server library sees it: queries, info, termination, error texts.

import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { test } from "node:test";
import { backend, RawClient, subscribe } from "../lib/clients.mjs";
import { APP } from "../lib/server.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log, until } from "../lib/wait.mjs";

const suite = withServer();

const get = async (path, params) => (await backend(suite.server).get({ path, params })).json();

/** The status and body with which the library's call was refused. */
async function refusal(call) {
  try {
    await call;
  } catch (error) {
    return { status: error.status, body: error.body };
  }
  throw new Error("the call was accepted");
}

/** A request signed by hand, for what the library would not send. */
async function post(path, body, change = {}) {
  const query = new URLSearchParams({
    auth_key: APP.key,
    auth_timestamp: String(Math.floor(Date.now() / 1000) + (change.timestampOffset ?? 0)),
    auth_version: "1.0",
    body_md5: createHash("md5")
      .update(change.signedBody ?? body)
      .digest("hex"),
  });
  const signed = `POST\n${path}\n${query}`;
  query.set("auth_signature", createHmac("sha256", APP.secret).update(signed).digest("hex"));
  const response = await fetch(`http://127.0.0.1:${suite.server.port}${path}?${query}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  const type = response.headers.get("content-type") ?? "";
  return { status: response.status, type, text: await response.text() };
}

test("GET /channels lists occupied channels, by prefix, with user counts", async () => {
  const clients = [
    await suite.clients.connect({ member: { user_id: "1" } }),
    await suite.clients.connect({ member: { user_id: "1" } }),
    await suite.clients.connect({ member: { user_id: "2" } }),
  ];
  for (const client of clients) await subscribe(client, "presence-list");
  await subscribe(clients[0], "list-public");
  await subscribe(clients[0], "private-list");
  const { channels } = await get("/channels");
  for (const name of ["presence-list", "list-public", "private-list"]) {
    assert.deepEqual(channels[name], {}, name);
  }
  assert.deepEqual(
    await get("/channels", { filter_by_prefix: "presence-list", info: "user_count" }),
    { channels: { "presence-list": { user_count: 2 } } },
  );
  assert.deepEqual(
    await get("/channels", { filter_by_prefix: "list-", info: "subscription_count,user_count" }),
    { channels: { "list-public": { subscription_count: 1 } } },
  );
});

test("GET /channels with none is an object, not PHP's empty array", async () => {
  assert.deepEqual(await get("/channels", { filter_by_prefix: "no-such-prefix" }), {
    channels: {},
  });
});

test("GET /channels/{channel}", async () => {
  const clients = await Promise.all(
    Array.from({ length: 6 }, (_, index) =>
      suite.clients.connect({ member: { user_id: String(index % 3) } }),
    ),
  );
  await Promise.all(clients.map((client) => subscribe(client, "presence-one")));
  await Promise.all(clients.map((client) => subscribe(client, "one")));
  const info = "subscription_count,user_count";
  assert.deepEqual(await get("/channels/presence-one", { info }), {
    occupied: true,
    user_count: 3,
  });
  assert.deepEqual(await get("/channels/one", { info }), { occupied: true, subscription_count: 6 });
  assert.deepEqual(await get("/channels/one"), { occupied: true });
  assert.deepEqual(await get("/channels/none"), { occupied: false });
});

test("GET /channels/{channel} of a cache channel shows the cached event", async () => {
  const raw = await suite.clients.raw();
  await raw.subscribe("cache-shown");
  await backend(suite.server).trigger("cache-shown", "e", '{"v":1}');
  const { occupied, cache } = await get("/channels/cache-shown", { info: "cache" });
  const { ttl, ...event } = cache;
  assert.equal(occupied, true);
  assert.deepEqual(event, { event: "e", data: '{"v":1}', channel: "cache-shown" });
  assert.ok(ttl > 0 && ttl <= 1800, `ttl ${ttl}`);
});

test("GET /channels/{channel}/users names each user once, as a string", async () => {
  const ids = ["1", "2", "2", "three"];
  for (const user_id of ids) {
    await subscribe(await suite.clients.connect({ member: { user_id } }), "presence-users");
  }
  const { users } = await get("/channels/presence-users/users");
  assert.deepEqual(users.map(({ id }) => id).sort(), ["1", "2", "three"]);
});

test("users of a channel that is empty or not a presence channel: Reverb's 404 and 400", async () => {
  const pusher = backend(suite.server);
  await subscribe(await suite.clients.connect(), "not-presence");
  assert.deepEqual(await refusal(pusher.get({ path: "/channels/presence-empty/users" })), {
    status: 404,
    body: "{}",
  });
  assert.deepEqual(await refusal(pusher.get({ path: "/channels/not-presence/users" })), {
    status: 400,
    body: "{}",
  });
});

test("info on trigger and on a batch", async () => {
  const first = await suite.clients.connect({ member: { user_id: "1" } });
  const second = await suite.clients.connect({ member: { user_id: "1" } });
  for (const client of [first, second]) {
    await subscribe(client, "info-public");
    await subscribe(client, "presence-info");
  }
  const pusher = backend(suite.server);
  const info = "subscription_count,user_count";
  const channels = ["info-public", "presence-info", "info-none"];
  const { channels: got } = await (await pusher.trigger(channels, "e", "x", { info })).json();
  assert.deepEqual(got["info-public"], { subscription_count: 2 });
  assert.deepEqual(got["presence-info"], { user_count: 1 });
  assert.equal(got["info-none"]?.subscription_count ?? 0, 0);
  const { batch } = await (
    await pusher.triggerBatch([
      { channel: "info-public", name: "e", data: "1", info },
      { channel: "presence-info", name: "e", data: "2" },
    ])
  ).json();
  assert.deepEqual(batch, [{ subscription_count: 2 }, {}]);
});

test("GET /connections", async () => {
  // Connections of the test before are counted until their close has been seen.
  const count = async () => (await get("/connections")).connections;
  await until(count, (n) => n === 0, "no connection left");
  for (let index = 0; index < 5; index += 1) {
    await subscribe(await suite.clients.connect(), "counted");
  }
  assert.equal(await count(), 5);
});

test("terminateUserConnections closes every connection of the user and no other", async () => {
  const name = "presence-terminate";
  const join = async (user_id) => {
    const raw = await suite.clients.raw();
    const signed = backend(suite.server).authorizeChannel(raw.socketId, name, { user_id });
    await raw.subscribe(name, signed);
    return raw;
  };
  const doomed = await Promise.all([join("bad"), join("bad"), join("bad")]);
  const spared = await join("good");
  const response = await backend(suite.server).terminateUserConnections("bad");
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
  for (const raw of doomed) {
    const { code } = await raw.closed.first(() => true);
    assert.equal(code, 4009);
  }
  await spared.frames.first(({ event }) => event === "pusher_internal:member_removed");
  await backend(suite.server).trigger(name, "end", "x");
  await spared.frames.first(({ event }) => event === "end");
  assert.equal(
    spared.on(name).filter(({ event }) => event === "pusher_internal:member_removed").length,
    1,
  );
  assert.deepEqual(await get(`/channels/${name}/users`), { users: [{ id: "good" }] });
});

test("a bad secret: 401 with Reverb's text", async () => {
  const pusher = backend(suite.server, { secret: "wrong" });
  const { status, body } = await refusal(pusher.trigger("x", "e", "x"));
  assert.equal(status, 401);
  assert.ok(body.startsWith("Authentication signature invalid."), body);
});

test("an unknown app: 404 with Reverb's text", async () => {
  const pusher = backend(suite.server, { appId: "999" });
  assert.deepEqual(await refusal(pusher.trigger("x", "e", "x")), {
    status: 404,
    body: "No matching application for ID [999].",
  });
});

test("another app's key: refused", async () => {
  const pusher = backend(suite.server, { key: "other-key" });
  assert.equal((await refusal(pusher.trigger("x", "e", "x"))).status, 401);
});

test("a request signed more than ten minutes ago is refused", async () => {
  const body = '{"name":"e","channel":"x","data":"x"}';
  const fresh = { timestampOffset: -500 };
  assert.equal((await post("/apps/1001/events", body, fresh)).status, 200);
  const old = { timestampOffset: -700 };
  assert.equal((await post("/apps/1001/events", body, old)).status, 401);
  const ahead = { timestampOffset: 700 };
  assert.equal((await post("/apps/1001/events", body, ahead)).status, 401);
});

test("a body other than the signed one is refused", async () => {
  const change = { signedBody: '{"name":"e","channel":"x","data":"y"}' };
  const answer = await post("/apps/1001/events", '{"name":"e","channel":"x","data":"x"}', change);
  assert.equal(answer.status, 401);
});

test("422 in Laravel's words", async () => {
  const cases = [
    ['{"name":"e","channel":"news"}', { data: ["The data field is required."] }],
    [
      '{"name":"e","channel":"news","data":{"a":1}}',
      { data: ["The data field must be a string."] },
    ],
    ['{"channel":"news","data":"x"}', { name: ["The name field is required."] }],
  ];
  for (const [body, expected] of cases) {
    const { status, type, text } = await post("/apps/1001/events", body);
    assert.equal(status, 422, body);
    assert.match(type, /^application\/json/);
    assert.deepEqual(JSON.parse(text), expected, body);
  }
});

test("a body that is not JSON: 400", async () => {
  assert.equal((await post("/apps/1001/events", "{bad")).status, 400);
});

test("reserved event names are refused over HTTP", async () => {
  for (const name of ["pusher:error", "pusher_internal:member_added"]) {
    const body = JSON.stringify({ name, channel: "x", data: "{}" });
    assert.equal((await post("/apps/1001/events", body)).status, 400, name);
  }
});

test("a request above the size limit: 413", async () => {
  const body = JSON.stringify({ name: "e", channel: "x", data: "x".repeat(20_000) });
  const { status, text } = await post("/apps/1001/events", body);
  assert.equal(status, 413);
  assert.equal(text, "Payload too large.");
});

test("paths that are not there, methods that do not fit, an upgrade that is missing", async () => {
  const base = `http://127.0.0.1:${suite.server.port}`;
  const ask = async (path, method = "GET") => {
    const response = await fetch(base + path, { method });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };
  const up = await ask("/up");
  assert.deepEqual([up.status, JSON.parse(up.text)], [200, { health: "OK" }]);
  const head = await ask("/up", "HEAD");
  assert.deepEqual([head.status, head.text], [200, ""]);
  const nowhere = await ask("/nope");
  assert.deepEqual([nowhere.status, nowhere.text], [404, "Not found."]);
  const method = await ask("/apps/1001/events");
  assert.deepEqual([method.status, method.text], [405, "Method not allowed."]);
  assert.match(method.headers.get("allow") ?? "", /POST/);
  const upgrade = await ask(`/app/${APP.key}`);
  assert.equal(upgrade.status, 426);
});

test("an upgrade on an API path is refused", async () => {
  const raw = new RawClient(`ws://127.0.0.1:${suite.server.port}/apps/1001/events`);
  suite.clients.onClose(() => raw.close());
  const failed = new Log("failed upgrade");
  raw.socket.on("error", (error) => failed.push(error.message));
  const message = await failed.first(() => true);
  assert.match(message, /Unexpected server response: 4\d\d/);
});
