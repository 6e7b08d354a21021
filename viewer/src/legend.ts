/** What the colours and marks mean. */

import { clientColour, css, type Theme } from "./colours";
import { element } from "./dom";
import type { Colouring } from "./frame";
import type { Scene } from "./scene";
import { many } from "./text";

const MOST_CLIENTS = 7;

export function legend(scene: Scene, colouring: Colouring, theme: Theme, unshown = 0): void {
  const { trace } = scene;
  const entries: [colour: string, sign: string, text: string][] = [];
  if (colouring === "client") {
    trace.document.clients.slice(0, MOST_CLIENTS).forEach(({ id }, i) => {
      if (scene.fold.has(i)) entries.push([css(clientColour(i)), "", `client ${id}`]);
    });
  } else if (trace.rows("mappings")) {
    entries.push([
      "conic-gradient(#d55e00, #e69f00, #009e73, #56b4e9, #0072b2, #cc79a7, #d55e00)",
      "",
      "mappings, one colour an object",
    ]);
  }
  if (scene.regions.length) entries.push([css(theme.sparse), "", "sparse region, nothing mapped"]);
  entries.push([css(theme.fold), "", "hole, folded"]);
  if (scene.queues.length) {
    entries.push([
      css(theme.exec),
      "",
      trace.document.timed ? "job runs" : "job queued (when it ran is not known)",
    ]);
    if (trace.document.timed) entries.push([css(theme.waiting), "", "jobs wait"]);
  }
  const [evicted, source, target] = ["evicted", "source", "target"].map((name) =>
    trace.column(`moves.${name}`),
  );
  if (scene.moves.some((row) => evicted[row] > 0)) entries.push([theme.evict, "▼", "eviction"]);
  if (scene.moves.some((row) => !evicted[row] && source[row] >= 0 && target[row] >= 0))
    entries.push([theme.ink, "▲", "other move"]);
  if (scene.moves.length)
    entries.push([css(theme.move), "", "lane: evictions"], [css(theme.other), "", "lane: other moves"]);
  if (trace.document.faults.length) entries.push([theme.fault, "✕", "fault"]);
  if (unshown)
    entries.push([theme.faint, "…", `${many(unshown, "queue")} with fewer jobs not shown: choose a space`]);
  element("legend", HTMLElement).replaceChildren(
    ...entries.map(([colour, sign, text]) => {
      const [item, swatch] = [document.createElement("li"), document.createElement("i")];
      swatch.textContent = sign;
      swatch.className = sign ? "mark" : "";
      swatch.style.background = colour;
      swatch.style.color = sign ? colour : "";
      swatch.setAttribute("aria-hidden", "true");
      item.append(swatch, text);
      return item;
    }),
  );
}
