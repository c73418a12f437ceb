// One server process for one test file: on a free port, in an empty directory, ended by SIGTERM.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { within } from "./wait.mjs";

export const APP = { id: "1001", key: "app-key", secret: "app-secret" };

const START_DEADLINE_MS = 15_000;
const STOP_DEADLINE_MS = 20_000;

const here = path.dirname(fileURLToPath(import.meta.url));
export const binary = path.resolve(
  process.env.RINGVERB_BIN ?? path.join(here, "../../../target/release/ringverb"),
);

// Below the range from which the kernel takes the ports of outgoing connections: one of those would
// be in the way of a server that comes back to its port.
const PORTS = { from: 15_000, to: 32_000 };

function isFree(port) {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

export async function freePort() {
  for (;;) {
    const port = randomInt(PORTS.from, PORTS.to);
    if (await isFree(port)) return port;
  }
}

class Server {
  constructor(child, port, directory, path) {
    this.path = path;
    this.child = child;
    this.port = port;
    this.directory = directory;
    this.output = "";
    this.exited = new Promise((resolve) => {
      child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        this.output = (this.output + text).slice(-20_000);
      });
    }
  }

  async ready() {
    const end = Date.now() + START_DEADLINE_MS;
    for (;;) {
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new Error(`the server ended before it was ready:\n${this.output}`);
      }
      try {
        const response = await fetch(`http://127.0.0.1:${this.port}${this.path}/up`);
        await response.arrayBuffer();
        if (response.status === 200) return;
      } catch {
        // Not listening yet.
      }
      if (Date.now() > end) {
        this.child.kill("SIGKILL");
        throw new Error(`no answer from /up within ${START_DEADLINE_MS} ms:\n${this.output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** SIGTERM; the server must leave by itself, with exit code 0. */
  async stop() {
    const gone = this.child.exitCode !== null || this.child.signalCode !== null;
    assert.ok(!gone, `the server ended by itself:\n${this.output}`);
    this.child.kill("SIGTERM");
    try {
      const end = await within(this.exited, "exit after SIGTERM", STOP_DEADLINE_MS);
      assert.deepEqual(end, { code: 0, signal: null }, this.output);
    } finally {
      this.child.kill("SIGKILL");
      await rm(this.directory, { recursive: true, force: true });
    }
  }
}

/** Starts the server under test with one app; `environment` adds to or overrides the settings. */
export async function startServer(environment = {}, givenPort = undefined) {
  const port = givenPort ?? (await freePort());
  const directory = await mkdtemp(path.join(tmpdir(), "ringverb-e2e-"));
  const child = spawn(binary, [], {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      REVERB_APP_ID: APP.id,
      REVERB_APP_KEY: APP.key,
      REVERB_APP_SECRET: APP.secret,
      REVERB_SERVER_HOST: "127.0.0.1",
      REVERB_SERVER_PORT: String(port),
      RINGVERB_WORKERS: "4",
      RINGVERB_IO: process.env.RINGVERB_IO ?? "auto",
      RINGVERB_ADMIN: "off",
      RINGVERB_LOG_FORMAT: "text",
      ...environment,
    },
  });
  const server = new Server(child, port, directory, environment.REVERB_SERVER_PATH ?? "");
  await new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(new Error(`cannot start ${binary}: ${error.message}`)));
  });
  process.once("exit", () => child.kill("SIGKILL"));
  await server.ready();
  return server;
}
