/** Lines and words of a frame: axes, folds, names of mappings, curves. */

import { textOn } from "./colours";
import { below, type Curve } from "./data";
import type { Frame } from "./frame";
import type { Lane } from "./panes";
import { count, duration, hex, moment, roundStep, size } from "./text";

const SANS = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
export const MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
const MOST_NAMES = 250;
const MOST_TICKS = 100;

/** Draws them; how many words. */
export function drawWords(frame: Frame, context: CanvasRenderingContext2D): number {
  context.textBaseline = "middle";
  return (
    timeTicks(frame, context) + addresses(frame, context) + names(frame, context) + lanes(frame, context)
  );
}

function timeTicks(frame: Frame, context: CanvasRenderingContext2D): number {
  const { panes, view, axis, theme } = frame;
  const least = ((view.x1 - view.x0) * 110) / (panes.right - panes.left);
  const step = axis.mode === "call" ? Math.max(roundStep(least), 1) : roundStep(least);
  context.font = `11px ${MONO}`;
  context.textAlign = "center";
  const ids = frame.scene.trace.column("calls.id");
  const number = (x: number): number => frame.scene.trace.number(Math.max(Math.floor(x), 0));
  const [from, to] = axis.mode === "call" ? [number(view.x0), number(view.x1)] : [view.x0, view.x1];
  let words = 0;
  for (let value = Math.ceil(from / step) * step; value <= to && words < MOST_TICKS; value += step, words++) {
    const px = Math.round(frame.px(axis.mode === "call" ? below(ids, value) : value)) + 0.5;
    if (px < panes.left) continue;
    context.strokeStyle = theme.grid;
    context.globalAlpha = 0.45;
    line(context, px, panes.top, px, panes.height - 8);
    context.globalAlpha = 1;
    context.fillStyle = theme.faint;
    context.fillText(
      axis.mode === "call" ? count(value) : moment(value, step),
      Math.min(px, panes.right - 18),
      13,
    );
  }
  context.textAlign = "right";
  context.font = `11px ${SANS}`;
  context.fillStyle = theme.faint;
  context.fillText(axis.mode === "call" ? "call" : `time (${duration(step)} a line)`, panes.left - 10, 13);
  return words + 1;
}

/** Along the space: where its parts begin, and round addresses between. */
function addresses(frame: Frame, context: CanvasRenderingContext2D): number {
  const { panes, view, theme, scene } = frame;
  let free = panes.top - 4; // pixels above are taken
  let words = 0;
  const label = (text: string, y: number, colour: string): void => {
    if (y < Math.max(free, panes.top - 4) || y > panes.bottom) return;
    context.fillStyle = colour;
    context.fillText(text, panes.left - 10, y + 5);
    free = y + 13;
    words++;
  };
  for (const segment of scene.fold.segments) {
    if (segment.u1 < view.u0 || segment.u0 > view.u1) continue;
    const [y0, y1] = [frame.py(segment.u0), frame.py(segment.u1)];
    context.textAlign = "right";
    context.font = `11px ${MONO}`;
    if (segment.kind === "head") {
      head(frame, context, segment.client, y0, y1);
      continue;
    }
    if (segment.kind !== "used") {
      words += folded(frame, context, segment.kind, segment.end - segment.addr, y0, y1);
      continue;
    }
    context.strokeStyle = theme.faint;
    if (y0 >= panes.top)
      line(context, panes.left - 6, Math.round(y0) + 0.5, panes.left, Math.round(y0) + 0.5);
    label(hex(segment.addr), y0, theme.ink);
    const bytes = (segment.end - segment.addr) / (y1 - y0); // a pixel
    const step = 2 ** Math.ceil(Math.log2(Math.max(bytes * 44, 1)));
    const first = Math.max(segment.addr, segment.addr + (panes.top - y0) * bytes);
    for (let addr = Math.ceil(first / step) * step; addr < segment.end; addr += step) {
      const y = y0 + (addr - segment.addr) / bytes;
      if (y > panes.bottom) break;
      if (y > y0 + 13 && y < y1 - 12) label(hex(addr), y - 5, theme.faint);
    }
  }
  return words;
}

function head(frame: Frame, context: CanvasRenderingContext2D, client: number, y0: number, y1: number): void {
  const { panes, theme, scene } = frame;
  const { id, name, program } = scene.trace.document.clients[client];
  const y = (y0 + y1) / 2;
  if (y < panes.top || y > panes.bottom || y1 - y0 < 11) return;
  context.textAlign = "left";
  context.font = `600 12px ${SANS}`;
  context.fillStyle = theme.ink;
  context.fillText(
    `client ${id}${program || name ? `, ${(program || name).slice(0, 80)}` : ""}`,
    panes.left + 4,
    y + 1,
  );
}

function folded(
  frame: Frame,
  context: CanvasRenderingContext2D,
  kind: string,
  bytes: number,
  y0: number,
  y1: number,
): number {
  const { panes, theme } = frame;
  const [top, bottom] = [Math.max(y0, panes.top), Math.min(y1, panes.bottom)];
  if (bottom - top < 2) return 0;
  if (kind === "hole") {
    context.strokeStyle = theme.grid;
    for (const y of [y0, y1])
      if (y >= panes.top && y <= panes.bottom) zigzag(context, panes.left, panes.right, y);
  }
  if (bottom - top < 10) return 0;
  context.textAlign = "right";
  context.font = `italic 11px ${SANS}`;
  context.fillStyle = theme.faint;
  const what = kind === "hole" ? "hole" : "kernel's";
  context.fillText(`${what}, ${size(bytes)}`, panes.left - 10, (top + bottom) / 2);
  return 1;
}

function zigzag(context: CanvasRenderingContext2D, from: number, to: number, y: number): void {
  context.beginPath();
  for (let x = from, i = 0; x <= to; x += 6, i++) context.lineTo(x, y + (i % 2 ? 1.5 : -1.5));
  context.stroke();
}

/** In mappings that have room for it: whose memory, how much. */
function names(frame: Frame, context: CanvasRenderingContext2D): number {
  const { rects, panes, scene } = frame;
  const [range, object] = [scene.trace.column("mappings.range"), scene.trace.column("mappings.object")];
  context.font = `600 11px ${SANS}`;
  context.textAlign = "left";
  let words = 0;
  for (let i = 0; i < rects.length && words < MOST_NAMES; i++) {
    const [x0, x1] = [Math.max(rects.x0[i], panes.left), Math.min(rects.x1[i], panes.right)];
    const [y0, y1] = [
      Math.max(rects.y0[i] + panes.top, panes.top),
      Math.min(rects.y1[i] + panes.top, panes.bottom),
    ];
    if (rects.members[i] > 1 || y1 - y0 < 14 || x1 - x0 < 64) continue;
    const item = rects.largest[i];
    const name = `${scene.objectName(object[item])}, ${size(range[item])}`;
    if (context.measureText(name).width > x1 - x0 - 10) continue;
    context.fillStyle = textOn(frame.colourOf(item));
    context.fillText(name, x0 + 6, (y0 + y1) / 2 + 0.5);
    words++;
  }
  return words;
}

function lanes(frame: Frame, context: CanvasRenderingContext2D): number {
  const { panes, theme } = frame;
  for (const lane of panes.lanes) {
    context.textAlign = "right";
    context.font = `11px ${SANS}`;
    context.fillStyle = theme.ink;
    let label = lane.label;
    while (label.length > 3 && context.measureText(label).width > panes.left - 16)
      label = `${label.slice(0, -2)}…`;
    const curve = lane.kind === "mapped" || lane.kind === "fragmentation";
    context.fillText(label, panes.left - 10, curve ? lane.top + 8 : lane.top + lane.height / 2);
    if (curve) curves(frame, context, lane);
  }
  return panes.lanes.length;
}

function curves(
  frame: Frame,
  context: CanvasRenderingContext2D,
  lane: Extract<Lane, { curves: Curve[] }>,
): void {
  const { panes, theme, view, axis } = frame;
  const values = (curve: Curve): number[] => (lane.kind === "mapped" ? curve.mapped : curve.fragmentation);
  const first = (curve: Curve): number => Math.max(below(curve.call, axis.callBefore(view.x0) + 1) - 1, 0);
  const past = (curve: Curve): number =>
    Math.min(below(curve.call, axis.call(view.x1)) + 1, curve.call.length);
  let [least, most] = [lane.kind === "mapped" ? 0 : Infinity, 0];
  for (const curve of lane.curves) {
    for (let i = first(curve); i < past(curve); i++) {
      most = Math.max(most, values(curve)[i]);
      least = Math.min(least, values(curve)[i]);
    }
  }
  const high = most > least ? (lane.height - 8) / (most - least) : 0;
  const bottom = lane.top + lane.height - 3;
  context.save();
  context.beginPath();
  context.rect(panes.left, lane.top, panes.right - panes.left, lane.height);
  context.clip();
  lane.curves.forEach((curve, which) => {
    const list = values(curve);
    context.beginPath();
    let y = bottom - (list[first(curve)] - least) * high;
    context.moveTo(Math.max(frame.px(axis.of(curve.call[first(curve)])), panes.left), y);
    for (let i = first(curve) + 1; i < past(curve); i++) {
      const x = frame.px(axis.of(curve.call[i]));
      context.lineTo(x, y);
      context.lineTo(x, (y = bottom - (list[i] - least) * high));
    }
    context.lineTo(panes.right, y);
    context.strokeStyle = `rgb(${theme.curve.join(" ")})`;
    context.setLineDash(which ? [4, 3] : []);
    context.lineWidth = 1.5;
    context.stroke();
    if (which === 0) {
      context.lineTo(panes.right, bottom + 5);
      context.lineTo(Math.max(frame.px(axis.of(curve.call[0])), panes.left), bottom + 5);
      context.globalAlpha = 0.14;
      context.fillStyle = context.strokeStyle;
      context.fill();
      context.globalAlpha = 1;
    }
  });
  context.restore();
  context.fillStyle = theme.faint;
  context.textAlign = "right";
  const percent = (part: number): string => (part > 0 ? `${(100 * part).toPrecision(4)}%` : "0%");
  const scale =
    lane.kind === "mapped"
      ? `0 – ${size(most)}`
      : most > least
        ? `${percent(least)} – ${percent(most)}`
        : percent(most);
  context.fillText(scale, panes.left - 10, lane.top + 23);
}

function line(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
