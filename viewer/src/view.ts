/** Where one looks: a part of the calls, or of the time, and a part of the folded addresses. */

import type { Axis } from "./axis";

const LEAST_U = 1e-9;

export class View {
  x0: number;
  x1: number;
  u0 = 0;
  u1 = 1;

  constructor(private axis: Axis) {
    this.x0 = axis.first;
    this.x1 = axis.last;
  }

  /** All there is. */
  reset(): void {
    this.x0 = this.axis.first;
    this.x1 = this.axis.last;
    this.u0 = 0;
    this.u1 = 1;
  }

  /** Another axis; the same calls stay in view. */
  turn(axis: Axis): void {
    const [from, to] = [this.axis.time(this.x0), this.axis.time(this.x1)];
    const all = this.x0 <= this.axis.first && this.x1 >= this.axis.last;
    this.axis = axis;
    if (all) this.show(axis.first, axis.last, this.u0, this.u1);
    else this.show(axis.ofTime(from), axis.ofTime(to), this.u0, this.u1);
  }

  get whole(): boolean {
    return this.x0 <= this.axis.first && this.x1 >= this.axis.last && this.u0 <= 0 && this.u1 >= 1;
  }

  show(x0: number, x1: number, u0: number, u1: number): void {
    [this.x0, this.x1] = within(x0, x1, this.axis.first, this.axis.last, this.axis.least);
    [this.u0, this.u1] = within(u0, u1, 0, 1, LEAST_U);
  }

  /** By parts of what is in view. */
  pan(x: number, u: number): void {
    const [wide, high] = [this.x1 - this.x0, this.u1 - this.u0];
    this.show(this.x0 + x * wide, this.x1 + x * wide, this.u0 + u * high, this.u1 + u * high);
  }

  /** What is at these parts of the view, 0 to 1, stays there; a factor below 1 shows less, larger. */
  zoom(atX: number, atU: number, factorX: number, factorU: number): void {
    const [wide, high] = [this.x1 - this.x0, this.u1 - this.u0];
    const [x, u] = [this.x0 + atX * wide, this.u0 + atU * high];
    const newWide = Math.max(wide * factorX, Math.min(this.axis.least, wide));
    const newHigh = Math.max(high * factorU, LEAST_U);
    const across = factorX === 1 ? [this.x0, this.x1] : [x - atX * newWide, x + (1 - atX) * newWide];
    const down = factorU === 1 ? [this.u0, this.u1] : [u - atU * newHigh, u + (1 - atU) * newHigh];
    this.show(across[0], across[1], down[0], down[1]);
  }
}

/** `[from, to]` moved, and made smaller or larger if it must be, so that it lies in `[first, last]`. */
export function within(
  from: number,
  to: number,
  first: number,
  last: number,
  least: number,
): [number, number] {
  const width = Math.min(Math.max(to - from, least), last - first);
  const begin = Math.min(Math.max(to - from < least ? (from + to - width) / 2 : from, first), last - width);
  return [begin, begin + width];
}
