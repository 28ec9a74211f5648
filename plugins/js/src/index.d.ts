// Types of the SDK, for editors and for plugins in TypeScript (`plugin.ts`).

export const TRACE: 1;
export const DEBUG: 5;
export const INFO: 9;
export const WARN: 13;
export const ERROR: 17;
export const FATAL: 21;

/** Made by `drop` and `quarantine`. */
export interface Decision {
  readonly action: "drop" | "quarantine";
  readonly reason: string;
}
/** The row goes; it is counted under this reason (`filtered` without one), which should be one of few. */
export function drop(reason?: string): Decision;
/** The row is set aside: it is stored, but apart from the others. */
export function quarantine(reason: string): Decision;

/** An error whose text the operator may read; of other errors only the kind and the place are told. */
export class PluginError extends Error {}

/** int64 columns hold Numbers where those are exact, else BigInts. */
export type Integer = number | bigint;
/** `undefined`: the row has no such attribute, or one of no kind. Arrays and objects are JSON text. */
export type Attribute = string | number | bigint | boolean | Uint8Array | undefined;

export interface Context {
  readonly signal: "log" | "span" | "metric";
  /** Time of acceptance, nanoseconds since 1970; in QuickJS exact to a quarter of a microsecond. */
  readonly now: bigint;
  /** Microseconds of processor time and bytes of output that the call may take. */
  readonly limits: { readonly deadline: number; readonly output: number };
  readonly hints: { readonly share: number; readonly rowBytes: number };
}

/** The row at `index`: one object that moves over the batch, so do not keep it. */
export interface Row {
  readonly index: number;
  readonly signal: "log" | "span" | "metric";
  time: bigint;
  timeUnset: boolean;
  observedTime: bigint | undefined;
  startTime: bigint | undefined;
  durationNs: Integer | undefined;
  name: string;
  body: string;
  bodyType: string;
  severity: number;
  severityText: string;
  kind: string;
  status: string;
  statusMessage: string;
  /** Ids are lower-case hexadecimal text. */
  traceId: string;
  spanId: string;
  parentSpanId: string;
  traceState: string;
  flags: number;
  spanEvents: string;
  links: string;
  scopeName: string;
  scopeVersion: string;
  resourceSchemaUrl: string;
  scopeSchemaUrl: string;
  resourceDroppedAttributes: number;
  scopeDroppedAttributes: number;
  entityRefs: string;
  droppedAttributes: number;
  droppedEvents: number;
  droppedLinks: number;
  unit: string;
  description: string;
  metadata: string;
  metricType: string;
  temporality: string;
  monotonic: boolean | undefined;
  value: Integer | undefined;
  valueInt: Integer | undefined;
  count: Integer | undefined;
  sum: number | undefined;
  min: number | undefined;
  max: number | undefined;
  bounds: number[] | undefined;
  buckets: Integer[] | undefined;
  scale: number | undefined;
  zeroCount: Integer | undefined;
  zeroThreshold: number | undefined;
  positiveOffset: number | undefined;
  negativeOffset: number | undefined;
  positiveBuckets: Integer[] | undefined;
  negativeBuckets: Integer[] | undefined;
  quantiles: string;
  exemplars: string;
  duplicateAttrs: string;
  weight: number;
  /** The resource's `service.name` and `host.name`; empty if there is none. */
  service: string;
  host: string;

  attr(key: string): Attribute;
  resource(key: string): Attribute;
  scope(key: string): Attribute;
  /** Any column by its name in the contract; `null` if the row has no value. */
  column(name: string): unknown;

  setAttr(key: string, value: Attribute | null): void;
  setResource(key: string, value: Attribute | null): void;
  setScope(key: string, value: Attribute | null): void;
  removeAttr(key: string): void;
  removeResource(key: string): void;
  removeScope(key: string): void;
}

export interface Column {
  readonly type: string;
  readonly length: number;
  isNull(row: number): boolean;
  get(row: number): any;
  /** All values by row, `null` where there is none. Do not change it. */
  array(): ArrayLike<any>;
  /** Text columns only: called once for each different text where there is a dictionary. */
  map?(change: (text: string) => string): Column;
}

export interface Batch {
  readonly rows: number;
  readonly names: string[];
  /** `null` if no row of this batch has a value for it. */
  column(name: string): Column | null;
  values(name: string): ArrayLike<any>;
}

export class Outcome {
  constructor(batch: Batch);
  keep(test: (row: number) => boolean, reason?: string): this;
  quarantine(test: (row: number) => boolean, reason: string): this;
  column(name: string, values: Column | ArrayLike<unknown>): this;
  weight(factor: number): this;
}

export type Verdict = boolean | Decision;

export interface Definition<Config = any> {
  name: string;
  version: string;
  kind: "mask" | "sample" | "enrich" | "filter";
  /** Core columns (`severity`), `service`, `host`, `attrs.KEY`, `resource.KEY`, `scope.KEY`, columns and patterns of the contract. */
  reads: string[];
  writes?: string[];
  /** JSON Schemas by key; a key without `default` must be given. */
  config?: Record<string, object>;
  init?(config: any): Config | void;
  keep?(row: Row, config: Config, context: Context): Verdict;
  map?(row: Row, config: Config, context: Context): Verdict | void;
  process?(batch: Batch, context: Context, config: Config): Outcome | void;
}

export interface Plugin {
  init(config: string): void;
  process(batch: Uint8Array, context: Context): object;
}

export function plugin<Config = any>(definition: Definition<Config>): Plugin;
