// Laravel Echo with its `reverb` broadcaster, as an application's bootstrap.js sets it up.

import assert from "node:assert/strict";
import { test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { backend, clientOptions, connected } from "../lib/clients.mjs";
import { APP } from "../lib/server.mjs";
import { withServer } from "../lib/suite.mjs";
import { Log, until, within } from "../lib/wait.mjs";

const suite = withServer();

async function startEcho(options = {}) {
  const echo = new Echo({
    broadcaster: "reverb",
    Pusher,
    key: APP.key,
    ...clientOptions(suite.server, options),
  });
  suite.clients.onClose(() => echo.disconnect());
  await connected(echo.connector.pusher);
  return echo;
}

const subscribed = (channel) =>
  within(new Promise((resolve) => channel.subscribed(resolve)), `subscription to ${channel.name}`);

test("listen: a dotted name as it is, others in the App\\Events namespace", async () => {
  const echo = await startEcho();
  const heard = new Log("heard");
  const channel = echo.channel("orders");
  channel
    .listen(".order.shipped", (data) => heard.push(["order.shipped", data]))
    .listen("OrderShipped", (data) => heard.push(["OrderShipped", data]))
    .listen("Shop\\OrderPaid", (data) => heard.push(["Shop\\OrderPaid", data]))
    .listen(".App\\Events\\Absolute", (data) => heard.push(["Absolute", data]));
  await subscribed(channel);
  const pusher = backend(suite.server);
  await pusher.trigger("orders", "order.shipped", { id: 1 });
  await pusher.trigger("orders", "App\\Events\\OrderShipped", { id: 2 });
  await pusher.trigger("orders", "App\\Events\\Shop\\OrderPaid", { id: 3 });
  await pusher.trigger("orders", "App\\Events\\Absolute", { id: 4 });
  assert.deepEqual(await heard.atLeast(4), [
    ["order.shipped", { id: 1 }],
    ["OrderShipped", { id: 2 }],
    ["Shop\\OrderPaid", { id: 3 }],
    ["Absolute", { id: 4 }],
  ]);
});

test("private: events, and whispers between the members", async () => {
  const [ann, bob] = [await startEcho(), await startEcho()];
  const [annHeard, bobHeard] = [new Log("ann heard"), new Log("bob heard")];
  const join = async (echo, heard) => {
    const channel = echo
      .private("chat.1")
      .listenForWhisper("typing", (data) => heard.push(["typing", data]))
      .listen("MessageSent", (data) => heard.push(["MessageSent", data]));
    await subscribed(channel);
    return channel;
  };
  const [annChannel] = await Promise.all([join(ann, annHeard), join(bob, bobHeard)]);
  annChannel.whisper("typing", { name: "Ann" });
  assert.deepEqual(await bobHeard.atLeast(1), [["typing", { name: "Ann" }]]);
  await backend(suite.server).trigger("private-chat.1", "App\\Events\\MessageSent", { id: 9 });
  assert.deepEqual(await annHeard.atLeast(1), [["MessageSent", { id: 9 }]]);
  assert.deepEqual((await bobHeard.atLeast(2))[1], ["MessageSent", { id: 9 }]);
});

test("encryptedPrivate: Laravel's encrypted channels", async () => {
  const echo = await startEcho();
  const heard = new Log("heard");
  const channel = echo.encryptedPrivate("vault").listen("Opened", (data) => heard.push(data));
  await subscribed(channel);
  const name = "private-encrypted-vault";
  await backend(suite.server).trigger(name, "App\\Events\\Opened", { by: "Ann" });
  assert.deepEqual(await heard.atLeast(1), [{ by: "Ann" }]);
});

test("join: here, joining, leaving, whisper", async () => {
  const user = (id) => ({ member: { user_id: String(id), user_info: { id, name: `user ${id}` } } });
  const [ann, bob] = [await startEcho(user(1)), await startEcho(user(2))];
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
  watch(bob, bobSaw);
  await bobSaw.atLeast(1);
  await annSaw.atLeast(2);
  annRoom.whisper("wave", { hand: "left" });
  await bobSaw.atLeast(2);
  bob.leave("room.5");
  await annSaw.atLeast(3);
  assert.deepEqual(annSaw.items, [
    ["here", [1]],
    ["joining", 2],
    ["leaving", 2],
  ]);
  assert.deepEqual(bobSaw.items, [
    ["here", [1, 2]],
    ["wave", { hand: "left" }],
  ]);
});

test("leave: the channel is vacated", async () => {
  const echo = await startEcho();
  const pusher = backend(suite.server);
  const occupied = async () =>
    (await (await pusher.get({ path: "/channels/leaving" })).json()).occupied;
  await subscribed(echo.channel("leaving"));
  assert.equal(await occupied(), true);
  echo.leave("leaving");
  await until(occupied, (is) => is === false, "channel leaving is vacated");
});

test("socketId: toOthers leaves out the tab that made the request", async () => {
  const echoes = await Promise.all(Array.from({ length: 5 }, () => startEcho()));
  const logs = [];
  for (const [index, echo] of echoes.entries()) {
    const heard = new Log(`tab ${index}`);
    const channel = echo.channel("to-others").listen("Moved", ({ n }) => heard.push(n));
    await subscribed(channel);
    logs.push(heard);
  }
  const pusher = backend(suite.server);
  for (const [index, echo] of echoes.entries()) {
    await pusher.trigger(
      "to-others",
      "App\\Events\\Moved",
      { n: index },
      {
        socket_id: echo.socketId(),
      },
    );
  }
  await pusher.trigger("to-others", "App\\Events\\Moved", { n: "end" });
  for (const [index, heard] of logs.entries()) {
    await heard.first((n) => n === "end");
    assert.deepEqual(heard.items, [...[0, 1, 2, 3, 4].filter((n) => n !== index), "end"]);
  }
});
