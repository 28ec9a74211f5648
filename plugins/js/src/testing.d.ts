// Types of the test kit.

import type { Plugin } from "./index.js";

export interface Fixture {
  readonly name: string;
  /** Throws an assertion error that shows what differs. */
  check(plugin: Plugin): void;
  run(plugin: Plugin, dictionaries?: boolean): {
    rows?: object[];
    drops?: Record<string, number>;
    quarantined?: Record<string, number>;
    error?: string;
  };
}

export function fixtures(folder: string | URL): Fixture[];
