/** What lies above a frame and changes without it: what is chosen, the box, a searched address's line. */

import type { Frame } from "./frame";
import type { Box } from "./tables";
import { accessesOf } from "./thing";
import { MONO } from "./words";

export interface Above {
  mapping: number; // row, -1: none
  calls: number[]; // places; what engines did for the first is shown
  box: Box | undefined;
  rubber: [x0: number, y0: number, x1: number, y1: number] | undefined; // pixels
  line: number; // `u`, NaN: none
}

const LINE = "#d55e00";
const MOST_ACCESSES = 200;
const WRITES = new Set([1, 3]);

export function drawAbove(frame: Frame, context: CanvasRenderingContext2D, above: Above): void {
  const { panes, ratio, theme, scene, axis } = frame;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, panes.width, panes.height);
  context.save();
  context.beginPath();
  context.rect(panes.left - 1, panes.top - 1, panes.right - panes.left + 2, panes.height);
  context.clip();
  if (!Number.isNaN(above.line)) {
    const y = Math.round(frame.py(above.line)) + 0.5;
    if (y >= panes.top && y <= panes.bottom)
      stroke(context, LINE, 2, [7, 4], () => path(context, panes.left, y, panes.right, y));
  }
  if (above.calls.length && above.mapping < 0) accesses(frame, context, above.calls[0]);
  if (above.mapping >= 0) {
    const { born, died, u0, u1 } = scene.boxes;
    const [x0, x1] = [frame.px(axis.of(born[above.mapping])), frame.px(axis.of(died[above.mapping]))];
    const [y0, y1] = [frame.py(u0[above.mapping]), frame.py(u1[above.mapping])];
    const [left, right] = [Math.max(x0, panes.left - 20), Math.min(x1, panes.right + 20)];
    const [top, bottom] = [Math.max(y0, panes.top - 20), Math.min(y1, panes.bottom)];
    if (bottom > panes.top && top < panes.bottom && right > left - 1) {
      const box = (grow: number): void => {
        context.rect(
          left - grow,
          top - grow,
          Math.max(right - left, 2) + 2 * grow,
          Math.max(bottom - top, 2) + 2 * grow,
        );
      };
      stroke(context, theme.mark, 5, [], () => box(2));
      stroke(context, theme.ink, 2, [], () => box(2));
    }
  }
  above.calls.forEach((call, i) => callLine(frame, context, call, i));
  if (above.box) {
    const { from, to, u0, u1 } = above.box;
    marquee(frame, context, frame.px(axis.of(from)), frame.py(u0), frame.px(axis.of(to + 1)), frame.py(u1));
  }
  if (above.rubber) marquee(frame, context, ...above.rubber);
  context.restore();
}

/** A line where a call was, and its name, each a row lower. */
function callLine(frame: Frame, context: CanvasRenderingContext2D, call: number, row: number): void {
  const { panes, theme, scene, axis } = frame;
  const x = frame.px(axis.of(call));
  if (x < panes.left || x > panes.right) return;
  stroke(context, theme.ink, 1, [2, 3], () => path(context, x, panes.top, x, panes.height - 8));
  const name = `${scene.trace.number(call)} ${scene.trace.callName(call)}`;
  context.font = `11px ${MONO}`;
  context.textBaseline = "middle";
  const width = context.measureText(name).width + 8;
  const left = x + width > panes.right ? x - width : x;
  const top = panes.top + 3 + 17 * row;
  context.fillStyle = theme.ink;
  context.fillRect(left, top, width, 15);
  context.fillStyle = theme.mark;
  context.fillText(name, left + 4, top + 8);
}

/** What engines read (dotted) and wrote for a call, when they did. */
function accesses(frame: Frame, context: CanvasRenderingContext2D, call: number): void {
  const { scene, axis, theme } = frame;
  const [t, took, code, addr, range] = ["t", "took", "code", "addr", "range"].map((name) =>
    scene.trace.column(`accesses.${name}`),
  );
  const client = scene.trace.column("calls.client")[call];
  const { from, to } = accessesOf(scene.trace, call);
  for (let row = from; row < Math.min(to, from + MOST_ACCESSES); row++) {
    const [u0, u1] = [
      scene.fold.place(client, addr[row]),
      scene.fold.place(client, addr[row] + Math.max(range[row] - 1, 0)),
    ];
    if (Number.isNaN(u0) || Number.isNaN(u1)) continue;
    const [x0, x1] = [frame.px(axis.ofTime(t[row])), frame.px(axis.ofTime(t[row] + Math.max(took[row], 0)))];
    const [y0, y1] = [frame.py(u0), frame.py(u1)];
    const box = (): void => context.rect(x0, y0, Math.max(x1 - x0, 5), Math.max(y1 - y0, 3));
    stroke(context, theme.mark, 4, [], box);
    stroke(context, LINE, 2, WRITES.has(code[row]) ? [] : [3, 2], box);
  }
}

function marquee(
  frame: Frame,
  context: CanvasRenderingContext2D,
  x0: number,
  y0: number,
  x1: number,
  y1: number,
): void {
  const { panes, theme } = frame;
  const [left, right] = [
    Math.max(Math.min(x0, x1), panes.left - 4),
    Math.min(Math.max(x0, x1), panes.right + 4),
  ];
  const [top, bottom] = [Math.max(Math.min(y0, y1), panes.top - 4), Math.min(Math.max(y0, y1), panes.height)];
  if (right <= left || bottom <= top) return;
  context.fillStyle = theme.ink;
  context.globalAlpha = 0.08;
  context.fillRect(left, top, right - left, bottom - top);
  context.globalAlpha = 1;
  stroke(context, theme.ink, 1.5, [5, 3], () => context.rect(left, top, right - left, bottom - top));
}

function stroke(
  context: CanvasRenderingContext2D,
  colour: string,
  width: number,
  dash: number[],
  draw: () => void,
): void {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  draw();
  context.stroke();
  context.setLineDash([]);
}

function path(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
}
