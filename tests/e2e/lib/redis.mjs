// A Redis (or Valkey) of one test file: on a free port, in an empty directory, gone with the tests.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { freePort } from "./server.mjs";
import { until } from "./wait.mjs";

/** The reply to one inline command, as it came; "" when nobody answers. */
function ask(port, command) {
  return new Promise((resolve) => {
    let reply = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(`${command}\r\nQUIT\r\n`));
    socket.setEncoding("utf8");
    socket.on("data", (text) => {
      reply += text;
    });
    socket.on("error", () => resolve(""));
    socket.on("close", () => resolve(reply));
  });
}

/** The process; `undefined` when there is no such program. */
function run(program, options) {
  const child = spawn(program, options, { stdio: "ignore" });
  return new Promise((resolve) => {
    child.once("spawn", () => resolve(child));
    child.once("error", () => resolve(undefined));
  });
}

export async function startRedis() {
  const port = await freePort();
  const directory = await mkdtemp(path.join(tmpdir(), "ringverb-redis-"));
  const options = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", directory];
  const arguments_ = [...options, "--port", String(port)];
  const child = (await run("redis-server", arguments_)) ?? (await run("valkey-server", arguments_));
  if (child === undefined) throw new Error("neither redis-server nor valkey-server is installed");
  process.once("exit", () => child.kill("SIGKILL"));
  await until(() => ask(port, "PING"), (reply) => reply.startsWith("+PONG"), "Redis answers");
  return {
    /** What a server's environment needs to meet others here. */
    environment: {
      REVERB_SCALING_ENABLED: "true",
      REDIS_HOST: "127.0.0.1",
      REDIS_PORT: String(port),
    },
    /** Waits until so many workers have their line. */
    lines(count) {
      const command = "PUBSUB NUMSUB reverb:rv1:all";
      const areUp = (reply) => reply.includes(`\r\n:${count}\r\n`);
      return until(() => ask(port, command), areUp, `${count} lines to Redis`);
    },
    async stop() {
      child.kill("SIGKILL");
      await rm(directory, { recursive: true, force: true });
    },
  };
}
