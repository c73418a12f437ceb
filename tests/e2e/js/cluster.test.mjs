// Two nodes that meet in a Redis, seen by the clients people use: nobody can tell on which node anybody is.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { backend, clientOptions, Clients, connected, subscribe, subscribed } from "../lib/clients.mjs";
import { startRedis } from "../lib/redis.mjs";
import { APP, startServer } from "../lib/server.mjs";
import { Log, until, within } from "../lib/wait.mjs";

const WORKERS = 2;

let redis;
let nodes = [];
let clients = [];

before(async () => {
  redis = await startRedis();
  const environment = { ...redis.environment, RINGVERB_WORKERS: String(WORKERS) };
  nodes = await Promise.all([startServer(environment), startServer(environment)]);
  clients = nodes.map((node) => new Clients(node));
  await redis.lines(nodes.length * WORKERS);
});
afterEach(() => clients.forEach((all) => all.closeAll()));
after(async () => {
  await Promise.all(nodes.map((node) => node.stop()));
  await redis?.stop();
});

async function startEcho(node, options = {}) {
  const echo = new Echo({
    broadcaster: "reverb",
    Pusher,
    key: APP.key,
    ...clientOptions(nodes[node], options),
  });
  clients[node].onClose(() => echo.disconnect());
  await connected(echo.connector.pusher);
  return echo;
}

const user = (id) => ({ member: { user_id: String(id), user_info: { id, name: `user ${id}` } } });

const ready = (channel) =>
  within(new Promise((resolve) => channel.subscribed(resolve)), `subscription to ${channel.name}`);

test("join: here, joining, leaving and whispers of those on the other node", async () => {
  const [ann, bob] = [await startEcho(0, user(1)), await startEcho(1, user(2))];
  const [annSaw, bobSaw] = [new Log("ann saw"), new Log("bob saw")];
  const watch = (echo, saw) =>
    echo
      .join("room.5")
      .here((users) => saw.push(["here", users.map(({ id }) => id).sort()]))
      .joining(({ id }) => saw.push(["joining", id]))
      .leaving(({ id }) => saw.push(["leaving", id]))
      .listenForWhisper("wave", (data) => saw.push(["wave", data]));
  const annRoom = watch(ann, annSaw);
  await annSaw.atLeast(1);
  const bobRoom = watch(bob, bobSaw);
  await bobSaw.atLeast(1);
  await annSaw.atLeast(2);
  annRoom.whisper("wave", { hand: "left" });
  await bobSaw.atLeast(2);
  bobRoom.whisper("wave", { hand: "right" });
  await annSaw.atLeast(3);
  // Bob has a second tab, on Ann's node: he is there until both are gone.
  const tab = await startEcho(0, user(2));
  const tabSaw = new Log("bob's tab saw");
  watch(tab, tabSaw);
  await tabSaw.atLeast(1);
  const { users } = await (
    await backend(nodes[1]).get({ path: "/channels/presence-room.5/users" })
  ).json();
  assert.deepEqual(users.map(({ id }) => id).sort(), ["1", "2"]);
  bob.leave("room.5");
  annRoom.whisper("wave", { hand: "both" });
  await tabSaw.first(([what]) => what === "wave");
  tab.disconnect();
  await annSaw.atLeast(4);
  assert.deepEqual(annSaw.items, [
    ["here", [1]],
    ["joining", 2],
    ["wave", { hand: "right" }],
    ["leaving", 2],
  ]);
  assert.deepEqual(tabSaw.items, [
    ["here", [1, 2]],
    ["wave", { hand: "both" }],
  ]);
  assert.deepEqual(bobSaw.items.slice(0, 2), [
    ["here", [1, 2]],
    ["wave", { hand: "left" }],
  ]);
});

test("toOthers: the tab that made the request is left out, whichever node has it", async () => {
  const echoes = await Promise.all([0, 1, 0, 1].map((node) => startEcho(node)));
  const logs = [];
  for (const [index, echo] of echoes.entries()) {
    const heard = new Log(`tab ${index}`);
    const channel = echo.private("to-others").listen("Moved", ({ n }) => heard.push(n));
    await ready(channel);
    logs.push(heard);
  }
  const publishers = nodes.map((node) => backend(node));
  for (const pusher of publishers) {
    for (const [index, echo] of echoes.entries()) {
      const except = { socket_id: echo.socketId() };
      await pusher.trigger("private-to-others", "App\\Events\\Moved", { n: index }, except);
    }
    await pusher.trigger("private-to-others", "App\\Events\\Moved", { n: "end" });
    // One node's events have an order; those of two nodes have none among each other.
    for (const [index, heard] of logs.entries()) {
      await heard.first((n) => n === "end");
      assert.deepEqual(heard.items, [...[0, 1, 2, 3].filter((n) => n !== index), "end"]);
      heard.items.length = 0;
    }
  }
});

test("encryptedPrivate and a cache channel: what one node was given, the other's clients get", async () => {
  const echo = await startEcho(1);
  const heard = new Log("heard");
  const vault = echo.encryptedPrivate("vault").listen("Opened", (data) => heard.push(data));
  await ready(vault);
  await backend(nodes[0]).trigger("private-encrypted-vault", "App\\Events\\Opened", { by: "Ann" });
  assert.deepEqual(await heard.atLeast(1), [{ by: "Ann" }]);
  const early = await subscribe(await clients[0].connect(), "cache-weather");
  await backend(nodes[0]).trigger("cache-weather", "sun", { degrees: 21 });
  await early.log.first(({ event }) => event === "sun");
  // Behind what the first node has said to Redis before.
  await backend(nodes[0]).get({ path: "/channels" });
  const { log } = await subscribe(await clients[1].connect(), "cache-weather");
  const last = await log.first(({ event }) => event === "sun");
  assert.deepEqual(last.data, { degrees: 21 });
  assert.ok(!log.items.some(({ event }) => event === "pusher:cache_miss"));
});

/** A client that is signed in on that node, its user's channel subscribed. */
async function signedIn(node, id, fields = {}) {
  const customHandler = ({ socketId }, callback) =>
    callback(null, backend(nodes[node]).authenticateUser(socketId, { id, ...fields }));
  const client = await clients[node].connect({ userAuthentication: { customHandler } });
  const list = new Log(`watchlist of ${id}`);
  client.user.watchlist.bind_global((name, { user_ids }) => list.push({ name, user_ids }));
  client.signin();
  await within(client.user.signinDonePromise, `sign-in of ${id}`);
  await subscribed(client.user.serverToUserChannel);
  return { client, list };
}

test("a user is watched, reached and ended over both nodes", async () => {
  const { list } = await signedIn(0, "watcher", { watchlist: ["7"] });
  await list.first(({ name }) => name === "offline");
  const [phone, laptop] = [await signedIn(0, "7"), await signedIn(1, "7")];
  await list.first(({ name, user_ids }) => name === "online" && user_ids.includes("7"));
  const logs = [phone, laptop].map(({ client }) => {
    const log = new Log("user events");
    client.user.bind("order-shipped", (data) => log.push(data));
    return log;
  });
  for (const node of nodes) await backend(node).sendToUser("7", "order-shipped", { order: 5 });
  for (const log of logs) assert.deepEqual(await log.atLeast(2), [{ order: 5 }, { order: 5 }]);
  const ended = [phone, laptop].map(({ client }) => {
    const end = new Promise((resolve) => client.connection.bind("failed", resolve));
    const closed = new Promise((resolve) => client.connection.bind("disconnected", resolve));
    return within(Promise.race([end, closed]), "the end of a connection of user 7");
  });
  await backend(nodes[1]).terminateUserConnections("7");
  await Promise.all(ended);
  await list.first(({ name, user_ids }) => name === "offline" && user_ids.includes("7"), "7", 1);
});

test("the HTTP API of either node tells of both", async () => {
  const here = await Promise.all([0, 1, 1].map((node) => clients[node].connect()));
  for (const client of here) await subscribe(client, "counted");
  for (const node of nodes) {
    const path = "/channels/counted";
    const ask = async () =>
      (await backend(node).get({ path, params: { info: "subscription_count" } })).json();
    const three = ({ subscription_count: count }) => count === 3;
    assert.equal((await until(ask, three, "3 subscribers")).occupied, true);
    const { channels } = await (await backend(node).get({ path: "/channels" })).json();
    assert.deepEqual(channels, { counted: {} });
  }
});
