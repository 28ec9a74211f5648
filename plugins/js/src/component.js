// A plugin as the exports of a component. What is thrown here is the error of the contract, which is a text.

import { PluginError, publicText } from "./error.js";
import { Plugin } from "./plugin.js";

/** The exported interface `guest` of a plugin. */
export function component(plugin) {
  if (!(plugin instanceof Plugin)) throw new PluginError("export default plugin({ … }) is missing");
  const guarded = (textOf, work) => {
    try {
      return work();
    } catch (error) {
      throw textOf(error);
    }
  };
  return {
    describe: () => plugin.describe(),
    init: (config) => guarded((error) => String(error?.message ?? error), () => plugin.init(config)),
    process(batch, context) {
      // SpiderMonkey has 64-bit numbers of the contract as BigInt, QuickJS as Number: give back what was given.
      const wide = typeof context.now === "bigint" ? BigInt : Number;
      const outcome = guarded(publicText, () => plugin.process(batch, contextOf(context)));
      return { ...outcome, drops: outcome.drops.map(({ reason, rows }) => ({ reason, rows: wide(rows) })) };
    },
  };
}

/** The context as plugins see it, whatever engine runs; QuickJS knows `now` to a quarter of a microsecond only. */
function contextOf({ signal, now, limits, hints }) {
  return {
    signal,
    now: BigInt(now),
    limits: { deadline: Number(limits.deadline), output: Number(limits.output) },
    hints,
  };
}
