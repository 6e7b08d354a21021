/**
 * Address spaces as one axis, lowest address on top, large holes folded. A place on it, `u`, goes from 0 to
 * 1; between folds it is linear in the address.
 */

export type Kind = "used" | "hole" | "kernel" | "head";

export interface Segment {
  kind: Kind;
  client: number;
  addr: number;
  end: number; // exclusive
  u0: number;
  u1: number;
}

export interface Space {
  client: number;
  start: number;
  end: number;
  kernel: [addr: number, size: number] | null;
  addr: ArrayLike<number>; // of everything that was ever mapped
  range: ArrayLike<number>;
}

/** As in gpuvm's pictures: a hole is folded while it is at least this part of all that is still drawn. */
const CUT_PART = 16;
const MOST_CUT_HOLES = 24;
const HOLE = 0.022;
const MOST_HOLES = 0.25; // of a space's height
const HEAD = 0.035;

interface Extent {
  kind: Kind;
  addr: number;
  end: number;
  members: number;
}

/** What was ever mapped: neighbours joined, in address order; how many mappings each has. */
export function extents(addr: ArrayLike<number>, range: ArrayLike<number>): Extent[] {
  const order = Array.from({ length: addr.length }, (_, i) => i).sort((a, b) => addr[a] - addr[b]);
  const out: Extent[] = [];
  for (const i of order) {
    const last = out[out.length - 1];
    const end = addr[i] + range[i];
    if (last && addr[i] <= last.end) {
      last.end = Math.max(last.end, end);
      last.members++;
    } else {
      out.push({ kind: "used", addr: addr[i], end, members: 1 });
    }
  }
  return out;
}

/** A space from end to end: used parts, the kernel's and the holes that are worth folding. */
export function cut(space: Space): Extent[] {
  const used = extents(space.addr, space.range);
  if (space.kernel && space.kernel[1] > 0) {
    const [addr, length] = space.kernel;
    const end = addr + length;
    const clear = used.every((extent) => extent.end <= addr || extent.addr >= end);
    if (clear) used.push({ kind: "kernel", addr, end, members: 0 });
    used.sort((a, b) => a.addr - b.addr);
  }
  const holes: Extent[] = [];
  let at = space.start;
  for (const extent of used) {
    if (extent.addr > at) holes.push({ kind: "hole", addr: at, end: extent.addr, members: 0 });
    at = Math.max(at, extent.end);
  }
  if (at < space.end) holes.push({ kind: "hole", addr: at, end: space.end, members: 0 });

  let drawn = Math.max(at, space.end) - space.start;
  for (const extent of used) if (extent.kind === "kernel") drawn -= extent.end - extent.addr;
  const folded = new Set<Extent>();
  for (const hole of [...holes].sort((a, b) => b.end - b.addr - (a.end - a.addr)).slice(0, MOST_CUT_HOLES)) {
    const range = hole.end - hole.addr;
    drawn -= range;
    if (range * CUT_PART < drawn) break;
    folded.add(hole);
  }
  const out: Extent[] = [];
  for (const part of [...used, ...holes.filter((hole) => folded.has(hole))].sort((a, b) => a.addr - b.addr)) {
    const last = out[out.length - 1];
    if (last && last.kind === "used" && part.kind === "used") {
      last.end = part.end; // over a hole that is drawn to scale
      last.members += part.members;
    } else {
      out.push({ ...part });
    }
  }
  return out;
}

export class Fold {
  readonly segments: readonly Segment[];
  private readonly byClient = new Map<number, Segment[]>();

  constructor(spaces: readonly Space[]) {
    const segments: Segment[] = [];
    const shares = spaces.map((space) => 1 + Math.sqrt(space.addr.length));
    const sum = shares.reduce((a, b) => a + b, 0) || 1;
    const heads = spaces.length > 1 ? HEAD * spaces.length : 0;
    let u = 0;
    spaces.forEach((space, i) => {
      if (spaces.length > 1) {
        segments.push({
          kind: "head",
          client: space.client,
          addr: 0,
          end: 0,
          u0: u,
          u1: u + HEAD / (1 + heads),
        });
        u += HEAD / (1 + heads);
      }
      const own = laidOut(space, u, u + shares[i] / sum / (1 + heads));
      this.byClient.set(space.client, own);
      segments.push(...own);
      u = own.length ? own[own.length - 1].u1 : u;
    });
    this.segments = segments;
  }

  has(client: number): boolean {
    return this.byClient.has(client);
  }

  /** Where an address of a client's space is drawn; NaN where it has no such address. */
  place(client: number, addr: number): number {
    const segment = this.segmentOf(client, addr);
    if (!segment) return NaN;
    return segment.u0 + ((addr - segment.addr) / (segment.end - segment.addr)) * (segment.u1 - segment.u0);
  }

  segmentOf(client: number, addr: number): Segment | undefined {
    const own = this.byClient.get(client) ?? [];
    return search(
      own,
      (segment) => segment.end > addr,
      (segment) => segment.addr <= addr,
    );
  }

  /** What is drawn at `u`. */
  at(u: number): Segment | undefined {
    return search(
      this.segments,
      (segment) => segment.u1 > u,
      (segment) => segment.u0 <= u,
    );
  }

  /** The address drawn at `u`, in the space of the segment there. */
  addr(u: number): { segment: Segment; addr: number } | undefined {
    const segment = this.at(u);
    if (!segment) return undefined;
    const part = (u - segment.u0) / (segment.u1 - segment.u0);
    return { segment, addr: Math.floor(segment.addr + part * (segment.end - segment.addr)) };
  }
}

/** The first for which `behind` holds, if `holds` does too. */
function search(
  list: readonly Segment[],
  behind: (segment: Segment) => boolean,
  holds: (segment: Segment) => boolean,
): Segment | undefined {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (behind(list[middle])) high = middle;
    else low = middle + 1;
  }
  return low < list.length && holds(list[low]) ? list[low] : undefined;
}

/** A used part's height: by its mappings, but one page beside a gigabyte is still seen. */
function weight(extent: Extent): number {
  return Math.sqrt(extent.members) + 0.35 * Math.log2(1 + (extent.end - extent.addr) / 4096) + 1;
}

function laidOut(space: Space, from: number, to: number): Segment[] {
  const parts = cut(space);
  const folded = parts.filter((part) => part.kind !== "used").length;
  const used = parts.filter((part) => part.kind === "used");
  const forHoles = used.length ? Math.min(folded * HOLE, MOST_HOLES) : 1;
  const weights = used.reduce((sum, part) => sum + weight(part), 0);
  let u = from;
  return parts.map((part) => {
    const share = part.kind === "used" ? (weight(part) / weights) * (1 - forHoles) : forHoles / folded;
    const u0 = u;
    u += share * (to - from);
    return { kind: part.kind, client: space.client, addr: part.addr, end: part.end, u0, u1: u };
  });
}
