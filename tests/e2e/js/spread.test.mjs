// Connections spread over all workers: one order, nothing lost, nothing twice.

import assert from "node:assert/strict";
import { test } from "node:test";
import { backend, published, subscribe } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";

const suite = withServer();

const CONNECTIONS = 40;

async function subscribers(channel) {
  const clients = await Promise.all(
    Array.from({ length: CONNECTIONS }, () => suite.clients.connect()),
  );
  return Promise.all(clients.map((client) => subscribe(client, channel)));
}

test("40 connections get 100 events each, once and in order", async () => {
  const all = await subscribers("spread");
  const pusher = backend(suite.server);
  for (let index = 0; index < 100; index += 1) await pusher.trigger("spread", "e", { index });
  await Promise.all(
    all.map(({ log }) => log.when(() => published(log).length >= 100, "100 events")),
  );
  await pusher.trigger("spread", "end", "x");
  await Promise.all(all.map(({ log }) => log.first(({ event }) => event === "end")));
  const expected = Array.from({ length: 100 }, (_, index) => index);
  for (const { log } of all) {
    assert.deepEqual(
      published(log)
        .filter(({ event }) => event === "e")
        .map(({ data }) => data.index),
      expected,
    );
  }
});

test("events of several publishers at once: each publisher's order is kept, all see one order", async () => {
  const all = await subscribers("publishers");
  const publish = async (publisher) => {
    const pusher = backend(suite.server);
    for (let index = 0; index < 25; index += 1) {
      await pusher.trigger("publishers", "e", { publisher, index });
    }
  };
  await Promise.all(Array.from({ length: 8 }, (_, publisher) => publish(publisher)));
  await Promise.all(
    all.map(({ log }) => log.when(() => published(log).length >= 200, "200 events")),
  );
  await backend(suite.server).trigger("publishers", "end", "x");
  await Promise.all(all.map(({ log }) => log.first(({ event }) => event === "end")));
  const seen = ({ log }) =>
    published(log)
      .filter(({ event }) => event === "e")
      .map(({ data }) => data);
  const first = seen(all[0]);
  assert.equal(first.length, 200);
  for (let publisher = 0; publisher < 8; publisher += 1) {
    assert.deepEqual(
      first.filter((event) => event.publisher === publisher).map(({ index }) => index),
      Array.from({ length: 25 }, (_, index) => index),
    );
  }
  for (const subscriber of all) assert.deepEqual(seen(subscriber), first);
});

test("client events from every connection reach every other one", async () => {
  const all = await subscribers("private-spread");
  for (const [sender, { channel }] of all.entries()) {
    for (let index = 0; index < 5; index += 1) channel.trigger("client-e", { sender, index });
  }
  const due = (CONNECTIONS - 1) * 5;
  await Promise.all(
    all.map(({ log }) => log.when(() => published(log).length >= due, `${due} events`)),
  );
  await backend(suite.server).trigger("private-spread", "end", "x");
  await Promise.all(all.map(({ log }) => log.first(({ event }) => event === "end")));
  for (const [receiver, { log }] of all.entries()) {
    const events = published(log).filter(({ event }) => event === "client-e");
    assert.equal(events.length, due);
    for (let sender = 0; sender < CONNECTIONS; sender += 1) {
      assert.deepEqual(
        events.filter(({ data }) => data.sender === sender).map(({ data }) => data.index),
        sender === receiver ? [] : [0, 1, 2, 3, 4],
      );
    }
  }
});
