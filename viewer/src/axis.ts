/** The horizontal axis: calls one beside the other, or nanoseconds. */

import { below } from "./data";

export type Mode = "call" | "time";

export class Axis {
  readonly first: number;
  readonly last: number;

  constructor(
    readonly mode: Mode,
    private readonly when: Float64Array, // of each call, and of the end
  ) {
    const calls = when.length - 1;
    this.first = mode === "call" ? 0 : when[0];
    this.last = mode === "call" ? Math.max(calls, 1) : Math.max(when[calls], when[0] + 1);
  }

  /** Where a call, by its place, begins. */
  of(call: number): number {
    if (this.mode === "call") return call;
    return this.when[Math.min(Math.max(call, 0), this.when.length - 1) | 0];
  }

  /** The first call that begins at or behind `x`. */
  call(x: number): number {
    if (this.mode === "call") return Math.min(Math.max(Math.ceil(x), 0), this.when.length - 1);
    return Math.min(below(this.when, x), this.when.length - 1);
  }

  /** The last call that begins at or before `x`, -1 if none. */
  callBefore(x: number): number {
    const calls = this.when.length - 1;
    if (this.mode === "call") return Math.min(Math.floor(x), calls - 1);
    const after = this.call(x);
    return Math.min(after < calls && this.when[after] === x ? after : after - 1, calls - 1);
  }

  /** The time at `x`: between two calls, in proportion. */
  time(x: number): number {
    if (this.mode === "time") return x;
    const calls = this.when.length - 1;
    const at = Math.min(Math.max(x, 0), calls);
    const call = Math.min(Math.floor(at), Math.max(calls - 1, 0));
    return this.when[call] + (at - call) * ((this.when[call + 1] ?? this.when[call]) - this.when[call]);
  }

  /** Where a time is. */
  ofTime(t: number): number {
    if (this.mode === "time") return t;
    const after = below(this.when, t);
    if (after === 0) return 0;
    if (after >= this.when.length) return this.when.length - 1;
    const from = this.when[after - 1];
    return after - 1 + (t - from) / (this.when[after] - from);
  }

  /** The narrowest view. */
  get least(): number {
    return this.mode === "call" ? 4 : 200;
  }
}
