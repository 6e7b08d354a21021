/** One frame: everything that is filled goes to pixels in memory first, then lines and words on top. */

import type { Axis } from "./axis";
import { clientColour, objectColour, type Theme } from "./colours";
import { drawLanes } from "./lanes";
import { drawMarks } from "./marks";
import type { Panes } from "./panes";
import { Raster, type Colour } from "./raster";
import type { Scene } from "./scene";
import { Rects, type Window } from "./tree";
import type { View } from "./view";
import { drawWords } from "./words";

export type Colouring = "object" | "client";

/** The most mappings, or groups of them, that a frame draws one by one. */
export const BUDGET = 12_000;
/** Frames in which what was drawn together is drawn again, as finely as pixels allow. */
const STRIPS = 10;
const MOST_REGIONS = 2000;

/** What a frame cost. */
export interface Work {
  rects: number; // mappings, or groups of them
  visited: number; // nodes and mappings looked at
  detail: number; // pixels below which mappings are drawn together
  columns: number; // of lanes
  words: number;
  together: boolean; // some mappings were drawn as one
  milliseconds: number;
}

export class Frame {
  readonly rects = new Rects(BUDGET);
  private readonly finer = new Rects(BUDGET);
  private detail = 1; // that the last frame could afford
  private strip = STRIPS; // that is to be drawn next
  private raster: Raster | undefined;
  private colours: Colour[] = [];
  private colouring: Colouring | undefined;

  constructor(
    readonly scene: Scene,
    readonly axis: Axis,
    readonly view: View,
    readonly panes: Panes,
    readonly theme: Theme,
    readonly ratio: number, // device pixels a pixel of the page
  ) {}

  /** The horizontal place of `x` on the axis, in pixels of the page. */
  px(x: number): number {
    const { left, right } = this.panes;
    return left + ((x - this.view.x0) / (this.view.x1 - this.view.x0)) * (right - left);
  }

  /** What is at a pixel. */
  x(px: number): number {
    const { left, right } = this.panes;
    return this.view.x0 + ((px - left) / (right - left)) * (this.view.x1 - this.view.x0);
  }

  py(u: number): number {
    const { top, bottom } = this.panes;
    return top + ((u - this.view.u0) / (this.view.u1 - this.view.u0)) * (bottom - top);
  }

  u(py: number): number {
    const { top, bottom } = this.panes;
    return this.view.u0 + ((py - top) / (bottom - top)) * (this.view.u1 - this.view.u0);
  }

  colourOf(mapping: number): Colour {
    return (
      this.colours[
        this.scene.trace.column(this.colouring === "client" ? "mappings.client" : "mappings.object")[mapping]
      ] ?? objectColour(0)
    );
  }

  draw(context: CanvasRenderingContext2D, colouring: Colouring): Work {
    const began = performance.now();
    this.choose(colouring);
    const { panes, ratio, theme } = this;
    const [width, height] = [Math.round(panes.width * ratio), Math.round(panes.height * ratio)];
    if (this.raster?.width !== width || this.raster.height !== height)
      this.raster = new Raster(width, height);
    const raster = this.raster;
    raster.clear(theme.paper);
    this.ground(raster);
    const { visited, detail } = this.mappings(raster, this.rects, 0, 1, this.detail);
    this.detail = this.rects.length < BUDGET / 3 ? Math.max(detail / 2, 1) : detail;
    const together = this.rects.members.subarray(0, this.rects.length).some((members) => members > 1);
    this.strip = together ? 0 : STRIPS;
    const columns = drawLanes(this, raster);
    const words = this.show(context, raster);
    const milliseconds = performance.now() - began;
    return { rects: this.rects.length, visited, detail, columns, words, together, milliseconds };
  }

  /** Draws the next strip of what was drawn together, finely; undefined when there is none left. */
  refine(context: CanvasRenderingContext2D): Work | undefined {
    const { raster, strip, finer } = this;
    if (!raster || strip === STRIPS) return undefined;
    const began = performance.now();
    this.strip++;
    const { visited, detail } = this.mappings(raster, finer, strip / STRIPS, (strip + 1) / STRIPS, 1);
    const words = this.show(context, raster);
    const milliseconds = performance.now() - began;
    return {
      rects: finer.length,
      visited,
      detail,
      columns: 0,
      words,
      together: this.strip < STRIPS,
      milliseconds,
    };
  }

  private show(context: CanvasRenderingContext2D, raster: Raster): number {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.putImageData(raster.image, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const words = drawWords(this, context);
    drawMarks(this, context);
    return words;
  }

  private choose(colouring: Colouring): void {
    if (this.colouring === colouring) return;
    this.colouring = colouring;
    const { trace } = this.scene;
    const several = colouring === "client" ? trace.document.clients.length : trace.rows("objects");
    this.colours = Array.from({ length: several }, (_, i) =>
      colouring === "client" ? clientColour(i) : objectColour(i + 1),
    );
  }

  private ground(raster: Raster): void {
    const { panes, theme, ratio, scene } = this;
    const [left, right, top, bottom] = [panes.left, panes.right, panes.top, panes.bottom].map(
      (at) => at * ratio,
    );
    raster.fill(left, right, top, bottom, theme.ground);
    for (const segment of scene.fold.segments) {
      const colour = { used: undefined, hole: theme.fold, kernel: theme.kernel, head: theme.paper }[
        segment.kind
      ];
      if (!colour || segment.u1 < this.view.u0 || segment.u0 > this.view.u1) continue;
      raster.fill(
        left,
        right,
        this.py(segment.u0) * ratio,
        this.py(segment.u1) * ratio,
        colour,
        1,
        top,
        bottom,
      );
    }
    const [client, addr, range, born, died] = ["client", "addr", "range", "born", "died"].map((name) =>
      scene.trace.column(`regions.${name}`),
    );
    for (const i of scene.regions.slice(0, MOST_REGIONS)) {
      const x0 = Math.max(this.px(this.axis.of(born[i])), panes.left) * ratio;
      const x1 = Math.min(this.px(this.axis.of(died[i])), panes.right) * ratio;
      const y0 = this.py(scene.fold.place(client[i], addr[i])) * ratio;
      const y1 = this.py(scene.fold.place(client[i], addr[i] + range[i] - 1)) * ratio;
      if (x1 > x0) raster.fill(x0, x1, y0, y1, theme.sparse, 1, top, bottom);
    }
  }

  /** Draws the mappings of a part of the view, 0 to 1 from the top, and remembers them in `rects`. */
  private mappings(
    raster: Raster,
    rects: Rects,
    from: number,
    to: number,
    finest: number,
  ): { visited: number; detail: number } {
    const { panes, theme, ratio, view, axis } = this;
    const high = view.u1 - view.u0;
    const height = panes.bottom - panes.top;
    const window: Window = {
      from: axis.callBefore(view.x0),
      to: axis.call(view.x1),
      u0: view.u0 + from * high,
      u1: view.u0 + to * high,
      x: (call) => this.px(axis.of(call)),
      height: height * (to - from),
    };
    const drawing = this.scene.tree.draw(window, rects, finest);
    const origin = panes.top + from * height;
    const [top, bottom] = [Math.round(origin * ratio), Math.round((panes.top + to * height) * ratio)];
    const [left, right] = [panes.left * ratio, panes.right * ratio];
    for (let i = 0; i < rects.length; i++) {
      const x0 = Math.max(rects.x0[i] * ratio, left);
      const x1 = Math.min(rects.x1[i] * ratio, right);
      const y0 = (rects.y0[i] + origin) * ratio;
      const y1 = (rects.y1[i] + origin) * ratio;
      if (x1 < left || x0 > right) continue;
      const colour = this.colourOf(rects.largest[i]);
      if (rects.members[i] > 1) {
        const part = Math.max(Math.sqrt(rects.cover[i]), 0.5);
        raster.fill(x0, x1, y0, y1, mixed(theme.ground, colour, part), 1, top, bottom);
        continue;
      }
      raster.fill(x0, x1, y0, y1, colour, 1, top, bottom);
      if (y1 - y0 >= 4 * ratio)
        raster.fill(x0, x1, Math.round(y1) - 1, Math.round(y1), theme.edge, 0.35, top, bottom);
      if (x1 - x0 >= 4 * ratio && rects.x0[i] >= panes.left) {
        raster.fill(x0, Math.round(x0) + 1, y0, y1, theme.edge, 0.45, top, bottom);
      }
    }
    return drawing;
  }
}

function mixed(ground: Colour, colour: Colour, part: number): Colour {
  return [0, 1, 2].map((i) => Math.round(ground[i] + (colour[i] - ground[i]) * part)) as unknown as Colour;
}
