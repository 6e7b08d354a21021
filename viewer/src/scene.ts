/** What is shown: the spaces of some clients on one axis, their mappings in an index, their queues. */

import type { Numbers, Trace } from "./data";
import { Fold, type Space } from "./fold";
import { Tree, type Boxes } from "./tree";

/** Jobs of one queue, or fences of one timeline that no job has; times are sorted, each for itself. */
export interface Queue {
  client: number; // -1: of the device
  label: string;
  binds: boolean; // a client's queue of VM_BINDs
  jobs: Int32Array; // rows of jobs, by when they were queued; none: `fences` are rows of fences
  fences: Int32Array;
  queued: Float64Array;
  started: Float64Array;
  done: Float64Array;
  failed: Float64Array;
}

export interface CallLane {
  label: string;
  kind: "bind" | "exec" | "other" | "refused";
  places: Int32Array; // among the calls
}

const VM_BIND = "VM_BIND";
const EXEC = "EXEC";

export class Scene {
  readonly fold: Fold;
  readonly boxes: Boxes;
  readonly tree: Tree;
  readonly regions: number[]; // rows of regions
  readonly queues: Queue[];
  readonly lanes: CallLane[];
  readonly moves: Int32Array; // rows of moves, by time
  readonly movedAt: Float64Array;
  readonly byObject: Map<number, number[]>; // rows of mappings that show an object

  /** `client` is a place among the document's clients; -1: all that ever mapped something. */
  constructor(
    readonly trace: Trace,
    readonly client: number,
  ) {
    const owner = trace.column("mappings.client");
    const addr = trace.column("mappings.addr");
    const range = trace.column("mappings.range");
    const shown = rowsWhere(owner, (value) => client < 0 || value === client);
    const spaces = trace.document.clients.flatMap((_, index) => this.space(index, owner, addr, range));
    this.fold = new Fold(spaces);

    const u0 = new Float64Array(owner.length);
    const u1 = new Float64Array(owner.length);
    for (const i of shown) {
      u0[i] = this.fold.place(owner[i], addr[i]);
      const last = this.fold.segmentOf(owner[i], addr[i])!;
      u1[i] = u0[i] + (range[i] / (last.end - last.addr)) * (last.u1 - last.u0);
    }
    this.boxes = { born: trace.column("mappings.born"), died: trace.column("mappings.died"), u0, u1 };
    this.tree = new Tree(this.boxes, shown);
    this.regions = [...rowsWhere(trace.column("regions.client"), (value) => this.fold.has(value))];
    this.queues = [...jobQueues(trace, client), ...fenceQueues(trace)];
    this.lanes = callLanes(trace, client);
    const t = trace.column("moves.t");
    this.moves = rowsWhere(t, () => true).sort((a, b) => t[a] - t[b]);
    this.movedAt = Float64Array.from(this.moves, (i) => t[i]);
    this.byObject = new Map();
    if (this.moves.length) {
      const object = trace.column("mappings.object");
      for (const i of shown) {
        const rows = this.byObject.get(object[i]);
        if (rows) rows.push(i);
        else this.byObject.set(object[i], [i]);
      }
    }
  }

  private space(index: number, owner: Numbers, addr: Numbers, range: Numbers): Space[] {
    if (this.client >= 0 && this.client !== index) return [];
    const { start, end, kernel } = this.trace.document.clients[index];
    const mine = rowsWhere(owner, (value) => value === index);
    const regions = rowsWhere(this.trace.column("regions.client"), (value) => value === index);
    if (!mine.length && !regions.length && this.client < 0) return [];
    const [at, long] = [this.trace.column("regions.addr"), this.trace.column("regions.range")];
    return [
      {
        client: index,
        start,
        end,
        kernel,
        addr: [...Array.from(mine, (i) => addr[i]), ...Array.from(regions, (i) => at[i])],
        range: [...Array.from(mine, (i) => range[i]), ...Array.from(regions, (i) => long[i])],
      },
    ];
  }

  /** An object's name: the call that made it. */
  objectName(object: number): string {
    return object < 0 ? "no object" : `object ${this.trace.column("objects.id")[object]}`;
  }

  /** The mapping at an address when a call had been made, -1 if none. */
  mapping(client: number, addr: number, call: number): number {
    const u = this.fold.place(client, addr);
    const [at, long] = [this.trace.column("mappings.addr"), this.trace.column("mappings.range")];
    const hits = this.tree.inside(call, call, u, u, 64);
    return (
      hits.find(
        (i) =>
          at[i] <= addr && addr < at[i] + long[i] && this.boxes.born[i] <= call && call < this.boxes.died[i],
      ) ?? -1
    );
  }
}

export function rowsWhere(column: Numbers, holds: (value: number) => boolean): Int32Array {
  const rows = new Int32Array(column.length);
  let length = 0;
  for (let i = 0; i < column.length; i++) if (holds(column[i])) rows[length++] = i;
  return rows.slice(0, length);
}

function callLanes(trace: Trace, client: number): CallLane[] {
  const [nr, ret, owner] = ["nr", "ret", "client"].map((name) => trace.column(`calls.${name}`));
  const binds = new Set<number>();
  const execs = new Set<number>();
  for (const [number, name] of Object.entries(trace.document.calls)) {
    if (name === VM_BIND) binds.add(Number(number));
    if (name === EXEC) execs.add(Number(number));
  }
  const places: Record<CallLane["kind"], number[]> = { bind: [], exec: [], other: [], refused: [] };
  for (let i = 0; i < nr.length; i++) {
    if (client >= 0 && owner[i] !== client) continue;
    places[ret[i] < 0 ? "refused" : binds.has(nr[i]) ? "bind" : execs.has(nr[i]) ? "exec" : "other"].push(i);
  }
  const labels = { bind: VM_BIND, exec: EXEC, other: "other calls", refused: "refused" };
  return (Object.keys(places) as CallLane["kind"][])
    .filter((kind) => places[kind].length)
    .map((kind) => ({ kind, label: labels[kind], places: Int32Array.from(places[kind]) }));
}

function jobQueues(trace: Trace, client: number): Queue[] {
  const [owner, channel, call] = ["client", "channel", "call"].map((name) => trace.column(`jobs.${name}`));
  const [queued, started, done, error] = ["queued", "started", "done", "error"].map((name) =>
    trace.column(`jobs.${name}`),
  );
  const rows = new Map<string, number[]>();
  for (let i = 0; i < owner.length; i++) {
    if (client >= 0 && owner[i] !== client) continue;
    const key = `${owner[i]} ${channel[i]}`;
    const list = rows.get(key);
    if (list) list.push(i);
    else rows.set(key, [i]);
  }
  const several = new Set([...rows.keys()].map((key) => key.split(" ")[0])).size > 1;
  const began = (i: number): number => (queued[i] >= 0 ? queued[i] : trace.when[call[i]]);
  return [...rows.values()]
    .sort((a, b) => owner[a[0]] - owner[b[0]] || channel[a[0]] - channel[b[0]])
    .map((list) => {
      const jobs = Int32Array.from(list).sort((a, b) => began(a) - began(b));
      const first = list[0];
      const name = channel[first] ? `channel ${channel[first]}` : "binds";
      const times = (time: Numbers): Float64Array =>
        Float64Array.from(
          jobs.filter((i) => time[i] >= 0),
          (i) => time[i],
        ).sort();
      return {
        client: owner[first],
        binds: !channel[first],
        jobs,
        fences: new Int32Array(0),
        label: several ? `${trace.document.clients[owner[first]].id}: ${name}` : name,
        queued: Float64Array.from(jobs, began),
        started: times(started),
        done: times(done),
        failed: Float64Array.from(
          jobs.filter((i) => error[i] !== 0),
          (i) => (done[i] >= 0 ? done[i] : began(i)),
        ),
      };
    });
}

function fenceQueues(trace: Trace): Queue[] {
  const [timeline, made, signalled, error] = ["timeline", "made", "signalled", "error"].map((name) =>
    trace.column(`fences.${name}`),
  );
  const rows = new Map<number, number[]>();
  for (let i = 0; i < made.length; i++) {
    const list = rows.get(timeline[i]);
    if (list) list.push(i);
    else rows.set(timeline[i], [i]);
  }
  return [...rows.entries()].map(([name, list]) => {
    const fences = Int32Array.from(list).sort((a, b) => made[a] - made[b]);
    const begun = Float64Array.from(fences, (i) => made[i]);
    return {
      client: -1,
      binds: false,
      label: trace.document.places[name] ?? "fences",
      jobs: new Int32Array(0),
      fences,
      queued: begun,
      started: begun,
      done: Float64Array.from(
        fences.filter((i) => signalled[i] >= 0),
        (i) => signalled[i],
      ).sort(),
      failed: Float64Array.from(
        fences.filter((i) => error[i] !== 0),
        (i) => signalled[i],
      ).sort(),
    };
  });
}
