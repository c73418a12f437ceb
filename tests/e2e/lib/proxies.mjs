// The proxies that people put in front of the server, and Supervisor, with the files of tuning/ that they are given.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir, userInfo } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "./server.mjs";
import { until } from "./wait.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
// Debian installs both where only the PATH of root looks.
const ENVIRONMENT = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` };

const atExit = [];
process.once("exit", () => {
  for (const action of atExit) action();
});

function shipped(name) {
  return readFileSync(path.join(here, "../../../tuning", name), "utf8");
}

/** Replaces every match; a text that is not there any more is a fault of the test. */
function replaced(text, pairs) {
  return pairs.reduce((before, [from, to]) => {
    const found = typeof from === "string" ? before.includes(from) : before.match(from);
    if (!found) throw new Error(`${from} is not in the shipped file`);
    return before.replaceAll(from, to);
  }, text);
}

function run(program, args, directory) {
  const done = spawnSync(program, args, { cwd: directory, env: ENVIRONMENT, encoding: "utf8" });
  if (done.error) throw new Error(`${program}: ${done.error.message}; tests/run installs it`);
  return { status: done.status, output: done.stdout + done.stderr };
}

/** A folder with a certificate, which goes with the test. */
function folder() {
  const directory = mkdtempSync(path.join(tmpdir(), "ringverb-proxy-"));
  atExit.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function certificate(directory) {
  const key = path.join(directory, "key.pem");
  const cert = path.join(directory, "cert.pem");
  const args = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"];
  const made = run("openssl", [...args, "-keyout", key, "-out", cert], directory);
  if (made.status !== 0) throw new Error(made.output);
  const both = path.join(directory, "both.pem");
  writeFileSync(both, readFileSync(cert, "utf8") + readFileSync(key, "utf8"), { mode: 0o600 });
  return { key, cert, both };
}

/** The main file around tuning/nginx.conf, as a distribution has it. */
function nginxFolder(site) {
  const directory = folder();
  writeFileSync(path.join(directory, "site.conf"), site);
  const main = `
    pid ${directory}/nginx.pid;
    error_log stderr warn;
    events { worker_connections 1024; }
    http {
      access_log off;
      ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map((kind) => `${kind}_temp_path ${directory}/${kind};`)
        .join("\n      ")}
      include ${directory}/site.conf;
    }`;
  writeFileSync(path.join(directory, "nginx.conf"), main);
  return directory;
}

const nginxArguments = (directory) => ["-e", "stderr", "-p", directory, "-c", "nginx.conf"];

/** What the program says of the shipped file, with certificates of this host. */
export function checkNginx() {
  const { key, cert } = certificate(folder());
  const directory = nginxFolder(
    replaced(shipped("nginx.conf"), [
      ["/etc/ssl/ws.example.com.pem", cert],
      ["/etc/ssl/ws.example.com.key", key],
      // The test may not bind port 443.
      ["listen 443", "listen 127.0.0.1:18443"],
      ["listen [::]:443", "listen [::1]:18443"],
    ]),
  );
  return run("nginx", [...nginxArguments(directory), "-t"], directory);
}

export function checkHaproxy() {
  const directory = folder();
  const { both } = certificate(directory);
  const file = path.join(directory, "haproxy.cfg");
  writeFileSync(file, replaced(shipped("haproxy.cfg"), [["/etc/ssl/ws.example.com.pem", both]]));
  return run("haproxy", ["-c", "-f", file], directory);
}

async function started(program, args, directory, port) {
  const child = spawn(program, args, { cwd: directory, env: ENVIRONMENT, stdio: "inherit" });
  atExit.push(() => child.kill("SIGKILL"));
  await new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(new Error(`${program}: ${error.message}`)));
  });
  const accepts = () =>
    new Promise((resolve) => {
      const socket = createConnection({ port, host: "127.0.0.1" });
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
  await until(accepts, (yes) => yes, `${program} accepts`);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  return { port, pid: child.pid, ended, stop: () => child.kill("SIGTERM") };
}

/** Processes that a process has started and that run. */
export function children(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
}

/** tuning/nginx.conf without TLS, in front of this server. `changes` are further changes of the file. */
export async function startNginx(server, changes = []) {
  const port = await freePort();
  const site = replaced(shipped("nginx.conf"), [
    ...changes,
    [/^ *(ssl_certificate|listen \[).*\n/gm, ""],
    ["listen 443 ssl", `listen 127.0.0.1:${port}`],
    [/(127\.0\.0\.\d):8080/g, `$1:${server.port}`],
  ]);
  const directory = nginxFolder(site);
  const args = [...nginxArguments(directory), "-g", "daemon off;"];
  const front = await started("nginx", args, directory, port);
  const reload = async () => {
    const before = children(front.pid);
    const sent = run("nginx", [...nginxArguments(directory), "-s", "reload"], directory);
    if (sent.status !== 0) throw new Error(sent.output);
    const isNew = (pid) => !before.includes(pid);
    await until(() => children(front.pid), (pids) => pids.some(isNew), "nginx has new workers");
  };
  return { ...front, reload };
}

/** tuning/haproxy.cfg without TLS, in front of these servers. */
export async function startHaproxy(...servers) {
  return startChangedHaproxy(servers);
}

/** The same with further changes of the file. */
export async function startChangedHaproxy(servers, changes = []) {
  const port = await freePort();
  const nodes = servers.map((node, index) => `server node${index} 127.0.0.1:${node.port}`);
  const directory = folder();
  const file = path.join(directory, "haproxy.cfg");
  const text = replaced(shipped("haproxy.cfg"), [
    ...changes,
    [/bind :443 .*/g, `bind 127.0.0.1:${port}`],
    ["maxconn 100000", "maxconn 400"],
    [/server node1 .*/g, nodes.join("\n    ")],
  ]);
  writeFileSync(file, text);
  const args = ["-db", "-f", file];
  const front = await started("haproxy", args, directory, port);
  // A new process, which asks the old one to end when its connections have.
  const reload = () => started("haproxy", [...args, "-sf", String(front.pid)], directory, port);
  return { ...front, reload };
}

/** Seconds of a timeout in a file of tuning/. */
export function timeoutOf(file, name) {
  const found = shipped(file).match(new RegExp(`^ *${name} (\\d+)(s|m|h);?$`, "m"));
  if (!found) throw new Error(`${file} has no ${name}`);
  return Number(found[1]) * { s: 1, m: 60, h: 3600 }[found[2]];
}

/** Supervisor with tuning/ringverb-supervisor.conf; the server reads a .env of this app on this port. */
export async function startSupervisor(binary, environment, port) {
  const directory = folder();
  const log = path.join(directory, "ringverb.log");
  const lines = Object.entries(environment).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(path.join(directory, ".env"), lines.join(""));
  const program = replaced(shipped("ringverb-supervisor.conf"), [
    ["/usr/local/bin/ringverb start", `${binary} start`],
    [/^directory=.*/gm, `directory=${directory}`],
    [/^user=.*/gm, `user=${userInfo().username}`],
    [/^stdout_logfile=.*/gm, `stdout_logfile=${log}`],
  ]);
  const config = path.join(directory, "supervisord.conf");
  const main = `
[supervisord]
nodaemon=true
logfile=${directory}/supervisord.log
pidfile=${directory}/supervisord.pid
childlogdir=${directory}
[unix_http_server]
file=${directory}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://${directory}/socket
`;
  writeFileSync(config, main + program);
  const env = { PATH: ENVIRONMENT.PATH, HOME: directory, XDG_RUNTIME_DIR: directory };
  const child = spawn("supervisord", ["-c", config], { cwd: directory, env, stdio: "ignore" });
  // It ends its programs before itself.
  atExit.push(() => child.kill("SIGTERM"));
  const ended = new Promise((resolve, reject) => {
    child.once("exit", resolve);
    child.once("error", (error) => reject(new Error(`supervisord: ${error.message}`)));
  });
  const control = (...args) => run("supervisorctl", ["-c", config, ...args], directory);
  const running = () => control("status", "ringverb").output;
  await until(running, (text) => text.includes("RUNNING"), "Supervisor runs the server", 20_000);
  return {
    port,
    control,
    pid: () => control("pid", "ringverb").output.trim(),
    log: () => readFileSync(log, "utf8"),
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
