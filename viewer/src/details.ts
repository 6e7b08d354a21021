/** What is known of a thing, as parts of the page. */

import type { Scene } from "./scene";
import { describe, type Thing } from "./thing";

export function fill(into: HTMLElement, scene: Scene, thing: Thing): void {
  const { title, lines } = describe(scene, thing);
  const head = document.createElement("h2");
  head.textContent = title;
  const list = document.createElement("dl");
  for (const [label, text] of lines) {
    const [term, value] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = label;
    value.textContent = text;
    list.append(term, value);
  }
  into.replaceChildren(head, list);
}

export function hint(): HTMLElement {
  const text = document.createElement("p");
  text.textContent =
    "Point at anything to see what it is; click to keep it here. Shift and drag select a box for the tables.";
  return text;
}

/** Shows the tip beside the pointer, inside the window. */
export function tip(box: HTMLElement, scene: Scene, thing: Thing | undefined, x: number, y: number): void {
  box.hidden = !thing;
  if (!thing) return;
  fill(box, scene, thing);
  const { offsetWidth, offsetHeight } = box;
  box.style.left = `${x + 16 + offsetWidth > innerWidth ? Math.max(x - 12 - offsetWidth, 4) : x + 16}px`;
  box.style.top = `${y + 16 + offsetHeight > innerHeight ? Math.max(y - 12 - offsetHeight, 4) : y + 16}px`;
}
