import { test } from "node:test";

import { fixtures } from "sluice-plugin/testing";

import plugin from "../plugin.js";

for (const fixture of fixtures(new URL("../fixtures", import.meta.url))) {
  test(fixture.name, () => fixture.check(plugin));
}
