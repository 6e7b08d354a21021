import { expect, test } from "vitest";
import { joined, numbers, type Column } from "../src/data";

/** As the Python side writes them: bytes by significance, compressed. */
async function column(
  type: Column["type"],
  values: Float64Array | Uint32Array,
  delta = false,
): Promise<Column> {
  const width = values.BYTES_PER_ELEMENT;
  const plain = new Uint8Array(values.buffer);
  const apart = plain.map((_, i) => plain[(i % values.length) * width + Math.floor(i / values.length)]);
  const stream = new Blob([apart]).stream().pipeThrough(new CompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return { type, delta, data: btoa(String.fromCharCode(...bytes)) };
}

test("columns come back", async () => {
  const times = Float64Array.from([0, 2 ** 40 + 1, 5, -1]);
  expect(await numbers(await column("f64", times))).toEqual(times);
  const ids = Uint32Array.from([7, 1, 1, 5]);
  expect(await numbers(await column("u32", ids, true))).toEqual(Uint32Array.from([7, 8, 9, 14]));
  expect(await numbers(await column("u32", new Uint32Array(0)))).toEqual(new Uint32Array(0));
});

test("bytes are put together", () => {
  expect(joined(Uint8Array.from([1, 2, 3, 4, 5, 6]), 2)).toEqual(Uint8Array.from([1, 4, 2, 5, 3, 6]));
});
