// The console of one node of a cluster: it finds and ends what another node has, and names a node that does not answer.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "../lib/browser.mjs";
import { Clients } from "../lib/clients.mjs";
import { startRedis } from "../lib/redis.mjs";
import { freePort, startServer } from "../lib/server.mjs";

let redis;
let nodes = [];
let clients = [];
let browser;
let urls;

before(async () => {
  redis = await startRedis();
  const ports = [await freePort(), await freePort()];
  urls = ports.map((port) => `http://127.0.0.1:${port}`);
  nodes = await Promise.all(ports.map((port) => startServer({
    ...redis.environment,
    RINGVERB_ADMIN: `127.0.0.1:${port}`,
    RINGVERB_WORKERS: "2",
    RINGVERB_DEVELOPMENT: "true",
  })));
  clients = nodes.map((node) => new Clients(node));
  await redis.lines(nodes.length * 2);
  browser = await Browser.start();
});

after(async () => {
  clients.forEach((all) => all.closeAll());
  await browser?.stop();
  nodes[1]?.child.kill("SIGCONT");
  await Promise.all(nodes.map((node) => node.stop()));
  await redis?.stop();
});

const rowsText = `[...document.querySelectorAll("tbody tr")].map((row) => row.innerText)`;

async function open(hash) {
  const page = await browser.page();
  await page.open(`${urls[0]}/${hash}`);
  return page;
}

test("channels and connections of all nodes are listed with their nodes, and one of another node is ended",
  async () => {
  const own = await clients[0].raw();
  await own.subscribe("orders");
  const theirs = await clients[1].raw();
  await theirs.subscribe("orders");
  await theirs.subscribe("only-there");
  const other = (await (await fetch(`${urls[1]}/api/nodes`)).json()).own.slice(0, 8);

  const list = await open("#/channels");
  await list.sees(`${rowsText}.some((row) => row.includes("only-there") && row.includes("${other}"))`,
    "the other node's channel");
  await list.sees(
    `${rowsText}.some((row) => row.includes("orders") && row.includes("this node") && row.includes("${other}"))`,
    "both nodes");
  await list.seesText("on 2 nodes");
  await list.picture("cluster-channels");

  const page = await open("#/connections");
  await page.sees(`${rowsText}.some((row) => row.includes("${theirs.socketId}") && row.includes("${other}"))`,
    "its connection");
  await page.picture("cluster-connections");
  await page.type("input[type=search]", theirs.socketId);
  await page.sees(`${rowsText}.length === 1`, "one row");
  const inside = await open(`#/connection?id=${theirs.socketId}`);
  await inside.seesText("Another node has this connection");
  await inside.sees(`[...document.querySelectorAll("dd")].some((value) => value.textContent.includes("127.0.0.1:"))`,
    "its address");
  await inside.picture("cluster-connection");
  await inside.press("Disconnect");
  await inside.seesText("is open on any node");
  await inside.picture("cluster-connection-gone");
  for (const view of [list, page]) assert.deepEqual(view.problems, []);
});

test("a node that does not answer is named, with the rows of the others", async () => {
  const own = await clients[0].raw();
  await own.subscribe("stays");
  const other = (await (await fetch(`${urls[1]}/api/nodes`)).json()).own.slice(0, 8);
  nodes[1].child.kill("SIGSTOP");
  const page = await open("#/channels");
  await page.sees(`document.body.innerText.includes("No answer: node ${other}")`, "the silent node");
  await page.sees(`${rowsText}.some((row) => row.includes("stays"))`, "the channel of this node");
  await page.picture("cluster-silent");
  nodes[1].child.kill("SIGCONT");
  await page.sees(`!document.body.innerText.includes("No answer")`, "it answers again");
});
