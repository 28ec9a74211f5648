// Makes a component of a plugin in JavaScript or TypeScript. Called in the plugin's folder:
//   node .sluice/sdk/build.mjs [--entry plugin.js] [--out dist/<name>.wasm] [--engine quickjs|spidermonkey]
// BUILD.md says what it needs and how it fails.

import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const SDK = dirname(fileURLToPath(import.meta.url));
const WORLD = "pure";
// Kept, because places in errors of the component are lines of the bundle in it.
const WORK = ".sluice/build";
const ENTRIES = ["plugin.ts", "plugin.js", "plugin.mjs"];
const EXIT_MISTAKE = 1;
const EXIT_TOOLS = 3;

class BuildError extends Error {
  constructor(message, exitCode = EXIT_MISTAKE) {
    super(message);
    this.exitCode = exitCode;
  }
}

async function main() {
  const { values: options } = parseArgs({
    options: {
      entry: { type: "string" },
      out: { type: "string" },
      engine: { type: "string", default: "quickjs" },
    },
  });
  const engine = ENGINES[options.engine];
  if (!engine) throw new BuildError(`--engine ${options.engine}: there are ${Object.keys(ENGINES).join(" and ")}`);
  const entry = options.entry ?? ENTRIES.find((name) => existsSync(name));
  if (!entry || !existsSync(entry)) throw new BuildError(`no ${entry ?? ENTRIES.join(", ")} here; run this in the folder of a plugin`);
  const bundle = await bundled(entry, resolve(WORK, "bundle.mjs"));
  const { name, version } = await described(bundle);
  const component = await engine(bundle);
  const out = resolve(options.out ?? `dist/${name}.wasm`);
  await mkdir(dirname(out), { recursive: true });
  // A reader sees the old component or the new one.
  await writeFile(`${out}.part`, component);
  await rename(`${out}.part`, out);
  console.log(`${name} ${version}: ${relative(".", out)}, ${(component.length / 1e6).toFixed(1)} MB`);
}

/** One module of everything, with the exports of the contract. */
async function bundled(entry, out) {
  const esbuild = await tool("esbuild");
  const source = `import definition from ${JSON.stringify(`./${relative(".", entry)}`)};
import { component } from "sluice-plugin/component";
export const guest = component(definition);
`;
  try {
    await esbuild.build({
      stdin: { contents: source, resolveDir: process.cwd(), sourcefile: "component-entry.js" },
      // The plugin's own copy of the SDK, whether it was installed into node_modules or not.
      alias: { "sluice-plugin": join(SDK, "src/index.js"), "sluice-plugin/component": join(SDK, "src/component.js") },
      bundle: true,
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"],
      target: "es2022",
      outfile: out,
      logLevel: "silent",
    });
  } catch (error) {
    const [first] = error.errors ?? [];
    if (!first) throw error;
    const place = first.location ? `${first.location.file}:${first.location.line}:${first.location.column + 1}: ` : "";
    throw new BuildError(`${place}${first.text}`);
  }
  return out;
}

/** Runs the definition here first, where an error has a text and a place. */
async function described(bundle) {
  try {
    const { guest } = await import(pathToFileURL(bundle));
    return guest.describe();
  } catch (error) {
    throw new BuildError(error.name === "PluginError" ? `plugin: ${error.message}` : `plugin: ${error.stack ?? error}`);
  }
}

const ENGINES = { quickjs, spidermonkey };

async function quickjs(bundle) {
  const { componentize } = await tool("componentize-qjs");
  const { component } = await componentize({
    witPath: join(SDK, "wit/plugin.wit"),
    world: WORLD,
    jsSource: await readFile(bundle, "utf8"),
    sync: true,
    stubWasi: true,
  });
  return component;
}

async function spidermonkey(bundle) {
  const { componentize } = await tool("@bytecodealliance/componentize-js");
  const { component } = await componentize({
    sourcePath: bundle,
    witPath: join(SDK, "wit/plugin.wit"),
    worldName: WORLD,
    disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
  });
  return component;
}

/** A package of the plugin's folder, which lies above this file. */
async function tool(name) {
  try {
    return await import(name);
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new BuildError(`${name} is not installed; run: npm install`, EXIT_TOOLS);
  }
}

main().catch((error) => {
  console.error(`error: ${error instanceof BuildError ? error.message : (error.stack ?? error)}`);
  process.exitCode = error.exitCode ?? EXIT_MISTAKE;
});
