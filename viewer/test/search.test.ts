import { expect, test } from "vitest";
import { parseAddress } from "../src/search";

test.each([
  ["0x3fff06000", 0x3fff06000],
  [" 0x3f_ff06_000 ", 0x3fff06000],
  ["3FFF06000", 0x3fff06000],
  ["4096", 4096],
  ["0", 0],
  ["0X10", 16],
  ["", null],
  ["0x", null],
  ["hello", null],
  ["-1", null],
  ["1.5", null],
  ["0xffffffffffffffff", null],
  ["<img>", null],
])("%s", (text, value) => expect(parseAddress(text)).toBe(value));
