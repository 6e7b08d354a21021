/** Boxes of calls and addresses, which the tables show. */

import type { Frame } from "./frame";
import type { Found } from "./search";
import type { Box } from "./tables";

/** All that is in view; where that is everything, what came before the first call, too. */
export function boxInView({ scene, axis, view }: Frame): Box {
  const { x0, x1, u0, u1, whole } = view;
  return {
    from: Math.max(axis.callBefore(x0), 0),
    to: Math.min(axis.callBefore(x1), Math.max(scene.trace.calls - 1, 0)),
    u0,
    u1,
    t0: whole ? -Infinity : axis.time(x0),
    t1: whole ? Infinity : axis.time(x1),
  };
}

/** What lies between two pixels; a box in the lanes is of all addresses. */
export function boxOfPixels(frame: Frame, x0: number, y0: number, x1: number, y1: number): Box {
  const { axis, panes, scene } = frame;
  const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)].map((px) => frame.x(px));
  const lanes = Math.min(y0, y1) > panes.bottom;
  const [top, low] = [Math.min(y0, y1), Math.max(y0, y1)].map((py) => frame.u(Math.min(py, panes.bottom)));
  const last = Math.max(scene.trace.calls - 1, 0);
  return {
    from: Math.min(Math.max(axis.call(left), 0), last),
    to: Math.min(Math.max(axis.callBefore(right), 0), last),
    u0: lanes ? 0 : Math.max(top, 0),
    u1: lanes ? 1 : Math.min(low, 1),
    t0: axis.time(left),
    t1: axis.time(right),
  };
}

/** One address, all the time. */
export function boxOfAddress({ scene }: Frame, u: number, found: Found): Box {
  const to = Math.max(scene.trace.calls - 1, 0);
  return { from: 0, to, u0: u, u1: u, t0: -Infinity, t1: Infinity, mappings: found.mappings };
}
