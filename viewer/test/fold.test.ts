import { expect, test } from "vitest";
import { cut, extents, Fold, type Space } from "../src/fold";
import { drawn } from "./random";

const END = 2 ** 47;
const PAGE = 4096;

function space(addr: number[], range: number[], kernel: [number, number] | null = null): Space {
  return { client: 0, start: 0, end: END, kernel, addr, range };
}

test("extents join neighbours and overlaps", () => {
  expect(extents([20, 0, 10, 12], [5, 10, 5, 6])).toMatchObject([
    { addr: 0, end: 18, members: 3 },
    { addr: 20, end: 25, members: 1 },
  ]);
});

test("every byte of a space is in exactly one part", () => {
  for (let seed = 0; seed < 50; seed++) {
    const next = drawn(seed);
    const addr = Array.from({ length: next(40) }, () => next(2 ** 20) * PAGE * (1 + next(3) * 2 ** 10));
    const range = addr.map(() => (1 + next(100)) * PAGE);
    const parts = cut(space(addr, range, seed % 2 ? [2 ** 45, 2 ** 40] : null));
    let at = 0;
    for (const part of parts) {
      expect(part.addr).toBe(at);
      expect(part.end).toBeGreaterThan(part.addr);
      at = part.end;
    }
    expect(at).toBe(END);
  }
});

test("a large hole is folded, a small one is drawn to scale", () => {
  const kinds = cut(space([0, 101 * PAGE, 2 ** 40], [100 * PAGE, PAGE, PAGE])).map(({ kind }) => kind);
  expect(kinds).toEqual(["used", "hole", "used", "hole"]);
});

test("the kernel's part is told apart unless something is mapped in it", () => {
  const kernel: [number, number] = [2 ** 39, 2 ** 39];
  expect(cut(space([PAGE], [PAGE], kernel)).map(({ kind }) => kind)).toContain("kernel");
  expect(cut(space([2 ** 39], [PAGE], kernel)).map(({ kind }) => kind)).not.toContain("kernel");
});

test("places ascend with addresses and lead back to them", () => {
  for (let seed = 0; seed < 20; seed++) {
    const next = drawn(seed);
    const addr = Array.from({ length: 30 }, () => next(2 ** 26) * PAGE);
    const fold = new Fold([
      space(
        addr,
        addr.map(() => PAGE),
      ),
    ]);
    expect(fold.segments[0].u0).toBe(0);
    expect(fold.segments[fold.segments.length - 1].u1).toBeCloseTo(1, 9);
    const sorted = [...addr].sort((a, b) => a - b);
    const places = sorted.map((one) => fold.place(0, one));
    for (let i = 1; i < places.length; i++) expect(places[i]).toBeGreaterThanOrEqual(places[i - 1]);
    for (const one of sorted) {
      const back = fold.addr(fold.place(0, one + PAGE / 2))!;
      expect(back.segment.client).toBe(0);
      expect(Math.abs(back.addr - one - PAGE / 2)).toBeLessThan(PAGE / 2);
    }
  }
});

test("spaces stand below each other, each with its own addresses", () => {
  const one = space([PAGE], [PAGE]);
  const fold = new Fold([one, { ...one, client: 3 }]);
  expect(fold.place(3, PAGE)).toBeGreaterThan(fold.place(0, PAGE));
  expect(fold.segments.filter(({ kind }) => kind === "head")).toHaveLength(2);
  expect(fold.place(1, PAGE)).toBeNaN();
  expect(fold.at(fold.place(3, PAGE))!.client).toBe(3);
  expect(fold.segments.at(-1)!.u1).toBeCloseTo(1, 9);
});

test("an empty space is one hole, and no space is nothing", () => {
  const fold = new Fold([space([], [])]);
  expect(fold.segments).toMatchObject([{ kind: "hole", u0: 0, u1: 1 }]);
  expect(new Fold([]).segments).toEqual([]);
  expect(new Fold([]).at(0.5)).toBeUndefined();
});
