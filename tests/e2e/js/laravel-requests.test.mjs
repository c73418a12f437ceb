// Requests recorded from Laravel, sent again byte for byte.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { test } from "node:test";
import { backend } from "../lib/clients.mjs";
import { withServer } from "../lib/suite.mjs";
import { within } from "../lib/wait.mjs";

// The recordings are old: their signatures are valid, their timestamps are of the day of recording.
const suite = withServer({ RINGVERB_AUTH_WINDOW: "0" });

const directory = new URL("../fixtures/laravel/", import.meta.url);
const recordings = readdirSync(directory).filter((name) => name.endsWith(".http"));

/** Sends the bytes in pieces of the given size and returns the status and body of the answer. */
function replay(bytes, pieceBytes) {
  const answer = new Promise((resolve, reject) => {
    const socket = connect({ port: suite.server.port, host: "127.0.0.1", noDelay: true });
    let text = "";
    socket.setEncoding("utf8");
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`closed after ${JSON.stringify(text)}`)));
    socket.on("data", (more) => {
      text += more;
      const [head, body] = text.split("\r\n\r\n");
      const length = /^content-length: *(\d+)/im.exec(head)?.[1];
      if (body !== undefined && length !== undefined && body.length >= Number(length)) {
        resolve({ status: Number(head.split(" ")[1]), body });
        socket.destroy();
      }
    });
    const write = (from) => {
      if (from >= bytes.length) return;
      socket.write(bytes.subarray(from, from + pieceBytes), () => write(from + pieceBytes));
    };
    socket.on("connect", () => write(0));
  });
  return within(answer, "answer to the recorded request");
}

assert.equal(recordings.length, 5, "the recordings are there");

for (const recording of recordings) {
  const bytes = readFileSync(new URL(recording, directory));
  const body = JSON.parse(bytes.subarray(bytes.indexOf("\r\n\r\n") + 4).toString("utf8"));
  const channels = body.channels ?? [body.channel];

  test(recording, async () => {
    const subscribers = [];
    for (const channel of channels) {
      const raw = await suite.clients.raw();
      const member = channel.startsWith("presence-") ? { user_id: "1" } : undefined;
      const needsAuth = /^(private|presence)-/.test(channel);
      const auth = needsAuth
        ? backend(suite.server).authorizeChannel(raw.socketId, channel, member)
        : {};
      await raw.subscribe(channel, auth);
      subscribers.push([channel, raw]);
    }
    for (const pieceBytes of [bytes.length, 97]) {
      const from = subscribers.map(([, raw]) => raw.frames.items.length);
      const answer = await replay(bytes, pieceBytes);
      assert.deepEqual(answer, { status: 200, body: "{}" });
      for (const [index, [channel, raw]] of subscribers.entries()) {
        const frame = await raw.frames.first(
          ({ event }) => event === body.name,
          body.name,
          from[index],
        );
        assert.equal(frame.data, body.data);
        assert.equal(frame.channel, channel);
      }
    }
  });
}
