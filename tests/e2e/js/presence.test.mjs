// Presence channels: the roster, joins and leaves, and client events that say who sent them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, published, subscribe } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log, until } from "../lib/wait.mjs";

const suite = withServer();

const member = (id, info = {}) => ({ member: { user_id: String(id), user_info: info } });

const changes = (log) =>
  log.items
    .filter(({ event }) => event.startsWith("pusher:member_"))
    .map(({ event, data }) => `${event.slice("pusher:member_".length)} ${data.id}`);

async function userCount(channel) {
  const response = await backend(suite.server).get({
    path: `/channels/${channel}`,
    params: { info: "user_count" },
  });
  return (await response.json()).user_count ?? 0;
}

test("each member sees the roster with itself in it", async () => {
  const ann = await suite.clients.connect(member(1, { name: "Ann" }));
  const bob = await suite.clients.connect(member("two", { name: "Bøb \\ /" }));
  const first = await subscribe(ann, "presence-roster");
  assert.equal(first.channel.members.count, 1);
  const second = await subscribe(bob, "presence-roster");
  assert.equal(second.channel.members.count, 2);
  assert.deepEqual(second.channel.members.me, { id: "two", info: { name: "Bøb \\ /" } });
  assert.deepEqual(second.channel.members.get("1"), { id: "1", info: { name: "Ann" } });
  const { data } = await first.log.first(({ event }) => event === "pusher:member_added");
  assert.deepEqual(data, { id: "two", info: { name: "Bøb \\ /" } });
  assert.equal(first.channel.members.count, 2);
});

test("one user in two tabs joins once and leaves once", async () => {
  const name = "presence-tabs";
  const observer = await subscribe(await suite.clients.connect(member(1)), name);
  const tabs = [await suite.clients.connect(member(2)), await suite.clients.connect(member(2))];
  const first = await subscribe(tabs[0], name);
  const second = await subscribe(tabs[1], name);
  assert.equal(first.channel.members.count, 2);
  assert.equal(second.channel.members.count, 2);
  const third = await suite.clients.connect(member(2));
  await subscribe(third, name);
  // One tab unsubscribes, one is closed; the user is still there in the last.
  tabs[0].unsubscribe(name);
  tabs[1].disconnect();
  await until(
    async () => (await backend(suite.server).get({ path: "/connections" })).json(),
    ({ connections }) => connections <= 3,
    "the closed tab is gone",
  );
  assert.equal(await userCount(name), 2);
  assert.deepEqual(changes(observer.log), ["added 2"]);
  third.disconnect();
  await observer.log.first(({ event }) => event === "pusher:member_removed");
  assert.equal(observer.channel.members.count, 1);
  const pusher = backend(suite.server);
  await pusher.trigger(name, "end", "x");
  await observer.log.first(({ event }) => event === "end");
  assert.deepEqual(changes(observer.log), ["added 2", "removed 2"]);
  assert.deepEqual(changes(first.log), [], "a tab hears nothing of its own user");
  assert.deepEqual(changes(second.log), []);
});

test("twenty users come and go: every roster agrees with what was announced", async () => {
  const name = "presence-crowd";
  const observer = await subscribe(await suite.clients.connect(member("observer")), name);
  const crowd = await Promise.all(
    Array.from({ length: 40 }, (_, index) => suite.clients.connect(member(index % 20))),
  );
  await Promise.all(crowd.map((client) => subscribe(client, name)));
  await observer.log.when(() => changes(observer.log).length >= 20, "20 members added");
  assert.equal(await userCount(name), 21);
  assert.equal(observer.channel.members.count, 21);
  for (const client of crowd) client.disconnect();
  await observer.log.when(() => changes(observer.log).length >= 40, "20 members removed");
  assert.equal(await userCount(name), 1);
  const seen = changes(observer.log);
  for (let id = 0; id < 20; id += 1) {
    assert.deepEqual(
      seen.filter((change) => change.endsWith(` ${id}`)),
      [`added ${id}`, `removed ${id}`],
    );
  }
  assert.equal(seen.length, 40);
});

test("a joiner is not told of itself, and gets nothing before its roster", async () => {
  const name = "presence-joiner";
  await subscribe(await suite.clients.connect(member(1)), name);
  const raw = await suite.clients.raw();
  const pusher = backend(suite.server);
  const signed = pusher.authorizeChannel(raw.socketId, name, { user_id: "9", user_info: { a: 1 } });
  await raw.subscribe(name, signed);
  await pusher.trigger(name, "end", "x");
  await raw.frames.first(({ event }) => event === "end");
  const frames = raw.on(name);
  assert.deepEqual(
    frames.map(({ event }) => event),
    ["pusher_internal:subscription_succeeded", "end"],
  );
  assert.deepEqual(JSON.parse(frames[0].data), {
    presence: { count: 2, ids: ["1", "9"], hash: { 1: {}, 9: { a: 1 } } },
  });
});

test("a numeric user_id stays a number on the socket and is a string in the HTTP API", async () => {
  const name = "presence-number";
  const pusher = backend(suite.server);
  const [first, second] = [await suite.clients.raw(), await suite.clients.raw()];
  for (const [raw, user_id] of [
    [first, 7],
    [second, 9007199254740993n],
  ]) {
    const channel_data = `{"user_id":${user_id},"user_info":{"n":"\\u00e9\\/"}}`;
    const signature = pusher.config.token.sign(`${raw.socketId}:${name}:${channel_data}`);
    await raw.subscribe(name, { auth: `${pusher.config.token.key}:${signature}`, channel_data });
  }
  const success = second.on(name)[0];
  assert.match(success.data, /"ids":\[7,9007199254740993\]/);
  const added = await first.frames.first(({ event }) => event === "pusher_internal:member_added");
  assert.match(added.data, /"user_id":9007199254740993[,}]/);
  const users = await (await pusher.get({ path: `/channels/${name}/users` })).json();
  assert.deepEqual(users, { users: [{ id: "7" }, { id: "9007199254740993" }] });
});

test("presence without a user is refused, and nobody is told of it", async () => {
  const name = "presence-nobody";
  const observer = await subscribe(await suite.clients.connect(member(1)), name);
  const raw = await suite.clients.raw();
  const pusher = backend(suite.server);
  for (const channel_data of [undefined, "{}", '{"user_info":{}}', "not json"]) {
    const text = channel_data === undefined ? "" : `:${channel_data}`;
    const signature = pusher.config.token.sign(`${raw.socketId}:${name}${text}`);
    const auth = `${pusher.config.token.key}:${signature}`;
    const answer = await raw.ask(
      { event: "pusher:subscribe", data: { channel: name, auth, channel_data } },
      ({ event }) => event.startsWith("pusher"),
      `answer to ${channel_data}`,
    );
    assert.equal(answer.event, "pusher:error", `${channel_data}`);
  }
  await pusher.trigger(name, "end", "x");
  await observer.log.first(({ event }) => event === "end");
  assert.deepEqual(changes(observer.log), []);
});

test("a client event on a presence channel says who sent it", async () => {
  const name = "presence-whisper";
  const ann = await subscribe(await suite.clients.connect(member("ann")), name);
  const bob = await subscribe(await suite.clients.connect(member("bob")), name);
  const heard = new Log("heard by bob");
  bob.channel.bind("client-wave", (data, metadata) => heard.push({ data, metadata }));
  ann.channel.trigger("client-wave", { hand: "left" });
  assert.deepEqual(await heard.atLeast(1), [
    { data: { hand: "left" }, metadata: { user_id: "ann" } },
  ]);
  await backend(suite.server).trigger(name, "end", "x");
  await ann.log.first(({ event }) => event === "end");
  assert.deepEqual(
    published(ann.log).map(({ event }) => event),
    ["end"],
  );
});

test("a forged user_id on a client event is not believed", async () => {
  const name = "presence-forged";
  const bob = await subscribe(await suite.clients.connect(member("bob")), name);
  const heard = new Log("heard by bob");
  bob.channel.bind("client-e", (_, metadata) => heard.push(metadata));
  const raw = await suite.clients.raw();
  await raw.subscribe(
    name,
    backend(suite.server).authorizeChannel(raw.socketId, name, { user_id: "mallory" }),
  );
  raw.send({ event: "client-e", channel: name, data: {}, user_id: "admin" });
  assert.deepEqual(await heard.atLeast(1), [{ user_id: "mallory" }]);
});
