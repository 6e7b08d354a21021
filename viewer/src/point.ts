/** What is drawn at a pixel. */

import { below } from "./data";
import type { Frame } from "./frame";
import { faultsInView, movesInView } from "./marks";
import type { Lane } from "./panes";
import type { Thing } from "./thing";
import { count, size } from "./text";

const REACH = 8; // pixels around a mark
const NEAR = 3; // pixels around what is thin
const MOST_HITS = 500;

export function thingAt(frame: Frame, px: number, py: number): Thing | undefined {
  const { panes } = frame;
  if (px < panes.left || px > panes.right) return undefined;
  const fault = faultsInView(frame).find(({ x, y }) => Math.hypot(x - px, y - py) <= REACH + 2);
  if (fault) return { kind: "fault", index: fault.index };
  if (py >= panes.top && py < panes.bottom) return inSpace(frame, px, py);
  const lane = panes.lanes.find(({ top, height }) => py >= top - 1 && py <= top + height + 1);
  return lane && inLane(frame, lane, px);
}

function inSpace(frame: Frame, px: number, py: number): Thing | undefined {
  const { scene, axis } = frame;
  const move = movesInView(frame).find(({ x, y }) => Math.hypot(x - px, y - py) <= REACH);
  if (move) return { kind: "move", row: move.row, others: 0 };
  const here = scene.fold.addr(frame.u(py));
  const found = mappingAt(frame, px, py, here?.segment.kind === "used" ? NEAR : 0);
  if (found) return found;
  if (!here || here.segment.kind === "head") return undefined;
  const { segment, addr } = here;
  const [owner, at, range, born, died] = ["client", "addr", "range", "born", "died"].map((name) =>
    scene.trace.column(`regions.${name}`),
  );
  const call = axis.callBefore(frame.x(px));
  const region = scene.regions.find(
    (row) =>
      owner[row] === segment.client &&
      at[row] <= addr &&
      addr < at[row] + range[row] &&
      born[row] <= call &&
      call < died[row],
  );
  if (region !== undefined) return { kind: "region", row: region, at: addr };
  return {
    kind: "space",
    client: segment.client,
    what: segment.kind,
    addr: segment.addr,
    end: segment.end,
    at: addr,
  };
}

/** The mapping at a pixel, or the nearest one within some pixels. */
function mappingAt(frame: Frame, px: number, py: number, near: number): Thing | undefined {
  const { scene, axis } = frame;
  const { born, died, u0, u1 } = scene.boxes;
  for (const reach of near ? [0.5, near] : [0.5]) {
    const [from, to] = [axis.callBefore(frame.x(px - reach)), axis.call(frame.x(px + reach))];
    const hits = scene.tree.inside(from, to, frame.u(py - reach), frame.u(py + reach), MOST_HITS);
    let best = -1;
    let nearest = reach + 1;
    for (const row of hits) {
      const [x0, x1] = [frame.px(axis.of(born[row])), frame.px(axis.of(died[row]))];
      const dx = Math.max(x0 - px, px - Math.max(x1, x0 + 1), 0);
      const dy = Math.max(frame.py(u0[row]) - py, py - frame.py(u1[row]), 0);
      if (Math.max(dx, dy) < nearest) {
        nearest = Math.max(dx, dy);
        best = row;
      }
    }
    if (best >= 0) return { kind: "mapping", row: best, others: reach === 0.5 ? hits.length - 1 : 0 };
  }
  return undefined;
}

function inLane(frame: Frame, lane: Lane, px: number): Thing | undefined {
  const { axis, scene } = frame;
  const [x0, x1] = [frame.x(px - NEAR), frame.x(px + NEAR)];
  const [t0, t1] = [axis.time(x0), axis.time(x1)];
  switch (lane.kind) {
    case "calls": {
      const { places } = lane.lane;
      const first = below(places, axis.call(x0));
      const last = below(places, axis.call(x1) + (axis.mode === "call" ? 0 : 1));
      return last > first
        ? { kind: "call", place: places[(first + last - 1) >> 1], others: last - first - 1 }
        : undefined;
    }
    case "queue": {
      const { queue } = lane;
      const rows = queue.jobs.length ? queue.jobs : queue.fences;
      const table = queue.jobs.length ? "jobs" : "fences";
      const ended = scene.trace.column(queue.jobs.length ? "jobs.done" : "fences.signalled");
      const last = below(queue.queued, t1);
      const hits: number[] = [];
      for (let i = last - 1; i >= Math.max(last - 2000, 0); i--) {
        const end = ended[rows[i]] >= 0 ? ended[rows[i]] : queue.started.length ? Infinity : queue.queued[i];
        if (end >= t0) hits.push(rows[i]);
      }
      if (!hits.length) return undefined;
      return {
        kind: table === "jobs" ? "job" : "fence",
        row: hits[hits.length - 1],
        others: hits.length - 1,
      };
    }
    case "moves": {
      const [first, last] = [below(scene.movedAt, t0), below(scene.movedAt, t1)];
      return last > first ? { kind: "move", row: scene.moves[first], others: last - first - 1 } : undefined;
    }
    default: {
      const call = axis.callBefore(frame.x(px));
      const lines = lane.curves.flatMap((curve): [string, string][] => {
        const at = below(curve.call, call + 1) - 1;
        if (at < 0) return [];
        const own: [string, string][] = [
          ["mapped", `${size(curve.mapped[at])}, ${count(curve.count[at])} mappings`],
          [
            "fragmentation",
            `${(100 * curve.fragmentation[at]).toFixed(3)}%: 1 – largest hole / all that is free`,
          ],
        ];
        if (curve.every > 1) own.push(["drawn", `one change of ${curve.every}`]);
        const { id } = scene.trace.document.clients[curve.client];
        return lane.curves.length > 1 ? [["client", String(id)], ...own] : own;
      });
      const number = scene.trace.number(Math.max(call, 0));
      return lines.length ? { kind: "value", title: `After call ${number}`, lines } : undefined;
    }
  }
}
