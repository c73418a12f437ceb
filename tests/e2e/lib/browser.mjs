// Chromium without a window, driven by the DevTools protocol: enough of it for the tests of the console.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import WebSocket from "ws";
import { until, within } from "./wait.mjs";

const PROGRAMS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
// A loaded machine starts a browser slowly.
const START_DEADLINE_MS = 60_000;
const PAGE_DEADLINE_MS = 20_000;

/** The browser of this host. tests/run installs one. */
export function chromium() {
  const program = process.env.CHROMIUM ?? PROGRAMS.find((file) => existsSync(file));
  if (!program) throw new Error("no Chromium: install Debian's `chromium`, or name one in CHROMIUM");
  return program;
}

export class Browser {
  #next = 0;
  #answers = new Map();
  #listeners = new Set();

  static async start(more = []) {
    const directory = await mkdtemp(path.join(tmpdir(), "ringverb-chromium-"));
    const child = spawn(chromium(), [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
      "--disable-extensions", "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-port=0",
      ...more, `--user-data-dir=${directory}`, "about:blank",
    ], { stdio: ["ignore", "ignore", "pipe"], env: { PATH: process.env.PATH, HOME: directory } });
    process.once("exit", () => child.kill("SIGKILL"));
    let output = "";
    child.stderr.setEncoding("utf8");
    child.stderr.on("data", (text) => { output += text; });
    const address = await until(
      async () => /DevTools listening on (ws:\S+)/.exec(output)?.[1], Boolean, "the browser listens", START_DEADLINE_MS,
    ).catch((error) => { child.kill("SIGKILL"); throw new Error(`${error.message}\n${output}`); });
    const browser = new Browser();
    Object.assign(browser, { child, directory, socket: new WebSocket(address) });
    await within(new Promise((resolve) => browser.socket.once("open", resolve)), "a DevTools session");
    browser.socket.on("message", (message) => browser.#receive(JSON.parse(message)));
    return browser;
  }

  #receive({ id, result, error, method, params, sessionId }) {
    if (id === undefined) {
      for (const listen of this.#listeners) listen(method, params, sessionId);
      return;
    }
    const { resolve, reject } = this.#answers.get(id);
    this.#answers.delete(id);
    if (error) reject(new Error(error.message));
    else resolve(result);
  }

  send(method, params = {}, sessionId = undefined) {
    this.#next += 1;
    const id = this.#next;
    const answer = new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
    this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    return within(answer, method, PAGE_DEADLINE_MS);
  }

  /** A tab of its own, with nothing of other tabs in its storage. */
  async page(options = {}) {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId);
    this.#listeners.add((method, params, from) => { if (from === sessionId) page.note(method, params); });
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.send(`${domain}.enable`);
    await page.look(options);
    return page;
  }

  async stop() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGTERM");
    await within(ended, "the end of the browser").catch(() => this.child.kill("SIGKILL"));
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Page {
  /** What the page complained about: errors of scripts, and what its policy forbade. */
  problems = [];
  /** Addresses of all requests. */
  requests = [];

  constructor(browser, sessionId) {
    this.browser = browser;
    this.sessionId = sessionId;
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  note(method, params) {
    if (method === "Runtime.exceptionThrown") {
      this.problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === "Log.entryAdded" && params.entry.level === "error") {
      this.problems.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    } else if (method === "Network.requestWillBeSent") {
      this.requests.push(params.request.url);
    } else if (method === "Page.javascriptDialogOpening") {
      this.send("Page.handleJavaScriptDialog", { accept: true });
    }
  }

  async look({ width = 1280, height = 900, dark = false, mobile = false } = {}) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: mobile ? 2 : 1, mobile });
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.send("Emulation.setEmulatedMedia", { features });
  }

  async open(url) {
    await this.send("Page.navigate", { url });
    await this.sees("document.readyState === 'complete' && document.querySelector('main')?.childElementCount > 0", url);
  }

  /** The value of an expression, which may be a promise. */
  async eval(expression) {
    const answer = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (answer.exceptionDetails) {
      throw new Error(`${expression}: ${answer.exceptionDetails.exception?.description}`);
    }
    return answer.result.value;
  }

  /** Waits until an expression is true. */
  async sees(expression, what = expression) {
    const check = () => this.eval(expression).catch(() => false);
    try {
      return await until(check, Boolean, `the page: ${what}`, PAGE_DEADLINE_MS);
    } catch (error) {
      const text = await this.eval("document.body.innerText").catch(() => "");
      throw new Error(`${error.message}\nproblems: ${this.problems.join("; ")}\npage: ${text.slice(0, 3000)}`);
    }
  }

  /** Waits for a text, in any case: headings are shown in capitals. */
  seesText(text) {
    const wanted = JSON.stringify(text.toLowerCase());
    return this.sees(`document.querySelector("main").innerText.toLowerCase().includes(${wanted})`, text);
  }

  click(selector) {
    return this.eval(`document.querySelector(${JSON.stringify(selector)}).click()`);
  }

  /** Clicks the button or link with this text. */
  async press(text) {
    const find =
      `[...document.querySelectorAll("button, a")].find((node) => node.textContent.trim() === ${JSON.stringify(text)})`;
    await this.sees(`Boolean(${find})`, `a button ${text}`);
    await this.eval(`${find}.click()`);
  }

  /** Types into a field, as a keyboard does. */
  async type(selector, text) {
    await this.sees(`Boolean(document.querySelector(${JSON.stringify(selector)}))`, selector);
    const find = `const field = document.querySelector(${JSON.stringify(selector)});`;
    await this.eval(`(() => { ${find} field.focus(); field.select(); })()`);
    await this.send("Input.insertText", { text });
  }

  async key(key) {
    const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
    const event = { key, code: key.length === 1 ? `Key${key}` : key, text };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  /** A picture, if SCREENSHOTS names a folder: for people who look at the console. */
  async picture(name) {
    if (!process.env.SCREENSHOTS) return;
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: false });
    await writeFile(path.join(process.env.SCREENSHOTS, `${name}.png`), Buffer.from(data, "base64"));
  }
}
