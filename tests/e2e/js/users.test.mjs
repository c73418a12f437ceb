// Users: pusher-js signin(), events to a user, termination, watchlists; and the number of subscribers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, connected, subscribe, subscribed } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log, within } from "../lib/wait.mjs";

const suite = withServer({ RINGVERB_SUBSCRIPTION_COUNT: "true" });

/** Options of a pusher-js client whose user the backend vouches for. */
function as(id, fields = {}) {
  const customHandler = ({ socketId }, callback) =>
    callback(null, backend(suite.server).authenticateUser(socketId, { id, ...fields }));
  return { userAuthentication: { customHandler } };
}

/** A client that is signed in, its user's channel subscribed. */
async function signedIn(id, fields) {
  const client = await suite.clients.connect(as(id, fields));
  const list = new Log(`watchlist of ${id}`);
  client.user.watchlist.bind_global((name, { user_ids }) => list.push({ name, user_ids }));
  client.signin();
  await within(client.user.signinDonePromise, `sign-in of ${id}`);
  await subscribed(client.user.serverToUserChannel);
  return { client, list };
}

test("a signed-in user gets what the backend sends them, on every connection", async () => {
  const [phone, laptop, other] = await Promise.all([signedIn("7"), signedIn("7"), signedIn("8")]);
  const logs = [phone, laptop, other].map(({ client }) => {
    const log = new Log("user events");
    client.user.bind("order-shipped", (data) => log.push(data));
    return log;
  });
  await backend(suite.server).sendToUser("7", "order-shipped", { order: 5 });
  await backend(suite.server).sendToUser("8", "order-shipped", { order: 6 });
  for (const log of logs) await log.atLeast(1);
  assert.deepEqual(logs.map((log) => log.items), [[{ order: 5 }], [{ order: 5 }], [{ order: 6 }]]);
});

test("nobody else may read a user's events", async () => {
  const raw = await suite.clients.raw();
  const refused = (frame) => frame.event === "pusher:error";
  const subscribe = { event: "pusher:subscribe", data: { channel: "#server-to-user-7" } };
  assert.equal(JSON.parse((await raw.ask(subscribe, refused)).data).code, 4009);
  const { auth, user_data } = backend(suite.server).authenticateUser(raw.socketId, { id: "9" });
  const forged = { auth, user_data: user_data.replace("9", "7") };
  const signin = await raw.ask({ event: "pusher:signin", data: forged }, refused);
  assert.equal(JSON.parse(signin.data).code, 4009);
  const success = (frame) => frame.event === "pusher:signin_success";
  const answer = await raw.ask({ event: "pusher:signin", data: { auth, user_data } }, success);
  assert.deepEqual(answer.data, { user_data });
  assert.equal(JSON.parse((await raw.ask(subscribe, refused)).data).code, 4009);
  await raw.subscribe("#server-to-user-9");
});

test("terminateUserConnections ends signed-in connections and those of presence members", async () => {
  const { client } = await signedIn("20");
  const member = await suite.clients.connect({ member: { user_id: "20" } });
  const stays = (await signedIn("21")).client;
  await subscribe(member, "presence-room");
  const ended = [client, member].map(
    ({ connection }) =>
      new Promise((resolve) => connection.bind("state_change", ({ current }) => {
        if (current !== "connected") resolve(current);
      })),
  );
  await backend(suite.server).terminateUserConnections("20");
  for (const end of ended) await within(end, "the end of the connection");
  assert.equal(stays.connection.state, "connected");
});

test("watchers hear who is there, who comes and who goes", async () => {
  const there = await signedIn("31");
  const { list } = await signedIn("30", { watchlist: ["31", "32", "33"] });
  await list.atLeast(2);
  const byName = Object.fromEntries(list.items.map(({ name, user_ids }) => [name, user_ids.sort()]));
  assert.deepEqual(byName, { online: ["31"], offline: ["32", "33"] });
  const again = await signedIn("31");
  const came = await signedIn("32");
  await list.atLeast(3);
  again.client.disconnect();
  came.client.disconnect();
  await list.atLeast(4);
  there.client.disconnect();
  await list.atLeast(5);
  assert.deepEqual(list.items.slice(2), [
    { name: "online", user_ids: ["32"] },
    { name: "offline", user_ids: ["32"] },
    { name: "offline", user_ids: ["31"] },
  ]);
});

test("a client that comes back signs in again", async () => {
  const { client } = await signedIn("40");
  const log = new Log("user events");
  client.user.bind("hello", (data) => log.push(data));
  client.disconnect();
  client.connect();
  await connected(client);
  await within(client.user.signinDonePromise, "second sign-in");
  await subscribed(client.user.serverToUserChannel);
  await backend(suite.server).sendToUser("40", "hello", "again");
  assert.equal(await log.first(() => true), "again");
});

test("subscription_count reaches pusher-js", async () => {
  const first = await suite.clients.connect();
  const { channel, log } = await subscribe(first, "counted");
  const count = (number) => ({ event, data }) =>
    event === "pusher:subscription_count" && data.subscription_count === number;
  await log.first(count(1));
  const second = await suite.clients.connect();
  await subscribe(second, "counted");
  await log.first(count(2));
  assert.equal(channel.subscriptionCount, 2);
  second.disconnect();
  await log.first(count(1), "one again", log.items.findIndex(count(2)));
});
