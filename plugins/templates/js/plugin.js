// {{name}}: keeps warnings and worse, and everything of some services.

import { WARN, plugin } from "sluice-plugin";

export default plugin({
  name: "{{name}}",
  version: "0.1.0",
  kind: "filter",
  reads: ["severity", "service"],
  config: {
    services: { type: "array", items: { type: "string" }, default: [], description: "Services of which every event is kept." },
  },
  keep: (row, config) => row.severity >= WARN || config.services.includes(row.service),
});
