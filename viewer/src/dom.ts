/** The fixed parts of the page. Words from a trace only ever become text, never markup. */

import type { Trace } from "./data";
import { count, many } from "./text";

export function element<T extends HTMLElement>(id: string, type: { new (): T; prototype: T }): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${id}`);
  return found;
}

export function put(id: string, text: string): void {
  element(id, HTMLElement).textContent = text;
}

/** The head of the page. */
export function about(trace: Trace): void {
  const { name, program, device, begun, notes } = trace.document;
  put("title", name);
  let mappings = 0;
  for (const members of trace.column("mappings.members")) mappings += members;
  const counts = [
    many(trace.calls, "call"),
    many(mappings, "mapping"),
    many(trace.rows("objects"), "object"),
    many(trace.rows("jobs"), "job"),
  ].join(", ");
  const faults = trace.document.faults.length;
  const when = begun.replace("T", " ").replace(/\.\d+/, "").replace("+00:00", " UTC");
  put(
    "about",
    [program, when, device, counts, faults ? many(faults, "fault") : ""].filter(Boolean).join(" · "),
  );
  const list = element("notes", HTMLElement);
  for (const note of notes) {
    const line = document.createElement("li");
    line.textContent = note;
    list.append(line);
  }
}

/** The choice of clients. */
export function spaces(trace: Trace): void {
  const select = element("space", HTMLSelectElement);
  const mapped = new Map<number, number>();
  const [owner, members] = [trace.column("mappings.client"), trace.column("mappings.members")];
  owner.forEach((client, i) => mapped.set(client, (mapped.get(client) ?? 0) + members[i]));
  const option = (value: number, text: string): void => {
    const entry = document.createElement("option");
    entry.value = String(value);
    entry.textContent = text;
    select.append(entry);
  };
  option(-1, "all");
  trace.document.clients.forEach(({ id, program, name }, index) => {
    const called = program || name;
    option(
      index,
      `client ${id}${called ? ` ${called.slice(0, 40)}` : ""}: ${count(mapped.get(index) ?? 0)} mappings`,
    );
  });
}
