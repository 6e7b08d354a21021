/** The search by address: what was typed, and what ever was there. */

import type { Scene } from "./scene";

/** An address: `0x3fff06000`, `0x3f_ff06_000`, without 0x if it has a letter, or decimal. Null: none. */
export function parseAddress(text: string): number | null {
  const plain = text.trim().replaceAll("_", "").toLowerCase();
  const digits = /^0x([0-9a-f]{1,16})$/.exec(plain)?.[1] ?? /^(?=.*[a-f])[0-9a-f]{1,16}$/.exec(plain)?.[0];
  if (digits) {
    const value = parseInt(digits, 16);
    return Number.isSafeInteger(value) ? value : null;
  }
  return /^[0-9]{1,15}$/.test(plain) ? Number(plain) : null;
}

export interface Found {
  addr: number;
  client: number; // whose space; -1: no space has this address
  mappings: number[]; // rows, by birth
}

/** The mappings that ever were at an address, in the first space where there are any. */
export function history(scene: Scene, addr: number): Found {
  const [at, long, owner] = ["addr", "range", "client"].map((name) => scene.trace.column(`mappings.${name}`));
  let found: Found = { addr, client: -1, mappings: [] };
  scene.trace.document.clients.forEach((_, client) => {
    const u = scene.fold.place(client, addr);
    if (Number.isNaN(u) || found.mappings.length) return;
    const rows = scene.tree
      .inside(0, Infinity, u, u, Infinity)
      .filter((i) => owner[i] === client && at[i] <= addr && addr < at[i] + long[i])
      .sort((a, b) => scene.boxes.born[a] - scene.boxes.born[b]);
    if (rows.length || found.client < 0) found = { addr, client, mappings: rows };
  });
  return found;
}
