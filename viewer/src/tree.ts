/**
 * The index of the picture: which mappings lie in a box of calls and places, at the detail that the box has
 * pixels for. Mappings of similar lifetime share a packed tree; a node is sixteen of what is below it.
 */

const FAN = 16;

export interface Boxes {
  born: ArrayLike<number>; // places among the calls
  died: ArrayLike<number>;
  u0: Float64Array;
  u1: Float64Array;
}

interface Level {
  born: Float64Array;
  died: Float64Array;
  u0: Float64Array;
  u1: Float64Array;
  area: Float64Array;
  largest: Int32Array; // the member that takes up most of it
  members: Int32Array;
}

/** What is looked at: calls and places, and how large a pixel is there. */
export interface Window {
  from: number;
  to: number;
  u0: number;
  u1: number;
  /** Where a call is, in pixels from the left. */
  x(call: number): number;
  height: number; // pixels
}

export interface Drawing {
  visited: number; // nodes and mappings looked at
  detail: number; // pixels below which neighbours are drawn together
}

/** What is drawn, in pixels: a box, or (`members` > 1) many that are too small, as the `largest` of them. */
export class Rects {
  length = 0;
  readonly largest: Int32Array;
  readonly members: Int32Array;
  readonly x0: Float64Array;
  readonly x1: Float64Array;
  readonly y0: Float64Array;
  readonly y1: Float64Array;
  readonly cover: Float64Array; // how much of it is mapped, 0 to 1

  constructor(readonly most: number) {
    this.largest = new Int32Array(most);
    this.members = new Int32Array(most);
    this.x0 = new Float64Array(most);
    this.x1 = new Float64Array(most);
    this.y0 = new Float64Array(most);
    this.y1 = new Float64Array(most);
    this.cover = new Float64Array(most);
  }

  /** False: there is no room. */
  add(
    largest: number,
    members: number,
    x0: number,
    x1: number,
    y0: number,
    y1: number,
    cover: number,
  ): boolean {
    const at = this.length;
    if (at === this.most) return false;
    this.largest[at] = largest;
    this.members[at] = members;
    this.x0[at] = x0;
    this.x1[at] = x1;
    this.y0[at] = y0;
    this.y1[at] = y1;
    this.cover[at] = cover;
    this.length++;
    return true;
  }
}

class Packed {
  readonly levels: Level[] = [];

  constructor(
    readonly items: Int32Array, // in the order of the leaves
    private readonly boxes: Boxes,
  ) {
    let level = this.leaves();
    this.levels.push(level);
    while (level.members.length > 1) this.levels.push((level = above(level)));
  }

  private leaves(): Level {
    const { boxes, items } = this;
    return group(items.length, (at, into, i) => {
      const item = items[i];
      const area = Math.max(boxes.died[item] - boxes.born[item], 0.01) * (boxes.u1[item] - boxes.u0[item]);
      add(into, at, boxes.born[item], boxes.died[item], boxes.u0[item], boxes.u1[item], area, area, item, 1);
    });
  }
}

function group(
  length: number,
  put: (at: number, into: Level & { best: Float64Array }, i: number) => void,
): Level {
  const nodes = Math.ceil(length / FAN);
  const level = {
    born: new Float64Array(nodes).fill(Infinity),
    died: new Float64Array(nodes).fill(-Infinity),
    u0: new Float64Array(nodes).fill(Infinity),
    u1: new Float64Array(nodes).fill(-Infinity),
    area: new Float64Array(nodes),
    largest: new Int32Array(nodes),
    members: new Int32Array(nodes),
    best: new Float64Array(nodes).fill(-1),
  };
  for (let i = 0; i < length; i++) put((i / FAN) | 0, level, i);
  return level;
}

function add(
  into: Level & { best: Float64Array },
  at: number,
  born: number,
  died: number,
  u0: number,
  u1: number,
  area: number,
  best: number,
  largest: number,
  members: number,
): void {
  if (born < into.born[at]) into.born[at] = born;
  if (died > into.died[at]) into.died[at] = died;
  if (u0 < into.u0[at]) into.u0[at] = u0;
  if (u1 > into.u1[at]) into.u1[at] = u1;
  into.area[at] += area;
  into.members[at] += members;
  if (best > into.best[at]) {
    into.best[at] = best;
    into.largest[at] = largest;
  }
}

function above(below: Level): Level {
  return group(below.members.length, (at, into, i) => {
    add(
      into,
      at,
      below.born[i],
      below.died[i],
      below.u0[i],
      below.u1[i],
      below.area[i],
      below.area[i],
      below.largest[i],
      below.members[i],
    );
  });
}

/** `items` by `key`, the smallest first; a native sort of numbers that carry their item. */
export function sorted(items: Int32Array, key: (item: number) => number): Int32Array {
  let least = Infinity;
  let most = -Infinity;
  for (const item of items) {
    const value = key(item);
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const scale = most > least ? (2 ** 28 - 1) / (most - least) : 0;
  const packed = new Float64Array(items.length);
  const room = 2 ** 24;
  for (let i = 0; i < items.length; i++) {
    packed[i] = Math.floor((key(items[i]) - least) * scale) * room + i;
  }
  packed.sort();
  const out = new Int32Array(items.length);
  for (let i = 0; i < items.length; i++) out[i] = items[packed[i] % room];
  return out;
}

export class Tree {
  private readonly parts: Packed[] = []; // long lives first

  /** `shown` are the boxes to index, in the order of their births. */
  constructor(
    private readonly boxes: Boxes,
    shown: Int32Array,
  ) {
    const classes = new Map<number, number[]>();
    for (const item of shown) {
      const life = Math.max(boxes.died[item] - boxes.born[item], 1);
      const lives = Math.floor(Math.log2(life) / 2);
      const members = classes.get(lives);
      if (members) members.push(item);
      else classes.set(lives, [item]);
    }
    for (const lives of [...classes.keys()].sort((a, b) => b - a)) {
      const items = Int32Array.from(classes.get(lives)!);
      const slice = FAN * Math.ceil(Math.sqrt(items.length / FAN));
      const order = new Int32Array(items.length);
      for (let at = 0; at < items.length; at += slice) {
        order.set(
          sorted(items.subarray(at, at + slice), (item) => boxes.u0[item]),
          at,
        );
      }
      this.parts.push(new Packed(order, boxes));
    }
  }

  /** What is in the window, with as much detail as pixels, and the room in `rects`, allow. */
  draw(window: Window, rects: Rects, detail = 1): Drawing {
    const drawing: Drawing = { visited: 0, detail };
    rects.length = 0;
    for (const part of this.parts) {
      if (!this.drawPart(part, window, rects, drawing)) {
        const coarser = this.draw(window, rects, detail * 2);
        return { ...coarser, visited: coarser.visited + drawing.visited };
      }
    }
    return drawing;
  }

  private drawPart(part: Packed, window: Window, rects: Rects, drawing: Drawing): boolean {
    const scale = window.height / (window.u1 - window.u0);
    const { boxes } = this;
    const fine = drawing.detail;
    const visit = (depth: number, node: number): boolean => {
      drawing.visited++;
      const level = part.levels[depth];
      if (level.died[node] < window.from || level.born[node] > window.to) return true;
      if (level.u1[node] < window.u0 || level.u0[node] > window.u1) return true;
      const x0 = window.x(level.born[node]);
      const x1 = window.x(level.died[node]);
      const y0 = (level.u0[node] - window.u0) * scale;
      const y1 = (level.u1[node] - window.u0) * scale;
      if (level.members[node] > 1 && (x1 - x0 <= fine || y1 - y0 <= fine)) {
        const life = Math.max(level.died[node] - level.born[node], 0.01);
        const cover = Math.min(level.area[node] / (life * (level.u1[node] - level.u0[node])), 1);
        if ((x1 - x0 <= fine && y1 - y0 <= fine) || cover > 0.6 || fine > 1) {
          return rects.add(level.largest[node], level.members[node], x0, x1, y0, y1, cover);
        }
      }
      const end = Math.min(
        (node + 1) * FAN,
        depth ? part.levels[depth - 1].members.length : part.items.length,
      );
      for (let i = node * FAN; i < end; i++) {
        if (depth ? !visit(depth - 1, i) : !one(part.items[i])) return false;
      }
      return true;
    };
    const one = (item: number): boolean => {
      drawing.visited++;
      if (boxes.died[item] < window.from || boxes.born[item] > window.to) return true;
      if (boxes.u1[item] < window.u0 || boxes.u0[item] > window.u1) return true;
      const y0 = (boxes.u0[item] - window.u0) * scale;
      const y1 = (boxes.u1[item] - window.u0) * scale;
      return rects.add(item, 1, window.x(boxes.born[item]), window.x(boxes.died[item]), y0, y1, 1);
    };
    return part.items.length === 0 || visit(part.levels.length - 1, 0);
  }

  /** The boxes that touch `[from, to] × [u0, u1]`, in no order, `most` at most. */
  inside(from: number, to: number, u0: number, u1: number, most: number): number[] {
    const { boxes } = this;
    const out: number[] = [];
    for (const part of this.parts) {
      const visit = (depth: number, node: number): void => {
        const level = part.levels[depth];
        if (level.died[node] < from || level.born[node] > to || level.u1[node] < u0 || level.u0[node] > u1)
          return;
        const end = Math.min(
          (node + 1) * FAN,
          depth ? part.levels[depth - 1].members.length : part.items.length,
        );
        for (let i = node * FAN; i < end && out.length < most; i++) {
          if (depth) {
            visit(depth - 1, i);
            continue;
          }
          const item = part.items[i];
          if (boxes.died[item] < from || boxes.born[item] > to) continue;
          if (boxes.u1[item] >= u0 && boxes.u0[item] <= u1) out.push(item);
        }
      };
      if (part.items.length) visit(part.levels.length - 1, 0);
    }
    return out;
  }
}
