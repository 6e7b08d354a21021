/** What can be pointed at, and what is known of it. */

import { below, type Trace } from "./data";
import type { Scene } from "./scene";
import { count, duration, hex, many, moment, result, size } from "./text";

export type Thing =
  | { kind: "mapping"; row: number; others: number }
  | { kind: "space"; client: number; what: string; addr: number; end: number; at: number }
  | { kind: "region"; row: number; at: number }
  | { kind: "call"; place: number; others: number }
  | { kind: "job"; row: number; others: number }
  | { kind: "fence"; row: number; others: number }
  | { kind: "move"; row: number; others: number }
  | { kind: "fault"; index: number }
  | { kind: "value"; title: string; lines: [string, string][] };

export interface Described {
  title: string;
  lines: [label: string, text: string][];
}

const DOMAINS: Readonly<Record<number, string>> = { 2: "VRAM", 4: "GART", 6: "VRAM or GART" };
const NS = 1000;
const MOST_ACCESSES = 8;

/** A call in a few words: `10,548 VM_BIND, 3 ops, at 1.250318 s`. */
export function callWords(trace: Trace, place: number): string {
  if (place < 0 || place >= trace.calls) return "not known";
  const ops = opsOf(trace, place);
  const t = trace.column("calls.t")[place];
  const asked = ops.to > ops.from ? `, ${many(ops.to - ops.from, "op")}` : "";
  return `${trace.number(place)} ${trace.callName(place)}${asked}, at ${moment(t, NS)}`;
}

/** A call's place by its number; -1: it is not on this page. */
export function placeOfNumber(trace: Trace, number: number): number {
  const ids = trace.column("calls.id");
  const place = below(ids, number);
  return number > 0 && ids[place] === number ? place : -1;
}

/** The rows of a call's ops. */
export function opsOf(trace: Trace, place: number): { from: number; to: number } {
  const calls = trace.column("ops.call");
  return { from: below(calls, place), to: below(calls, place + 1) };
}

export function range(addr: number, length: number): string {
  return `${hex(addr)} – ${hex(addr + length)}`;
}

export function wide(trace: Trace, name: string, row: number): bigint {
  return (BigInt(trace.column(`${name}_high`)[row]) << 32n) | BigInt(trace.column(`${name}_low`)[row]);
}

export function describe(scene: Scene, thing: Thing): Described {
  const { trace } = scene;
  switch (thing.kind) {
    case "mapping":
      return mapping(scene, thing.row, thing.others);
    case "space":
      return {
        title:
          { hole: "Hole, folded", kernel: "The kernel's part", used: "Nothing mapped", head: "" }[
            thing.what
          ] ?? "",
        lines: [
          ["client", String(trace.document.clients[thing.client].id)],
          ["from – to", range(thing.addr, thing.end - thing.addr)],
          ["size", size(thing.end - thing.addr)],
          ...(thing.what === "used" ? ([["address", hex(thing.at)]] as [string, string][]) : []),
        ],
      };
    case "region": {
      const [addr, length, born, died] = ["addr", "range", "born", "died"].map(
        (name) => trace.column(`regions.${name}`)[thing.row],
      );
      return {
        title: "Sparse region, nothing mapped",
        lines: [
          ["address", hex(thing.at)],
          ["region", range(addr, length)],
          ["size", size(length)],
          ...life(trace, born, died),
        ],
      };
    }
    case "call":
      return call(trace, thing.place, thing.others);
    case "job":
      return job(trace, thing.row, thing.others);
    case "fence": {
      const [made, signalled] = ["made", "signalled"].map(
        (name) => trace.column(`fences.${name}`)[thing.row],
      );
      const timeline = trace.column("fences.timeline")[thing.row];
      return {
        title: `Fence of ${trace.document.places[timeline]}${more(thing.others)}`,
        lines: [
          ["made", moment(made, NS)],
          ["for call", callWords(trace, trace.column("fences.call")[thing.row])],
          [
            "signalled",
            signalled >= 0 ? `${moment(signalled, NS)}, ${duration(signalled - made)} later` : "not known",
          ],
        ],
      };
    }
    case "move":
      return move(scene, thing.row, thing.others);
    case "fault":
      return fault(trace, thing.index);
    case "value":
      return thing;
  }
}

function more(others: number): string {
  return others > 0 ? ` and ${many(others, "other")} here` : "";
}

function life(trace: Trace, born: number, died: number): [string, string][] {
  const dead = died < trace.calls;
  const lines: [string, string][] = [
    ["born by call", callWords(trace, born)],
    ["died by call", dead ? callWords(trace, died) : "it did not"],
  ];
  if (dead) {
    const lived = trace.when[died] - trace.when[born];
    lines.push(["lived", `${many(trace.number(died) - trace.number(born), "call")}, ${duration(lived)}`]);
  }
  return lines;
}

function mapping(scene: Scene, row: number, others: number): Described {
  const { trace } = scene;
  const at = (name: string): number => trace.column(`mappings.${name}`)[row];
  const [object, addr, length, members] = [at("object"), at("addr"), at("range"), at("members")];
  const place = range(addr, length);
  if (members > 1) {
    return {
      title: `${many(members, "short-lived mapping")}, drawn as one`,
      lines: [
        ["between", place],
        ["of them mapped", size(at("offset"))],
        ...life(trace, at("born"), at("died")),
      ],
    };
  }
  const lines: [string, string][] = [
    ["from – to", place],
    ["size", size(length)],
    ["object", objectWords(scene, object, at("client"))],
    ["its offset", `${hex(at("offset"))}${at("kind") ? `, PTE kind ${hex(at("kind"))}` : ""}`],
    ["client", String(trace.document.clients[at("client")].id)],
    ...life(trace, at("born"), at("died")),
  ];
  if (others > 0) lines.push(["on this pixel", `${count(others)} more: zoom in`]);
  return { title: `${capital(scene.objectName(object))}, ${size(length)} at ${hex(addr)}`, lines };
}

function objectWords(scene: Scene, object: number, client: number): string {
  const { trace } = scene;
  if (object < 0) return "none";
  const bytes = trace.column("objects.size")[object];
  const domain = DOMAINS[trace.column("objects.domain")[object]];
  const of = trace.column("handles.object");
  const owner = trace.column("handles.client");
  const row = of.findIndex((value, i) => value === object && owner[i] === client);
  const handle = row < 0 ? "" : `, handle ${trace.column("handles.handle")[row]}`;
  const made = `made by call ${trace.column("objects.id")[object]}`;
  return `${bytes >= 0 ? size(bytes) : "size not known"}${domain ? `, ${domain}` : ""}${handle}, ${made}`;
}

function call(trace: Trace, place: number, others: number): Described {
  const took = trace.column("calls.took")[place];
  const lines: [string, string][] = [
    ["client", String(trace.document.clients[trace.column("calls.client")[place]].id)],
    ["result", result(trace.column("calls.ret")[place])],
    ["began", moment(trace.column("calls.t")[place], NS)],
    ["took", duration(took)],
  ];
  const { from, to } = opsOf(trace, place);
  for (let row = from; row < Math.min(to, from + 6); row++)
    lines.push([`op ${row - from}`, opWords(trace, row)]);
  if (to > from + 6) lines.push(["", `and ${count(to - from - 6)} more`]);
  return { title: `Call ${trace.number(place)}, ${trace.callName(place)}${more(others)}`, lines };
}

/** `map 64 KiB at 0x3fff000000, handle 7 + 0x0`. */
export function opWords(trace: Trace, row: number): string {
  const bytes = Number(wide(trace, "ops.range", row));
  const flags = trace.column("ops.flags")[row];
  const map = trace.column("ops.code")[row] === 0;
  const handle = trace.column("ops.handle")[row];
  const source = map && handle ? `, handle ${handle} + ${hex(wide(trace, "ops.offset", row))}` : "";
  const what = `${map ? "map" : "unmap"}${flags & 0x100 ? " sparse" : ""}`;
  return `${what} ${size(bytes)} at ${hex(wide(trace, "ops.addr", row))}${source}`;
}

function job(trace: Trace, row: number, others: number): Described {
  const at = (name: string): number => trace.column(`jobs.${name}`)[row];
  const [queued, started, done] = [at("queued"), at("started"), at("done")];
  const channel = at("channel");
  const time = (t: number, before: number): string =>
    t < 0 ? "not known" : before < 0 ? moment(t, NS) : `${moment(t, NS)}, ${duration(t - before)} later`;
  const lines: [string, string][] = [
    ["by call", callWords(trace, at("call"))],
    ["client", String(trace.document.clients[at("client")].id)],
    ["queued", time(queued, -1)],
    ["started", time(started, queued)],
    ["done", time(done, started)],
  ];
  if (at("seqno") >= 0) lines.push(["fence", `number ${at("seqno")} of its timeline`]);
  if (at("error")) lines.push(["error", result(-Math.abs(at("error")))]);
  lines.push(...accessed(trace, at("call")));
  return { title: `${channel ? `Job on channel ${channel}` : "Bind job"}${more(others)}`, lines };
}

/** The rows of what engines did for a call. */
export function accessesOf(trace: Trace, place: number): { from: number; to: number } {
  const calls = trace.column("accesses.call");
  return { from: below(calls, place), to: below(calls, place + 1) };
}

export const ACCESSES = ["reads", "writes", "fetches", "updates"] as const;

function accessed(trace: Trace, place: number): [string, string][] {
  const { from, to } = accessesOf(trace, place);
  const lines: [string, string][] = [];
  for (let row = from; row < Math.min(to, from + MOST_ACCESSES); row++) {
    const [code, addr, length] = ["code", "addr", "range"].map(
      (name) => trace.column(`accesses.${name}`)[row],
    );
    lines.push([ACCESSES[code] ?? "touches", `${size(length)} at ${hex(addr)}`]);
  }
  if (to > from + MOST_ACCESSES) lines.push(["", `and ${count(to - from - MOST_ACCESSES)} more`]);
  return lines;
}

function move(scene: Scene, row: number, others: number): Described {
  const { trace } = scene;
  const at = (name: string): number => trace.column(`moves.${name}`)[row];
  const memory = (index: number): string => trace.document.places[index] ?? "nowhere";
  const lines: [string, string][] = [
    ["of", at("object") < 0 ? "an object not known" : scene.objectName(at("object"))],
    ["size", size(at("size"))],
    ["from – to", `${memory(at("source"))} – ${memory(at("target"))}`],
    ["when", moment(at("t"), NS)],
    ["took", duration(at("took"))],
  ];
  const what = at("evicted") ? "Eviction" : at("source") < 0 ? "First place" : "Move";
  return { title: `${what}${more(others)}`, lines };
}

function fault(trace: Trace, index: number): Described {
  const {
    t,
    client,
    channel,
    call: place,
    addr,
    access,
    reason,
    cause,
    engine,
    unmapped,
    mapped,
  } = trace.document.faults[index];
  const lines: [string, string][] = [];
  if (addr >= 0) lines.push(["address", hex(addr)]);
  if (access) lines.push(["access", `${access} by ${engine}`]);
  if (reason) lines.push(["reason", reason]);
  lines.push(
    ["cause", cause],
    ["client", `${trace.document.clients[client].id}, channel ${channel}`],
    ["when", moment(t, NS)],
  );
  if (place >= 0) lines.push(["the job's call", callWords(trace, place)]);
  if (mapped) lines.push(["mapped by call", callWords(trace, placeOfNumber(trace, mapped))]);
  if (unmapped) lines.push(["unmapped by call", callWords(trace, placeOfNumber(trace, unmapped))]);
  return { title: "Fault", lines };
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
