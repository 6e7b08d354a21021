/** Marks on the picture: faults as crosses, objects that were moved as triangles. */

import { below } from "./data";
import type { Frame } from "./frame";
import type { Scene } from "./scene";
import type { Thing } from "./thing";

const MOST_MOVES = 300;
const MOST_FAULTS = 500;
const MOST_PLACES = 3; // of an object that moved

export function drawMarks(frame: Frame, context: CanvasRenderingContext2D): void {
  const { panes } = frame;
  context.save();
  context.beginPath();
  context.rect(panes.left - 6, panes.top, panes.right - panes.left + 12, panes.height - panes.top);
  context.clip();
  moves(frame, context);
  faults(frame, context);
  context.restore();
}

/** Where the moves in view are drawn; none when they are too many to tell apart. */
export function movesInView(frame: Frame): { row: number; x: number; y: number }[] {
  const { scene, axis, view } = frame;
  const first = below(scene.movedAt, axis.time(view.x0));
  const last = below(scene.movedAt, axis.time(view.x1));
  const source = scene.trace.column("moves.source");
  const target = scene.trace.column("moves.target");
  if (last - first > MOST_MOVES) return [];
  const [t, object] = [scene.trace.column("moves.t"), scene.trace.column("moves.object")];
  const { born, died, u0, u1 } = scene.boxes;
  const out: { row: number; x: number; y: number }[] = [];
  for (let i = first; i < last; i++) {
    const row = scene.moves[i];
    if (source[row] < 0 || target[row] < 0) continue; // its first place, or its end
    const call = axis.callBefore(axis.ofTime(t[row]));
    const alive = (scene.byObject.get(object[row]) ?? []).filter(
      (m) => born[m] <= call + 1 && call < died[m],
    );
    for (const m of alive.slice(0, MOST_PLACES)) {
      out.push({ row, x: frame.px(axis.ofTime(t[row])), y: frame.py((u0[m] + u1[m]) / 2) });
    }
  }
  return out;
}

export function faultsInView(frame: Frame): { index: number; x: number; y: number }[] {
  const { scene, axis, panes } = frame;
  const out: { index: number; x: number; y: number }[] = [];
  scene.trace.document.faults.forEach((fault, index) => {
    if (out.length >= MOST_FAULTS || !scene.fold.has(fault.client)) return;
    const x = frame.px(axis.ofTime(fault.t));
    const u = fault.addr >= 0 ? scene.fold.place(fault.client, fault.addr) : NaN;
    const y = Number.isNaN(u) ? panes.bottom : frame.py(u);
    if (x >= panes.left - 6 && x <= panes.right + 6 && y >= panes.top && y <= panes.bottom)
      out.push({ index, x, y });
  });
  return out;
}

function moves(frame: Frame, context: CanvasRenderingContext2D): void {
  const { scene, theme, panes } = frame;
  const evicted = scene.trace.column("moves.evicted");
  for (const { row, x, y } of movesInView(frame)) {
    if (y < panes.top || y > panes.bottom) continue;
    const tip = evicted[row] ? 6 : -6; // down: out of the GPU's memory
    context.beginPath();
    context.moveTo(x, y + tip);
    context.lineTo(x - 5, y - tip * 0.6);
    context.lineTo(x + 5, y - tip * 0.6);
    context.closePath();
    context.lineWidth = 2;
    context.strokeStyle = theme.mark;
    context.stroke();
    context.fillStyle = evicted[row] ? theme.evict : theme.ink;
    context.fill();
  }
}

function faults(frame: Frame, context: CanvasRenderingContext2D): void {
  const { theme, panes } = frame;
  for (const { x, y } of faultsInView(frame)) {
    context.strokeStyle = theme.fault;
    context.lineWidth = 1;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(x, panes.top);
    context.lineTo(x, panes.height - 8);
    context.stroke();
    context.setLineDash([]);
    context.beginPath();
    context.arc(x, y, 9, 0, 2 * Math.PI);
    context.fillStyle = theme.mark;
    context.fill();
    context.lineWidth = 1.5;
    context.stroke();
    context.beginPath();
    for (const [dx, dy] of [
      [-4, -4],
      [-4, 4],
    ]) {
      context.moveTo(x + dx, y + dy);
      context.lineTo(x - dx, y - dy);
    }
    context.lineWidth = 2.5;
    context.stroke();
  }
}

/** Faults and evictions, by time: what one goes through. */
export function marksOf({ trace, fold, moves: rows }: Scene): { t: number; thing: Thing }[] {
  const [evicted, t] = [trace.column("moves.evicted"), trace.column("moves.t")];
  const faults = trace.document.faults.flatMap(({ t: at, client }, index) =>
    fold.has(client) ? [{ t: at, thing: { kind: "fault", index } as Thing }] : [],
  );
  const evictions = Array.from(rows)
    .filter((row) => evicted[row])
    .map((row) => ({ t: t[row], thing: { kind: "move", row, others: 0 } as Thing }));
  return [...faults, ...evictions].sort((a, b) => a.t - b.t);
}
