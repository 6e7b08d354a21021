/** Colours. An object's follows from its number, as in gpuvm's pictures; clients' are Okabe and Ito's. */

import type { Colour } from "./raster";

const GOLDEN_ANGLE = 137.50776405;
/** Lightness and chroma in OKLCH: neighbours in number differ in lightness, which every eye sees. */
const SHADES = [
  [0.63, 0.14],
  [0.81, 0.1],
  [0.53, 0.12],
  [0.72, 0.13],
  [0.87, 0.08],
] as const;

/** For clients; also without red or green, or colour at all, no two neighbours look alike. */
const CLIENTS: readonly Colour[] = [
  [0, 114, 178],
  [230, 159, 0],
  [0, 158, 115],
  [204, 121, 167],
  [86, 180, 233],
  [213, 94, 0],
  [240, 228, 66],
];

export interface Theme {
  paper: Colour;
  ground: Colour; // of the picture
  fold: Colour; // of a hole that is folded
  kernel: Colour;
  sparse: Colour;
  edge: Colour; // between a mapping and the next
  grid: string;
  ink: string;
  faint: string;
  bind: Colour;
  exec: Colour;
  other: Colour;
  waiting: Colour;
  move: Colour;
  curve: Colour;
  fault: string;
  evict: string;
  mark: string; // around a mark, so that it is seen on every colour
}

export const LIGHT: Theme = {
  paper: [255, 255, 255],
  ground: [246, 247, 250],
  fold: [229, 232, 239],
  kernel: [146, 153, 168],
  sparse: [216, 224, 240],
  edge: [40, 46, 58],
  grid: "#d5d9e2",
  ink: "#1c2026",
  faint: "#5a6270",
  bind: [0, 114, 178],
  exec: [0, 128, 94],
  other: [120, 128, 142],
  waiting: [230, 159, 0],
  move: [170, 68, 132],
  curve: [0, 114, 178],
  fault: "#c1272d",
  evict: "#8a2f6b",
  mark: "#ffffff",
};

export const DARK: Theme = {
  paper: [19, 22, 28],
  ground: [27, 31, 39],
  fold: [38, 43, 54],
  kernel: [84, 92, 108],
  sparse: [46, 56, 78],
  edge: [10, 12, 16],
  grid: "#363d4a",
  ink: "#e8ebf0",
  faint: "#a2abba",
  bind: [86, 180, 233],
  exec: [38, 190, 145],
  other: [140, 148, 162],
  waiting: [230, 159, 0],
  move: [226, 140, 188],
  curve: [86, 180, 233],
  fault: "#ff6b6b",
  evict: "#f0a3d0",
  mark: "#13161c",
};

/** The colour of object `number`; 0, no object, is grey. */
export function objectColour(number: number): Colour {
  if (number === 0) return [184, 188, 196];
  const [lightness, chroma] = SHADES[number % SHADES.length];
  return oklch(lightness, chroma, ((((number * GOLDEN_ANGLE) % 360) + 20) * Math.PI) / 180);
}

export function clientColour(index: number): Colour {
  return CLIENTS[index % CLIENTS.length];
}

/** Black or white, whichever has the greater contrast with it. */
export function textOn(colour: Colour): string {
  const [red, green, blue] = colour.map((part) => (part / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.21 ? "#ffffff" : "#1c2026";
}

export function css([red, green, blue]: Colour): string {
  return `rgb(${red} ${green} ${blue})`;
}

/** Ottosson's OKLab to sRGB. */
function oklch(lightness: number, chroma: number, hue: number): Colour {
  const a = chroma * Math.cos(hue);
  const b = chroma * Math.sin(hue);
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    gamma(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
    gamma(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
    gamma(-0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short),
  ];
}

function gamma(linear: number): number {
  const part = Math.min(Math.max(linear, 0), 1);
  return Math.round(255 * (part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055));
}
