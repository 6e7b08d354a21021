/** The tables of the page: what is in a box of calls and addresses. */

import { below, type Trace } from "./data";
import type { Scene } from "./scene";
import type { Column } from "./table";
import { count, duration, hex, moment, result, size } from "./text";
import { opsOf, opWords, wide, type Thing } from "./thing";

/** Calls `from..to`, by place, both in; of each client whose space is in it, the addresses. */
export interface Box {
  from: number;
  to: number;
  u0: number;
  u1: number;
  t0: number;
  t1: number;
  mappings?: ArrayLike<number>; // these, whatever else is there
}

export interface Sheet {
  name: string;
  columns: readonly Column[];
  rows(box: Box): ArrayLike<number>;
  thing(row: number): Thing;
}

const STEP = 1000; // nanoseconds that times are told to

export function sheets(scene: Scene): Sheet[] {
  const { trace } = scene;
  const all: Sheet[] = [mappings(scene), ops(scene), calls(scene), jobs(scene)];
  if (trace.rows("moves")) all.push(moves(scene));
  if (trace.document.faults.length) all.push(faults(scene));
  return all;
}

function plain(
  title: string,
  width: number,
  value: (row: number) => number,
  text: (value: number) => string = count,
): Column {
  return { title, width, number: true, value, text: (row) => text(value(row)) };
}

function words(title: string, width: number, text: (row: number) => string): Column {
  return { title, width, text };
}

function clientOf(trace: Trace, column: string): Column {
  return plain("client", 7, (row) => trace.document.clients[trace.column(column)[row]].id, String);
}

function callOf(trace: Trace, title: string, place: (row: number) => number): Column {
  return {
    title,
    width: 10,
    number: true,
    value: place,
    text: (row) => (place(row) < 0 || place(row) >= trace.calls ? "–" : String(trace.number(place(row)))),
  };
}

function mappings(scene: Scene): Sheet {
  const { trace } = scene;
  const of =
    (name: string) =>
    (row: number): number =>
      trace.column(`mappings.${name}`)[row];
  const [addr, range, born, died, object, members] = [
    "addr",
    "range",
    "born",
    "died",
    "object",
    "members",
  ].map(of);
  return {
    name: "Mappings",
    columns: [
      plain("address", 16, addr, hex),
      plain("end", 16, (row) => addr(row) + range(row), hex),
      plain("size", 10, range, size),
      {
        title: "object",
        width: 18,
        value: object,
        text: (row) => (members(row) > 1 ? `${count(members(row))} in one` : scene.objectName(object(row))),
      },
      plain("offset", 12, of("offset"), hex),
      callOf(trace, "born", born),
      callOf(trace, "died", died),
      plain("lived, calls", 13, (row) => trace.number(died(row)) - trace.number(born(row))),
      clientOf(trace, "mappings.client"),
    ],
    rows: (box) =>
      box.mappings ??
      Int32Array.from(
        scene.tree
          .inside(box.from, box.to, box.u0, box.u1, Infinity)
          .filter((row) => born(row) <= box.to && died(row) >= box.from),
      ).sort(),
    thing: (row) => ({ kind: "mapping", row, others: 0 }),
  };
}

function ops(scene: Scene): Sheet {
  const { trace } = scene;
  const calls = trace.column("ops.call");
  const owner = trace.column("calls.client");
  const did = (row: number): string => {
    if (trace.column("calls.ret")[calls[row]] < 0) return "refused";
    const parts = ["map", "remap", "unmap"].flatMap((name) => {
      const times = trace.column(`ops.${name}s`)[row];
      return times ? [times > 1 ? `${name} ×${count(times)}` : name] : [];
    });
    return parts.join(", ") || "nothing";
  };
  const seen = (row: number, box: Box): boolean => {
    const client = owner[calls[row]];
    if (!scene.fold.has(client)) return false;
    const addr = Number(wide(trace, "ops.addr", row));
    const first = scene.fold.place(client, addr);
    if (Number.isNaN(first)) return box.u0 <= 0 && box.u1 >= 1;
    const last = scene.fold.place(client, addr + Math.max(Number(wide(trace, "ops.range", row)) - 1, 0));
    return first <= box.u1 && (Number.isNaN(last) || last >= box.u0);
  };
  return {
    name: "Ops",
    columns: [
      callOf(trace, "call", (row) => calls[row]),
      words("asked for", 56, (row) => opWords(trace, row)),
      words("the manager's ops", 26, did),
      plain("client", 7, (row) => trace.document.clients[owner[calls[row]]].id, String),
    ],
    rows: (box) => {
      const rows: number[] = [];
      const last = below(calls, box.to + 1);
      for (let row = below(calls, box.from); row < last; row++) if (seen(row, box)) rows.push(row);
      return rows;
    },
    thing: (row) => ({ kind: "call", place: calls[row], others: 0 }),
  };
}

function calls(scene: Scene): Sheet {
  const { trace } = scene;
  const of =
    (name: string) =>
    (row: number): number =>
      trace.column(`calls.${name}`)[row];
  const [owner, ret, t] = ["client", "ret", "t"].map(of);
  return {
    name: "Calls",
    columns: [
      callOf(trace, "call", (row) => row),
      words("name", 24, (row) => trace.callName(row)),
      plain(
        "ops",
        7,
        (row) => opsOf(trace, row).to - opsOf(trace, row).from,
        (value) => (value ? count(value) : ""),
      ),
      plain("result", 12, ret, result),
      plain("began", 15, t, (value) => moment(value, STEP)),
      plain("took", 12, of("took"), (value) => (value < 0 ? "–" : duration(value))),
      clientOf(trace, "calls.client"),
    ],
    rows: (box) => {
      const rows: number[] = [];
      const last = Math.min(box.to, trace.calls - 1);
      for (let row = Math.max(box.from, 0); row <= last; row++) {
        if (scene.client < 0 || owner(row) === scene.client) rows.push(row);
      }
      return rows;
    },
    thing: (row) => ({ kind: "call", place: row, others: 0 }),
  };
}

function jobs(scene: Scene): Sheet {
  const { trace } = scene;
  const of =
    (name: string) =>
    (row: number): number =>
      trace.column(`jobs.${name}`)[row];
  const [call, channel, queued, started, done, error] = [
    "call",
    "channel",
    "queued",
    "started",
    "done",
    "error",
  ].map(of);
  const time = (value: number): string => (value < 0 ? "–" : moment(value, STEP));
  return {
    name: "Jobs",
    columns: [
      callOf(trace, "call", call),
      words("queue", 14, (row) => (channel(row) ? `channel ${channel(row)}` : "binds")),
      plain("queued", 15, queued, time),
      plain("started", 15, started, time),
      plain("done", 15, done, time),
      plain(
        "ran",
        12,
        (row) => (started(row) < 0 || done(row) < 0 ? -1 : done(row) - started(row)),
        (value) => (value < 0 ? "–" : duration(value)),
      ),
      plain("error", 12, error, (value) => (value ? result(-Math.abs(value)) : "")),
      clientOf(trace, "jobs.client"),
    ],
    rows: (box) => {
      const rows: number[] = [];
      for (let row = 0; row < trace.rows("jobs"); row++) {
        const begin = queued(row) >= 0 ? queued(row) : trace.when[call(row)];
        const end = done(row) >= 0 ? done(row) : begin;
        const inside = (begin <= box.t1 && end >= box.t0) || (call(row) >= box.from && call(row) <= box.to);
        if (inside && (scene.client < 0 || trace.column("jobs.client")[row] === scene.client)) rows.push(row);
      }
      return rows;
    },
    thing: (row) => ({ kind: "job", row, others: 0 }),
  };
}

function moves(scene: Scene): Sheet {
  const { trace } = scene;
  const of =
    (name: string) =>
    (row: number): number =>
      trace.column(`moves.${name}`)[row];
  const place = (value: number): string => trace.document.places[value] ?? "–";
  return {
    name: "Moves",
    columns: [
      plain("when", 15, of("t"), (value) => moment(value, STEP)),
      words("object", 14, (row) =>
        of("object")(row) < 0 ? "not known" : scene.objectName(of("object")(row)),
      ),
      plain("size", 10, of("size"), size),
      words("from", 10, (row) => place(of("source")(row))),
      words("to", 10, (row) => place(of("target")(row))),
      words("why", 12, (row) => (of("evicted")(row) ? "evicted" : "")),
      plain("took", 12, of("took"), (value) => (value < 0 ? "–" : duration(value))),
    ],
    rows: (box) => scene.moves.slice(below(scene.movedAt, box.t0), below(scene.movedAt, box.t1 + 1)),
    thing: (row) => ({ kind: "move", row, others: 0 }),
  };
}

function faults(scene: Scene): Sheet {
  const { trace } = scene;
  const list = trace.document.faults;
  return {
    name: "Faults",
    columns: [
      plain(
        "when",
        15,
        (row) => list[row].t,
        (value) => moment(value, STEP),
      ),
      plain(
        "address",
        16,
        (row) => list[row].addr,
        (value) => (value < 0 ? "–" : hex(value)),
      ),
      words("access", 10, (row) => list[row].access),
      words("reason", 20, (row) => list[row].reason),
      words("cause", 30, (row) => list[row].cause),
      callOf(trace, "job of call", (row) => list[row].call),
      plain(
        "unmapped by",
        12,
        (row) => list[row].unmapped,
        (value) => (value ? String(value) : "–"),
      ),
      plain("client", 7, (row) => trace.document.clients[list[row].client].id, String),
    ],
    rows: (box) =>
      list.flatMap((fault, row) =>
        fault.t >= box.t0 && fault.t <= box.t1 && scene.fold.has(fault.client) ? [row] : [],
      ),
    thing: (row) => ({ kind: "fault", index: row }),
  };
}
