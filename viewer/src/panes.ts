/** How the picture is divided: the address space on top, lanes below; pixels of the page. */

import type { CallLane, Queue, Scene } from "./scene";
import type { Curve } from "./data";

export const GUTTER = 136;
export const RIGHT = 14;
export const TOP = 26; // of the axis
const MOST_QUEUES = 12;

export type Lane =
  | { kind: "calls"; top: number; height: number; label: string; lane: CallLane }
  | { kind: "queue"; top: number; height: number; label: string; queue: Queue }
  | { kind: "moves"; top: number; height: number; label: string }
  | { kind: "mapped" | "fragmentation"; top: number; height: number; label: string; curves: Curve[] };

export interface Panes {
  width: number; // all of it
  height: number;
  left: number; // of what has a time
  right: number;
  top: number; // of the space
  bottom: number;
  lanes: Lane[];
  unshown: number; // queues there was no room for
}

export function panes(scene: Scene, width: number, room: number): Panes {
  const below: Lane[] = [];
  let y = 0;
  const put = (lane: Lane, gap: number): void => {
    lane.top = y + gap;
    y = lane.top + lane.height;
    below.push(lane);
  };
  scene.lanes.forEach((lane, i) => {
    put({ kind: "calls", top: 0, height: 12, label: lane.label, lane }, i ? 2 : 10);
  });
  const queues = [...scene.queues].sort((a, b) => b.queued.length - a.queued.length).slice(0, MOST_QUEUES);
  scene.queues
    .filter((queue) => queues.includes(queue))
    .forEach((queue, i) => {
      put({ kind: "queue", top: 0, height: 20, label: queue.label, queue }, i ? 3 : 10);
    });
  if (scene.moves.length) put({ kind: "moves", top: 0, height: 14, label: "moves, evictions" }, 8);
  const curves = scene.trace.document.curves.filter(
    (curve) => scene.fold.has(curve.client) && curve.call.length,
  );
  if (curves.length) {
    put({ kind: "mapped", top: 0, height: 40, label: "mapped", curves }, 10);
    put({ kind: "fragmentation", top: 0, height: 40, label: "fragmentation", curves }, 8);
  }
  const height = Math.max(room, TOP + 180 + y + 8);
  const bottom = height - y - 8;
  for (const lane of below) lane.top += bottom;
  return {
    width,
    height,
    left: GUTTER,
    right: Math.max(width - RIGHT, GUTTER + 50),
    top: TOP,
    bottom,
    lanes: below,
    unshown: scene.queues.length - queues.length,
  };
}
