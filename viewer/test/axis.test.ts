import { expect, test } from "vitest";
import { Axis } from "../src/axis";
import { below } from "../src/data";
import { View, within } from "../src/view";

const WHEN = Float64Array.from([1000, 2000, 2000, 5000, 9000]); // four calls, and the end

test("calls", () => {
  const axis = new Axis("call", WHEN);
  expect([axis.first, axis.last]).toEqual([0, 4]);
  expect([axis.call(1), axis.call(1.2), axis.call(99)]).toEqual([1, 2, 4]);
  expect([axis.callBefore(1), axis.callBefore(1.8), axis.callBefore(-0.5), axis.callBefore(99)]).toEqual([
    1, 1, -1, 3,
  ]);
  expect(axis.time(2.5)).toBe(3500);
  expect(axis.ofTime(3500)).toBe(2.5);
  expect(axis.ofTime(0)).toBe(0);
  expect(axis.ofTime(1e9)).toBe(4);
});

test("time", () => {
  const axis = new Axis("time", WHEN);
  expect([axis.first, axis.last]).toEqual([1000, 9000]);
  expect(axis.of(3)).toBe(5000);
  expect(axis.of(4)).toBe(9000);
  expect([axis.call(1500), axis.call(2000), axis.call(5001)]).toEqual([1, 1, 4]);
  expect([axis.callBefore(1500), axis.callBefore(5000), axis.callBefore(999)]).toEqual([0, 3, -1]);
});

test("an empty trace has an axis", () => {
  for (const mode of ["call", "time"] as const) {
    const axis = new Axis(mode, Float64Array.from([0]));
    expect(axis.last).toBeGreaterThan(axis.first);
    expect(axis.callBefore(axis.last)).toBe(-1);
    expect(axis.time(0.5)).not.toBeNaN();
    expect(axis.ofTime(7)).not.toBeNaN();
  }
});

test("below counts", () => {
  expect([0, 1, 2, 3, 4].map((value) => below([1, 2, 2, 3], value))).toEqual([0, 0, 1, 3, 4]);
});

test("a view never leaves what there is, nor gets too narrow", () => {
  expect(within(-5, 5, 0, 100, 4)).toEqual([0, 10]);
  expect(within(95, 105, 0, 100, 4)).toEqual([90, 100]);
  expect(within(50, 51, 0, 100, 4)).toEqual([48.5, 52.5]);
  expect(within(-50, 500, 0, 100, 4)).toEqual([0, 100]);
  expect(within(0, 1, 0, 2, 4)).toEqual([0, 2]);
});

test("zoom keeps what is under the pointer, and undoes itself", () => {
  const long = Float64Array.from({ length: 1001 }, (_, i) => i * 100);
  const view = new View(new Axis("call", long));
  view.zoom(0.3, 0.6, 0.5, 0.5);
  expect(view.x0 + 0.3 * (view.x1 - view.x0)).toBeCloseTo(300, 6);
  expect(view.u0 + 0.6 * (view.u1 - view.u0)).toBeCloseTo(0.6, 9);
  view.zoom(0.3, 0.6, 2, 2);
  expect(view.whole).toBe(true);
  for (let i = 0; i < 200; i++) view.zoom(0.5, 0.5, 0.5, 0.5);
  expect(view.x1 - view.x0).toBeCloseTo(4, 6);
  expect(view.u1).toBeGreaterThan(view.u0);
});

test("the other axis shows the same calls", () => {
  const long = Float64Array.from({ length: 1001 }, (_, i) => i * i);
  const [calls, time] = [new Axis("call", long), new Axis("time", long)];
  const view = new View(calls);
  view.show(100, 200, 0, 1);
  view.turn(time);
  expect([view.x0, view.x1]).toEqual([10_000, 40_000]);
  view.turn(calls);
  expect([view.x0, view.x1]).toEqual([100, 200]);
});
