/** Where things are in the picture. */

import type { Axis } from "./axis";
import type { Trace } from "./data";
import type { Scene } from "./scene";
import { placeOfNumber, type Thing } from "./thing";
import type { View } from "./view";

/** The calls that a thing is about, by their places: the one it is of first. */
export function callsOf(trace: Trace, thing: Thing): number[] {
  if (thing.kind === "call") return [thing.place];
  if (thing.kind === "job") return [trace.column("jobs.call")[thing.row]];
  if (thing.kind === "mapping") {
    return ["born", "died"]
      .map((name) => trace.column(`mappings.${name}`)[thing.row])
      .filter((place) => place < trace.calls);
  }
  if (thing.kind === "fault") {
    const { call, unmapped } = trace.document.faults[thing.index];
    return [call, placeOfNumber(trace, unmapped)].filter((place) => place >= 0);
  }
  return [];
}

/** Where to look for a thing; NaN: anywhere, as far as it is concerned. */
export function placeOf(
  thing: Thing,
  { trace, boxes, fold }: Scene,
  axis: Axis,
  view: View,
): { x: number; u: number } {
  switch (thing.kind) {
    case "mapping": {
      const [left, right] = [axis.of(boxes.born[thing.row]), axis.of(boxes.died[thing.row])];
      const u = (boxes.u0[thing.row] + boxes.u1[thing.row]) / 2;
      return { x: right < view.x0 || left > view.x1 ? left : NaN, u };
    }
    case "fault": {
      const { t, client, addr } = trace.document.faults[thing.index];
      return { x: axis.ofTime(t), u: addr >= 0 ? fold.place(client, addr) : NaN };
    }
    case "move":
      return { x: axis.ofTime(trace.column("moves.t")[thing.row]), u: NaN };
    default: {
      const [call] = callsOf(trace, thing);
      return { x: call === undefined ? NaN : axis.of(call), u: NaN };
    }
  }
}
