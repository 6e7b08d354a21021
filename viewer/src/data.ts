/** What a trace's page holds: one JSON object; its columns are arrays of numbers, compressed, in base64. */

export interface Column {
  type: "u8" | "u16" | "i16" | "u32" | "i32" | "f64";
  delta: boolean; // each number is the difference to the one before
  data: string; // base64 of zlib's form of the bytes: all first bytes, then all second ones, ...
}

export interface Client {
  id: number;
  name: string;
  pid: number | null;
  program: string;
  kernel: [addr: number, size: number] | null;
  start: number; // of its address space
  end: number;
}

export interface Fault {
  t: number;
  client: number;
  channel: number;
  call: number; // place among the calls; -1: not known
  addr: number; // -1: no address had a part in it
  access: string;
  reason: string;
  cause: string;
  engine: string;
  unmapped: number; // a call's number, 0: none
  mapped: number;
}

export interface Curve {
  client: number;
  call: number[]; // places among the calls
  mapped: number[]; // bytes
  count: number[];
  fragmentation: number[]; // 0 to 1
  every: number; // which of the changes these are: each, if 1
}

export interface Document {
  version: number;
  name: string;
  program: string;
  begun: string;
  device: string;
  timed: boolean; // whether when jobs ran is known
  end: number; // time of the last thing
  notes: string[]; // what is not as recorded on this page
  clients: Client[];
  calls: Record<string, string>; // a call's name by its ioctl's number
  places: string[]; // names of memories and of fences' timelines
  faults: Fault[];
  curves: Curve[];
  columns: Record<string, Column>;
}

export type Numbers = Float64Array | Int32Array | Uint32Array | Int16Array | Uint16Array | Uint8Array;

export interface Rows {
  readonly length: number;
  readonly [name: string]: Numbers | number;
}

const TYPES = {
  u8: Uint8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f64: Float64Array,
};

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Bytes that stand apart by significance, put together again. */
export function joined(bytes: Uint8Array, width: number): Uint8Array {
  const length = bytes.length / width;
  const out = new Uint8Array(bytes.length);
  for (let part = 0; part < width; part++) {
    const from = part * length;
    for (let i = 0, at = part; i < length; i++, at += width) out[at] = bytes[from + i];
  }
  return out;
}

export async function numbers(column: Column): Promise<Numbers> {
  const type = TYPES[column.type];
  const bytes = joined(await inflated(bytesOf(column.data)), type.BYTES_PER_ELEMENT);
  const values = new type(bytes.buffer as ArrayBuffer);
  if (column.delta) for (let i = 1; i < values.length; i++) values[i] += values[i - 1];
  return values;
}

export class Trace {
  readonly when: Float64Array; // of each call, never less than the one before's; and of the end

  private constructor(
    readonly document: Document,
    private readonly columns: ReadonlyMap<string, Numbers>,
  ) {
    const t = this.column("calls.t");
    this.when = new Float64Array(t.length + 1);
    let latest = t.length ? t[0] : 0;
    for (let i = 0; i < t.length; i++) this.when[i] = latest = Math.max(latest, t[i]);
    this.when[t.length] = Math.max(latest, document.end);
  }

  static async read(document: Document): Promise<Trace> {
    const names = Object.keys(document.columns);
    const values = await Promise.all(names.map((name) => numbers(document.columns[name])));
    return new Trace(document, new Map(names.map((name, i) => [name, values[i]])));
  }

  /** A column, such as `mappings.addr`. Throws where the page has none: it was made for another viewer. */
  column(name: string): Numbers {
    const column = this.columns.get(name);
    if (!column) throw new Error(`the page lacks the column ${name}`);
    return column;
  }

  rows(table: string): number {
    return this.column(`${table}.call` in this.document.columns ? `${table}.call` : `${table}.id`).length;
  }

  get calls(): number {
    return this.when.length - 1;
  }

  /** A call's number in the trace, by its place; of the place behind the last one, the next number. */
  number(place: number): number {
    const id = this.column("calls.id");
    if (place < id.length) return id[place];
    return id.length ? id[id.length - 1] + 1 : 0;
  }

  callName(place: number): string {
    const nr = this.column("calls.nr")[place];
    return this.document.calls[nr] ?? `ioctl ${nr}`;
  }
}

/** How many of `sorted` are less than `value`. */
export function below(sorted: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
