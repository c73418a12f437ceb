// The clients under test, set up for one server: pusher-js, the Pusher server library, and a bare
// WebSocket for what the libraries hide.

import PusherServer from "pusher";
import PusherClient from "pusher-js";
import WebSocket from "ws";
import { APP } from "./server.mjs";
import { Log, within } from "./wait.mjs";

/** 32 bytes, as the Pusher libraries want them. */
export const MASTER_KEY_BASE64 = Buffer.alloc(32, "ringverb").toString("base64");

export function backend(server, options = {}) {
  return new PusherServer({
    appId: APP.id,
    key: APP.key,
    secret: APP.secret,
    host: "127.0.0.1",
    port: String(server.port),
    useTLS: false,
    encryptionMasterKeyBase64: MASTER_KEY_BASE64,
    ...options,
  });
}

/** The answer the application's auth endpoint would give, as a pusher-js handler. */
export function authorizeWith(server, member) {
  const pusher = backend(server);
  return ({ socketId, channelName }, callback) => {
    const data = channelName.startsWith("presence-") ? member : undefined;
    callback(null, pusher.authorizeChannel(socketId, channelName, data));
  };
}

export function clientOptions(server, options = {}) {
  const { member, ...rest } = options;
  return {
    cluster: "",
    wsHost: "127.0.0.1",
    wsPort: server.port,
    forceTLS: false,
    enabledTransports: ["ws"],
    enableStats: false,
    channelAuthorization: { customHandler: authorizeWith(server, member) },
    ...rest,
  };
}

/** All clients of one test, so that a test which fails half way leaves no connection behind. */
export class Clients {
  #open = [];

  constructor(server) {
    this.server = server;
  }

  /** A pusher-js client, connecting. `member` is who it is on presence channels. */
  start(options = {}) {
    const client = new PusherClient(options.key ?? APP.key, clientOptions(this.server, options));
    this.#open.push(() => client.disconnect());
    return client;
  }

  async connect(options = {}) {
    const client = this.start(options);
    await connected(client);
    return client;
  }

  async raw(query = "protocol=7&client=js&version=8.6.0&flash=false") {
    const socket = new RawClient(`ws://127.0.0.1:${this.server.port}/app/${APP.key}?${query}`);
    this.#open.push(() => socket.close());
    await socket.open();
    return socket;
  }

  onClose(action) {
    this.#open.push(action);
  }

  closeAll() {
    for (const close of this.#open.splice(0)) close();
  }
}

export function connected(client) {
  const { connection } = client;
  if (connection.state === "connected") return Promise.resolve();
  return within(
    new Promise((resolve) => connection.bind("connected", resolve)),
    `connected (state ${connection.state})`,
  );
}

/** Resolves with the data of `pusher:subscription_succeeded`. */
export function subscribed(channel) {
  return within(
    new Promise((resolve, reject) => {
      channel.bind("pusher:subscription_succeeded", resolve);
      channel.bind("pusher:subscription_error", (error) =>
        reject(new Error(`${channel.name}: ${JSON.stringify(error)}`)),
      );
    }),
    `subscription to ${channel.name}`,
  );
}

/** Subscribes, and logs every event of the channel, from the first on, as {event, data}. */
export async function subscribe(client, name) {
  const log = new Log(name);
  const channel = client.subscribe(name);
  channel.bind_global((event, data) => log.push({ event, data }));
  const success = await subscribed(channel);
  return { channel, log, success };
}

/** Only what a publisher sent: without `pusher:` and `pusher_internal:` events. */
export function published(log) {
  return log.items.filter(({ event }) => !event.startsWith("pusher"));
}

/** A WebSocket that keeps the frames as they came. */
export class RawClient {
  constructor(url, options = {}) {
    this.frames = new Log(`frames of ${url}`);
    this.closed = new Log(`close of ${url}`);
    this.socket = new WebSocket(url, options);
    this.socket.on("message", (bytes) => {
      const text = bytes.toString("utf8");
      this.frames.push({ text, ...JSON.parse(text) });
    });
    this.socket.on("close", (code, reason) =>
      this.closed.push({ code, reason: reason.toString("utf8") }),
    );
    this.socket.on("error", () => {});
  }

  async open() {
    const hello = await this.frames.first(() => true, "first frame");
    if (hello.event === "pusher:connection_established") {
      this.socketId = JSON.parse(hello.data).socket_id;
    }
    return hello;
  }

  send(event) {
    this.socket.send(typeof event === "string" ? event : JSON.stringify(event));
  }

  /** Sends, and returns the next frame that matches. */
  async ask(event, matches, what) {
    const from = this.frames.items.length;
    this.send(event);
    return this.frames.first(matches, what, from);
  }

  subscribe(channel, fields = {}) {
    return this.ask(
      { event: "pusher:subscribe", data: { channel, ...fields } },
      (frame) =>
        frame.event === "pusher_internal:subscription_succeeded" && frame.channel === channel,
      `subscription to ${channel}`,
    );
  }

  on(channel) {
    return this.frames.items.filter((frame) => frame.channel === channel);
  }

  close() {
    this.socket.terminate();
  }
}
