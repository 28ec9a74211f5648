// Keeps warnings and worse, and everything of the services that are named in the configuration.

import { WARN, plugin } from "sluice-plugin";

export default plugin({
  name: "{{name}}",
  version: "0.1.0",
  kind: "filter",
  reads: ["severity", "service"],
  config: { keep: { type: "array", items: { type: "string" }, default: [], description: "services that are kept as a whole" } },
  keep: (row, config) => row.severity >= WARN || config.keep.includes(row.service),
});
