/** Pixels of a picture in memory: rectangles are filled into an array, which the canvas gets at once. */

export type Colour = readonly [red: number, green: number, blue: number];

export class Raster {
  readonly image: ImageData;
  private readonly pixels: Uint32Array;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  clear(colour: Colour): void {
    this.pixels.fill(packed(colour));
  }

  /** Fills whole pixels, at least one each way, between `top` and `bottom`. */
  fill(
    x0: number,
    x1: number,
    y0: number,
    y1: number,
    colour: Colour,
    alpha = 1,
    top = 0,
    bottom = this.height,
  ): void {
    const left = Math.max(Math.round(x0), 0);
    const right = Math.min(Math.max(Math.round(x1), Math.round(x0) + 1), this.width);
    const first = Math.max(Math.round(y0), top);
    const last = Math.min(Math.max(Math.round(y1), Math.round(y0) + 1), bottom);
    if (left >= right) return;
    if (alpha >= 1) {
      const value = packed(colour);
      for (let y = first, at = first * this.width; y < last; y++, at += this.width) {
        if (right - left > 24) this.pixels.fill(value, at + left, at + right);
        else for (let i = at + left; i < at + right; i++) this.pixels[i] = value; // cheaper than a call
      }
      return;
    }
    const data = this.image.data;
    for (let y = first; y < last; y++) {
      for (let at = 4 * (y * this.width + left), end = 4 * (y * this.width + right); at < end; at += 4) {
        data[at] += (colour[0] - data[at]) * alpha;
        data[at + 1] += (colour[1] - data[at + 1]) * alpha;
        data[at + 2] += (colour[2] - data[at + 2]) * alpha;
      }
    }
  }
}

function packed([red, green, blue]: Colour): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian, as all browsers' machines
}
