// Webhooks, received by a real HTTP server and verified by the Pusher library as an app would.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { backend, Clients, subscribe } from "../lib/clients.mjs";
import { startServer } from "../lib/server.mjs";
import { Log, until } from "../lib/wait.mjs";

/** An endpoint of an app. `answer` says what to do with a request: a status, or a function. */
class Receiver {
  constructor() {
    this.requests = new Log("webhooks");
    this.answers = [];
    this.server = createServer((request, response) => {
      const chunks = [];
      request.on("data", (chunk) => chunks.push(chunk));
      request.on("end", () => {
        const rawBody = Buffer.concat(chunks).toString("utf8");
        this.requests.push({ headers: request.headers, rawBody, url: request.url });
        const answer = this.answers.shift() ?? 200;
        if (answer === "hang up") return request.socket.destroy();
        response.writeHead(answer).end();
      });
    });
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  get events() {
    return this.requests.items.flatMap(({ rawBody }) => JSON.parse(rawBody).events);
  }

  /** Waits for an event of that kind on that channel. */
  async event(name, channel) {
    const found = () =>
      this.events.find((event) => event.name === name && event.channel === channel);
    await this.requests.when(found, `${name} of ${channel}`);
    return found();
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const receiver = new Receiver();
const suite = {};
before(async () => {
  const url = await receiver.start();
  suite.server = await startServer({
    RINGVERB_WEBHOOK_URL: `${url}/pusher/webhook`,
    RINGVERB_WEBHOOK_DEBOUNCE: "300",
    RINGVERB_SUBSCRIPTION_COUNT: "true",
  });
  suite.clients = new Clients(suite.server);
});
after(async () => {
  suite.clients.closeAll();
  await suite.server.stop();
  receiver.stop();
});

test("all seven kinds arrive, signed so that the Pusher library accepts them", async () => {
  const client = await suite.clients.connect({ member: { user_id: "7", user_info: { n: "A" } } });
  const { channel } = await subscribe(client, "presence-cache-all");
  channel.trigger("client-typing", { on: true });
  await subscribe(client, "private-counted");
  await receiver.event("subscription_count", "private-counted");
  await receiver.event("client_event", "presence-cache-all");
  client.unsubscribe("presence-cache-all");
  await receiver.event("channel_vacated", "presence-cache-all");
  const of = (name) => receiver.events.filter((event) => event.name === name);
  const named = { channel: "presence-cache-all" };
  assert.deepEqual(of("member_added"), [{ name: "member_added", ...named, user_id: "7" }]);
  assert.deepEqual(of("member_removed"), [{ name: "member_removed", ...named, user_id: "7" }]);
  assert.deepEqual(of("cache_miss"), [{ name: "cache_miss", ...named }]);
  assert.deepEqual(of("channel_vacated"), [{ name: "channel_vacated", ...named }]);
  const [told] = of("client_event");
  assert.deepEqual(
    { ...told, socket_id: undefined },
    {
      name: "client_event",
      ...named,
      event: "client-typing",
      data: '{"on":true}',
      user_id: "7",
      socket_id: undefined,
    },
  );
  assert.equal(told.socket_id, client.connection.socket_id);
  assert.deepEqual(of("subscription_count"), [
    { name: "subscription_count", channel: "private-counted", subscription_count: 1 },
  ]);
  const pusher = backend(suite.server);
  for (const request of receiver.requests.items) {
    const webhook = pusher.webhook(request);
    assert.ok(webhook.isValid(), request.rawBody);
    assert.ok(Math.abs(webhook.getTime() - Date.now()) < 60_000);
    assert.equal(request.headers["content-type"], "application/json");
    assert.equal(request.url, "/pusher/webhook");
    const changed = { ...request, rawBody: request.rawBody.replace("name", "nome") };
    assert.ok(!pusher.webhook(changed).isValid(), "a changed body must not pass");
  }
});

test("a quick reload is not told", async () => {
  const member = { member: { user_id: "8" } };
  const before = await suite.clients.connect(member);
  await subscribe(before, "presence-reload");
  await receiver.event("member_added", "presence-reload");
  before.disconnect();
  const again = await suite.clients.connect(member);
  await subscribe(again, "presence-reload");
  // Behind whatever the reload might have caused.
  await subscribe(again, "marker");
  await receiver.event("channel_occupied", "marker");
  await until(() => Date.now(), ((end) => (now) => now > end)(Date.now() + 600), "two debounce times");
  const told = receiver.events.filter(({ channel }) => channel === "presence-reload");
  assert.deepEqual(told.map(({ name }) => name), ["channel_occupied", "member_added"]);
});

test("what fails is posted again, the same bytes, until it is taken", async () => {
  const from = receiver.requests.items.length;
  receiver.answers.push(500, "hang up", 302);
  const client = await suite.clients.connect();
  await subscribe(client, "retried");
  const tries = (await receiver.requests.when(
    () => receiver.requests.items.length >= from + 4, "four tries", 30_000,
  ), receiver.requests.items.slice(from));
  assert.equal(new Set(tries.slice(0, 4).map(({ rawBody }) => rawBody)).size, 1);
  assert.ok(tries[0].rawBody.includes("retried"));
});

test("what is pending is told at shutdown", async () => {
  const url = await receiver.start.call((suite.last = new Receiver()));
  const server = await startServer({ RINGVERB_WEBHOOK_URL: url, RINGVERB_WEBHOOK_DEBOUNCE: "60000" });
  const clients = new Clients(server);
  await subscribe(await clients.connect(), "left-behind");
  await suite.last.event("channel_occupied", "left-behind");
  await server.stop();
  clients.closeAll();
  await suite.last.event("channel_vacated", "left-behind");
  suite.last.stop();
});
