/** The lanes: calls, queues of jobs, moves. A column of pixels costs the same however much is in it. */

import { below } from "./data";
import type { Frame } from "./frame";
import type { Lane } from "./panes";
import type { Colour, Raster } from "./raster";

const MIDDLE = 0.45; // of a queue's lane: who waits above, who runs below
const SAMPLE = 16; // of the moves in a column: enough for a colour

/** Draws them; how many columns were drawn. */
export function drawLanes(frame: Frame, raster: Raster): number {
  const { panes, axis, ratio, theme } = frame;
  const xs = Float64Array.from({ length: panes.right - panes.left + 1 }, (_, i) => frame.x(panes.left + i));
  const calls = xs.map((x) => axis.call(x));
  const times = xs.map((x) => axis.time(x));
  let columns = 0;
  for (const lane of panes.lanes) {
    const pen = new Pen(frame, raster, lane);
    raster.fill(panes.left * ratio, panes.right * ratio, pen.top, pen.bottom, theme.ground);
    if (lane.kind === "mapped" || lane.kind === "fragmentation") continue;
    if (lane.kind === "calls") drawCalls(frame, pen, lane, calls);
    else if (lane.kind === "queue") drawQueue(frame, pen, lane, times);
    else drawMoves(frame, pen, times);
    columns += xs.length - 1;
  }
  return columns;
}

class Pen {
  readonly top: number;
  readonly bottom: number;

  constructor(
    private readonly frame: Frame,
    private readonly raster: Raster,
    lane: Lane,
  ) {
    this.top = lane.top * frame.ratio;
    this.bottom = (lane.top + lane.height) * frame.ratio;
  }

  /** A bar in a column, between parts of the lane's height. */
  bar(column: number, from: number, to: number, colour: Colour, alpha: number): void {
    const { ratio, panes } = this.frame;
    const [x, high] = [(panes.left + column) * ratio, this.bottom - this.top];
    this.raster.fill(x, x + ratio, this.top + from * high, this.top + to * high, colour, alpha);
  }
}

/** How many of `sorted` lie before each place. */
function before(sorted: ArrayLike<number>, places: Float64Array): Float64Array {
  return places.map((place) => below(sorted, place));
}

function drawCalls(
  frame: Frame,
  pen: Pen,
  lane: Extract<Lane, { kind: "calls" }>,
  calls: Float64Array,
): void {
  const { theme } = frame;
  const colour = { bind: theme.bind, exec: theme.exec, other: theme.other, refused: theme.waiting }[
    lane.lane.kind
  ];
  const counts = before(lane.lane.places, calls);
  for (let i = 0; i + 1 < counts.length; i++) {
    const here = counts[i + 1] - counts[i];
    if (here) pen.bar(i, 0, 1, colour, Math.min(0.55 + 0.15 * Math.log2(here), 1));
  }
}

/** Running jobs below; those that wait grow from the middle, a doubling a step. */
function drawQueue(
  frame: Frame,
  pen: Pen,
  lane: Extract<Lane, { kind: "queue" }>,
  times: Float64Array,
): void {
  const { theme } = frame;
  const { queue } = lane;
  const colour = queue.client < 0 ? theme.other : queue.binds ? theme.bind : theme.exec;
  const queued = before(queue.queued, times);
  const known = queue.started.length > 0 || queue.done.length > 0;
  const [started, done] = [before(queue.started, times), before(queue.done, times)];
  for (let i = 0; i + 1 < times.length; i++) {
    if (!known) {
      const here = queued[i + 1] - queued[i];
      if (here) pen.bar(i, MIDDLE, 1, colour, Math.min(0.6 + 0.1 * here, 1));
      continue;
    }
    const waiting = queued[i + 1] - started[i];
    const running = started[i + 1] - done[i];
    if (waiting > 0)
      pen.bar(i, MIDDLE * (1 - Math.min((1 + Math.log2(waiting)) / 6, 1)), MIDDLE, theme.waiting, 0.9);
    const changes = started[i + 1] - started[i] + done[i + 1] - done[i];
    if (running > 0) pen.bar(i, MIDDLE, 1, colour, changes ? 0.75 : 1);
  }
}

function drawMoves(frame: Frame, pen: Pen, times: Float64Array): void {
  const { scene, theme } = frame;
  const evicted = scene.trace.column("moves.evicted");
  const counts = before(scene.movedAt, times);
  for (let i = 0; i + 1 < times.length; i++) {
    const here = counts[i + 1] - counts[i];
    if (!here) continue;
    const step = Math.max(Math.floor(here / SAMPLE), 1);
    let [seen, away] = [0, 0];
    for (let at = counts[i]; at < counts[i + 1]; at += step, seen++) away += evicted[scene.moves[at]] ? 1 : 0;
    const alpha = Math.min(0.6 + 0.1 * Math.log2(here), 1);
    if (away) pen.bar(i, 0.5, 1, theme.move, alpha);
    if (away < seen) pen.bar(i, 0, 0.5, theme.other, alpha);
  }
}
