import { expect, test } from "vitest";
import { clientColour, DARK, LIGHT, objectColour, textOn } from "../src/colours";
import type { Colour } from "../src/raster";

function linear([red, green, blue]: Colour): number[] {
  return [red, green, blue].map((part) =>
    part <= 10.31 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4,
  );
}

/** Without one kind of cones: Viénot, Brettel and Mollon, 1999; and by lightness alone. */
const EYES: Record<string, (colour: Colour) => number[]> = {
  all: linear,
  "no red": (colour) => {
    const [r, g, b] = linear(colour);
    return [0.11238 * r + 0.88762 * g, 0.11238 * r + 0.88762 * g, 0.00401 * r - 0.00401 * g + b];
  },
  "no green": (colour) => {
    const [r, g, b] = linear(colour);
    return [0.29275 * r + 0.70725 * g, 0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b];
  },
};

/** Perceived distance, in OKLab. */
function distance(one: number[], other: number[]): number {
  const lab = ([r, g, b]: number[]): number[] => {
    const l = Math.cbrt(Math.max(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b, 0));
    const m = Math.cbrt(Math.max(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b, 0));
    const s = Math.cbrt(Math.max(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b, 0));
    return [
      0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
      1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
      0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
    ];
  };
  const [a, b] = [lab(one), lab(other)];
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

test.each(Object.keys(EYES))("objects one after the other are told apart, by eyes with %s cones", (eyes) => {
  for (let number = 1; number < 500; number++) {
    const [one, other] = [objectColour(number), objectColour(number + 1)].map(EYES[eyes]);
    expect(distance(one, other)).toBeGreaterThan(0.06);
  }
});

test.each(Object.keys(EYES))("clients and lanes are told apart, by eyes with %s cones", (eyes) => {
  for (let i = 0; i < 6; i++) {
    expect(distance(EYES[eyes](clientColour(i)), EYES[eyes](clientColour(i + 1)))).toBeGreaterThan(0.07);
  }
  for (const theme of [LIGHT, DARK]) {
    expect(distance(EYES[eyes](theme.exec), EYES[eyes](theme.waiting))).toBeGreaterThan(0.08);
    expect(distance(EYES[eyes](theme.bind), EYES[eyes](theme.waiting))).toBeGreaterThan(0.08);
  }
});

test("the colours are those of gpuvm show", () => {
  expect(objectColour(0)).toEqual([0xb8, 0xbc, 0xc4]);
  expect(
    objectColour(1)
      .map((part) => part.toString(16))
      .join(""),
  ).toBe("88d5a8");
});

test("names on mappings can be read", () => {
  const luminance = (colour: Colour): number => {
    const [r, g, b] = linear(colour);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (let number = 0; number < 200; number++) {
    const fill = objectColour(number);
    const text = luminance(textOn(fill) === "#ffffff" ? [255, 255, 255] : [0x1c, 0x20, 0x26]);
    const [light, dark] = [Math.max(text, luminance(fill)), Math.min(text, luminance(fill))];
    expect((light + 0.05) / (dark + 0.05)).toBeGreaterThan(4);
  }
});
