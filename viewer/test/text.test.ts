import { expect, test } from "vitest";
import { count, duration, hex, many, moment, result, roundStep, size } from "../src/text";

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [65536, "64 KiB"],
  [1048575, "1024 KiB"],
  [2 ** 47, "128 TiB"],
  [1.46 * 2 ** 30, "1.46 GiB"],
])("size %d", (bytes, text) => expect(size(bytes)).toBe(text));

test.each([
  [0, "0 ns"],
  [999, "999 ns"],
  [1500, "1.5 µs"],
  [12_345_678, "12.35 ms"],
  [2e9, "2 s"],
  [-1, "not known"],
  [NaN, "not known"],
])("duration %d", (ns, text) => expect(duration(ns)).toBe(text));

test("counts, addresses, results", () => {
  expect(count(1234567)).toBe("1,234,567");
  expect(count(999)).toBe("999");
  expect(many(1, "op")).toBe("1 op");
  expect(many(2, "op")).toBe("2 ops");
  expect(hex(0x3fff06000)).toBe("0x3fff06000");
  expect(hex(2n ** 64n - 1n)).toBe("0xffffffffffffffff");
  expect(result(0)).toBe("0");
  expect(result(-22)).toBe("EINVAL");
  expect(result(-4095)).toBe("errno 4095");
});

test("moments have the digits that tell steps apart", () => {
  expect(moment(1_250_000_000, 50_000_000)).toBe("1.25 s");
  expect(moment(1_250_000_000, 1e9)).toBe("1 s");
  expect(moment(1_250_000_001, 1)).toBe("1.250000001 s");
});

test("round steps are 1, 2 or 5 times a power of ten and not less than asked", () => {
  for (const least of [0.001, 0.3, 1, 1.1, 2, 3.7, 5, 7, 99, 100, 12345]) {
    const step = roundStep(least);
    expect(step).toBeGreaterThanOrEqual(least * (1 - 1e-9));
    expect(step).toBeLessThanOrEqual(least * 2.5);
    expect([1, 2, 5]).toContain(Number((step / 10 ** Math.floor(Math.log10(step) + 1e-9)).toPrecision(3)));
  }
});
