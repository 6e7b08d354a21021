/** Mouse and keys on the picture. */

import type { Frame } from "./frame";

export interface Wishes {
  frame(): Frame | undefined;
  moved(): void; // the view is another one
  hover(px: number, py: number, pageX: number, pageY: number): void;
  leave(): void;
  choose(px: number, py: number): void;
  enter(px: number, py: number): void; // look at what is there
  rubber(x0: number, y0: number, x1: number, y1: number, done: boolean): void; // a box is drawn
  key(name: string): boolean; // whether it means something
}

const STEP = 0.15; // of the view
const FACTOR = 0.75;
const CLICK = 4; // pixels that are no drag

type Drag = { x: number; y: number; box: boolean; lastX: number; lastY: number; far: boolean };

export function listen(canvas: HTMLCanvasElement, wishes: Wishes): void {
  let drag: Drag | undefined;
  const place = (event: MouseEvent): [number, number] => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [x, y] = place(event);
    drag = { x, y, box: event.shiftKey, lastX: x, lastY: y, far: false };
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    const frame = wishes.frame();
    if (!frame) return;
    if (!drag) {
      wishes.hover(x, y, event.clientX, event.clientY);
      return;
    }
    drag.far ||= Math.hypot(x - drag.x, y - drag.y) > CLICK;
    if (!drag.far) return;
    wishes.leave();
    if (drag.box) {
      wishes.rubber(drag.x, drag.y, x, y, false);
      return;
    }
    const { left, right, top, bottom } = frame.panes;
    frame.view.pan(
      (drag.lastX - x) / (right - left),
      drag.y < bottom ? (drag.lastY - y) / (bottom - top) : 0,
    );
    [drag.lastX, drag.lastY] = [x, y];
    wishes.moved();
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = place(event);
    const ended = drag;
    drag = undefined;
    if (!ended) return;
    if (!ended.far) wishes.choose(x, y);
    else if (ended.box) wishes.rubber(ended.x, ended.y, x, y, true);
  });
  canvas.addEventListener("pointercancel", () => (drag = undefined));
  canvas.addEventListener("pointerleave", () => wishes.leave());
  canvas.addEventListener("dblclick", (event) => wishes.enter(...place(event)));
  canvas.addEventListener("wheel", (event) => wheel(event, ...place(event), wishes), { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (keyed(event.key, event.shiftKey, wishes)) event.preventDefault();
  });
}

/** Zooms both ways; over the addresses, or with Alt, only these; over the lanes, or with Shift, only time. */
function wheel(event: WheelEvent, x: number, y: number, wishes: Wishes): void {
  const frame = wishes.frame();
  if (!frame) return;
  event.preventDefault();
  const { left, right, top, bottom } = frame.panes;
  const amount = (event.deltaY || event.deltaX) * (event.deltaMode === 1 ? 16 : 1);
  const factor = Math.min(Math.max(Math.exp(amount * 0.002), 0.25), 4);
  const onlyTime = event.shiftKey || y > bottom || y < top;
  const onlyAddresses = !onlyTime && (event.altKey || x < left);
  frame.view.zoom(
    Math.min(Math.max((x - left) / (right - left), 0), 1),
    Math.min(Math.max((y - top) / (bottom - top), 0), 1),
    onlyAddresses ? 1 : factor,
    onlyTime ? 1 : factor,
  );
  wishes.moved();
}

function keyed(key: string, shift: boolean, wishes: Wishes): boolean {
  const view = wishes.frame()?.view;
  if (!view) return false;
  const moves: Readonly<Record<string, () => void>> = {
    ArrowLeft: () => (shift ? view.zoom(0.5, 0.5, 1 / FACTOR, 1) : view.pan(-STEP, 0)),
    ArrowRight: () => (shift ? view.zoom(0.5, 0.5, FACTOR, 1) : view.pan(STEP, 0)),
    ArrowUp: () => (shift ? view.zoom(0.5, 0.5, 1, FACTOR) : view.pan(0, -STEP)),
    ArrowDown: () => (shift ? view.zoom(0.5, 0.5, 1, 1 / FACTOR) : view.pan(0, STEP)),
    PageUp: () => view.pan(0, -0.9),
    PageDown: () => view.pan(0, 0.9),
    "+": () => view.zoom(0.5, 0.5, FACTOR, FACTOR),
    "=": () => view.zoom(0.5, 0.5, FACTOR, FACTOR),
    "-": () => view.zoom(0.5, 0.5, 1 / FACTOR, 1 / FACTOR),
    "0": () => view.reset(),
    Home: () => view.reset(),
  };
  const move = moves[key];
  if (!move) return wishes.key(key);
  move();
  wishes.moved();
  return true;
}
