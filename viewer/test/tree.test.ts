import { expect, test } from "vitest";
import { Rects, sorted, Tree, type Boxes, type Window } from "../src/tree";
import { drawn } from "./random";

const CALLS = 1000;

function boxes(count: number, seed: number): Boxes {
  const next = drawn(seed);
  const born = Array.from({ length: count }, () => next(CALLS)).sort((a, b) => a - b);
  const died = born.map((call) => call + 1 + next(next(4) ? 20 : CALLS));
  const u0 = Float64Array.from(born, () => next(1e6) / 1e6);
  return { born, died, u0, u1: u0.map((u) => u + (1 + next(100)) / 1e5) };
}

function all(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => i);
}

const whole: Window = { from: 0, to: 2 * CALLS, u0: 0, u1: 1.01, x: (call) => call / 2, height: 400 };

test("what is inside a box is what a look at each finds", () => {
  for (let seed = 0; seed < 30; seed++) {
    const next = drawn(seed + 100);
    const b = boxes(next(600), seed);
    const tree = new Tree(b, all(b.u0.length));
    for (let i = 0; i < 10; i++) {
      const [from, u0] = [next(CALLS), next(1000) / 1000];
      const [to, u1] = [from + next(200), u0 + next(100) / 1000];
      const found = tree.inside(from, to, u0, u1, Infinity).sort((a, c) => a - c);
      const expected = [...all(b.u0.length)].filter(
        (j) => b.died[j] >= from && b.born[j] <= to && b.u1[j] >= u0 && b.u0[j] <= u1,
      );
      expect(found).toEqual(expected);
    }
    expect(tree.inside(0, CALLS, 0, 2, 3).length).toBeLessThanOrEqual(3);
  }
});

test("with room for it each that is large enough is drawn, where it is", () => {
  const b = boxes(300, 7);
  const rects = new Rects(10_000);
  const { detail } = new Tree(b, all(300)).draw({ ...whole, height: 1e6, x: (call) => call * 1000 }, rects);
  expect(detail).toBe(1);
  const seen = new Set(rects.largest.subarray(0, rects.length));
  expect(seen.size).toBe(300);
  for (let i = 0; i < rects.length; i++) {
    expect(rects.members[i]).toBe(1);
    expect(rects.x0[i]).toBe(b.born[rects.largest[i]] * 1000);
  }
});

test.each([50, 500, 5000])(
  "never more than %d rectangles, however much there is; all is in one of them",
  (most) => {
    const b = boxes(30_000, 3);
    const rects = new Rects(most);
    const tree = new Tree(b, all(30_000));
    const drawing = tree.draw(whole, rects);
    expect(rects.length).toBeLessThanOrEqual(most);
    expect(rects.members.subarray(0, rects.length).reduce((a, c) => a + c, 0)).toBe(30_000);
    expect(drawing.visited).toBeLessThan(12 * (most + 3000)); // a coarser try each time that room runs out
    for (let i = 0; i < rects.length; i++) {
      const item = rects.largest[i];
      expect(rects.x0[i]).toBeLessThanOrEqual(b.born[item] / 2);
      expect(rects.x1[i]).toBeGreaterThanOrEqual(b.died[item] / 2);
      expect(rects.cover[i]).toBeGreaterThan(0);
      expect(rects.cover[i]).toBeLessThanOrEqual(1);
    }
  },
);

test("what is not in the window costs little and is not drawn", () => {
  const b = boxes(30_000, 4);
  const rects = new Rects(10_000);
  const window = {
    ...whole,
    from: 400,
    to: 405,
    u0: 0.5,
    u1: 0.51,
    height: 400,
    x: (call: number) => (call - 400) * 200,
  };
  const { visited } = new Tree(b, all(30_000)).draw(window, rects);
  const expected = [...all(30_000)].filter(
    (i) => b.died[i] >= 400 && b.born[i] <= 405 && b.u1[i] >= 0.5 && b.u0[i] <= 0.51,
  ).length;
  expect(rects.members.subarray(0, rects.length).reduce((a, c) => a + c, 0)).toBeGreaterThanOrEqual(expected);
  expect(visited).toBeLessThan(6000);
});

test("nothing, and one", () => {
  const rects = new Rects(10);
  new Tree(boxes(0, 1), all(0)).draw(whole, rects);
  expect(rects.length).toBe(0);
  new Tree(boxes(1, 1), all(1)).draw(whole, rects);
  expect(rects.length).toBe(1);
});

test("items are sorted by key", () => {
  const next = drawn(5);
  const keys = Array.from({ length: 1000 }, () => next(1e6));
  const order = sorted(all(1000), (item) => keys[item]);
  for (let i = 1; i < 1000; i++) expect(keys[order[i]]).toBeGreaterThanOrEqual(keys[order[i - 1]]);
  expect([...sorted(all(3), () => 7)]).toEqual([0, 1, 2]);
});
