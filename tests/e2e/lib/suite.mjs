// The frame of every test file: its own server, and no connection left over between tests.

import { after, afterEach, before } from "node:test";
import { Clients } from "./clients.mjs";
import { startServer } from "./server.mjs";

export function withServer(environment = {}) {
  const suite = {};
  before(async () => {
    suite.server = await startServer(environment);
    suite.clients = new Clients(suite.server);
  });
  afterEach(() => suite.clients?.closeAll());
  after(() => suite.server?.stop());
  return suite;
}
