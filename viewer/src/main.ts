/** The page: reads its data, and has everything else draw, listen and tell. */

import { Axis, type Mode } from "./axis";
import { boxInView, boxOfAddress, boxOfPixels } from "./boxes";
import { DARK, LIGHT } from "./colours";
import { Trace, type Document } from "./data";
import { fill, hint, tip } from "./details";
import { Frame, type Colouring, type Work } from "./frame";
import { listen } from "./input";
import { legend } from "./legend";
import { drawAbove, type Above } from "./overlay";
import { marksOf } from "./marks";
import { callsOf, placeOf } from "./places";
import { panes } from "./panes";
import { thingAt } from "./point";
import { Scene } from "./scene";
import { history, parseAddress } from "./search";
import { count, hex } from "./text";
import type { Thing } from "./thing";
import { Table } from "./table";
import { sheets, type Sheet } from "./tables";
import { about, element, put, spaces } from "./dom";
import { View } from "./view";

const SETTLED = 120; // milliseconds without a move, then the tables follow

class Page {
  private scene: Scene;
  private axis: Axis;
  private view: View;
  private frame: Frame | undefined;
  private sheets: Sheet[] = [];
  private sheet = 0;
  private colouring: Colouring = "object";
  private readonly above: Above = { mapping: -1, calls: [], box: undefined, rubber: undefined, line: NaN };
  private readonly picture = element("picture", HTMLCanvasElement);
  private readonly over = element("above", HTMLCanvasElement);
  private readonly stage = element("stage", HTMLElement);
  private readonly tip = element("tip", HTMLElement);
  private readonly table: Table;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");
  private waiting = false;
  private settling = 0;
  private printing = false;
  private size = "";
  private refining = 0;
  work: Work | undefined; // of the last frame,
  refined: Work | undefined; // and of the last strip that was drawn finely

  constructor(private readonly trace: Trace) {
    const mode: Mode = "call";
    this.axis = new Axis(mode, trace.when);
    this.view = new View(this.axis);
    this.scene = new Scene(trace, -1);
    this.table = new Table(element("table", HTMLElement), (row) =>
      this.pick(this.sheets[this.sheet].thing(row), true),
    );
    about(trace);
    this.controls();
    this.space(-1);
    new ResizeObserver(() => this.resize()).observe(this.stage);
    this.dark.addEventListener("change", () => this.resize(true));
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
    this.resize(true);
    this.paint();
  }

  // What is looked at.

  private space(client: number): void {
    if (client !== this.scene.client) this.scene = new Scene(this.trace, client);
    Object.assign(this.above, { mapping: -1, calls: [], box: undefined, line: NaN });
    this.view.reset();
    this.sheets = sheets(this.scene);
    this.sheet = Math.min(this.sheet, this.sheets.length - 1);
    this.tabs();
    this.resize(true);
  }

  private turn(mode: Mode): void {
    this.axis = new Axis(mode, this.trace.when);
    this.view.turn(this.axis);
    element("axis", HTMLSelectElement).value = mode;
    this.resize(true);
  }

  private colour(colouring: Colouring): void {
    this.colouring = colouring;
    element("colouring", HTMLSelectElement).value = colouring;
    legend(this.scene, colouring, this.theme);
    this.moved();
  }

  private get theme(): typeof LIGHT {
    return this.dark.matches && !this.printing ? DARK : LIGHT;
  }

  private print(begins: boolean): void {
    this.printing = begins;
    this.resize(true);
    this.paint();
    while (this.frame?.refine(this.context)); // paper does not wait
  }

  // Drawing.

  private resize(always = false): void {
    const { clientWidth, clientHeight } = this.stage;
    const size = `${clientWidth} ${clientHeight} ${devicePixelRatio}`;
    if (size === this.size && !always) return;
    this.size = size;
    const divided = panes(this.scene, clientWidth, clientHeight);
    const ratio = Math.min(devicePixelRatio || 1, 2);
    for (const canvas of [this.picture, this.over]) {
      canvas.width = Math.round(divided.width * ratio);
      canvas.height = Math.round(divided.height * ratio);
      canvas.style.width = `${divided.width}px`;
      canvas.style.height = `${divided.height}px`;
    }
    this.frame = new Frame(this.scene, this.axis, this.view, divided, this.theme, ratio);
    legend(this.scene, this.colouring, this.theme, divided.unshown);
    this.moved();
  }

  private moved(): void {
    this.tip.hidden = true;
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => this.paint());
    }
    cancelAnimationFrame(this.refining);
    clearTimeout(this.settling);
    this.settling = window.setTimeout(() => this.settle(), SETTLED);
  }

  private paint(): void {
    this.waiting = false;
    if (!this.frame) return;
    this.work = this.frame.draw(this.context, this.colouring);
    this.redraw();
  }

  private get context(): CanvasRenderingContext2D {
    return this.picture.getContext("2d", { alpha: false })!;
  }

  /** Where nothing moves: what was too much for one frame is drawn finely, a strip a frame. */
  private refine(): void {
    if (this.waiting || !this.frame) return;
    const work = this.frame.refine(this.context);
    if (!work) return;
    this.refined = work;
    this.refining = requestAnimationFrame(() => this.refine());
  }

  private redraw(): void {
    if (this.frame) drawAbove(this.frame, this.over.getContext("2d")!, this.above);
  }

  // The tables.

  settle(): void {
    clearTimeout(this.settling);
    this.refine();
    const box = this.above.box ?? boxInView(this.frame!);
    const sheet = this.sheets[this.sheet];
    this.table.show(sheet.columns, sheet.rows(box));
    const seen = this.view.whole ? "in all" : "in view";
    const where = box.mappings ? "of this address" : this.above.box ? "in the selected box" : seen;
    const calls = this.trace.calls
      ? `, calls ${this.trace.number(box.from)} – ${this.trace.number(box.to)}`
      : "";
    put("which", `${count(this.table.length)} ${where}${calls}`);
    element("clear", HTMLElement).hidden = !this.above.box;
  }

  private tabs(): void {
    const list = element("tabs", HTMLElement);
    list.replaceChildren(
      ...this.sheets.map((sheet, i) => {
        const tab = document.createElement("button");
        tab.type = "button";
        tab.textContent = sheet.name;
        tab.setAttribute("role", "tab");
        tab.setAttribute("aria-selected", String(i === this.sheet));
        tab.addEventListener("click", () => {
          this.sheet = i;
          this.tabs();
          this.settle();
        });
        return tab;
      }),
    );
  }

  // What is chosen.

  private pick(thing: Thing | undefined, go: boolean): void {
    Object.assign(this.above, { mapping: -1, calls: [] });
    const details = element("details", HTMLElement);
    if (!thing) {
      details.replaceChildren(hint());
    } else {
      fill(details, this.scene, thing);
      if (thing.kind === "mapping") this.above.mapping = thing.row;
      this.above.calls = callsOf(this.trace, thing);
      if (go) this.go(thing);
    }
    this.redraw();
  }

  /** Moves so that it is in view; the size of the view stays. */
  private go(thing: Thing): void {
    const { view } = this;
    const { x, u } = placeOf(thing, this.scene, this.axis, view);
    const [wide, high] = [view.x1 - view.x0, view.u1 - view.u0];
    const left = Number.isNaN(x) || (x > view.x0 && x < view.x1) ? view.x0 : x - wide / 2;
    const top = Number.isNaN(u) || (u > view.u0 && u < view.u1) ? view.u0 : u - high / 2;
    if (left === view.x0 && top === view.u0) return;
    view.show(left, left + wide, top, top + high);
    this.moved();
    clearTimeout(this.settling); // the table that led here stays as it is
    this.settling = window.setTimeout(() => this.refine(), SETTLED);
  }

  /** A mapping fills much of the view. */
  private enter(px: number, py: number): void {
    const thing = this.frame && thingAt(this.frame, px, py);
    const row = thing?.kind === "mapping" ? thing.row : -1;
    if (row < 0) {
      this.view.zoom(0.5, 0.5, 0.5, 0.5);
    } else {
      const { born, died, u0, u1 } = this.scene.boxes;
      const [left, right] = [this.axis.of(born[row]), this.axis.of(died[row])];
      const [wide, high] = [Math.max(right - left, this.axis.least), u1[row] - u0[row]];
      this.view.show(left - wide, right + wide, u0[row] - 3 * high, u1[row] + 3 * high);
    }
    this.moved();
  }

  search(text: string): void {
    const addr = parseAddress(text);
    if (addr === null) {
      put("found", `${text.slice(0, 40)} is no address: expected one like 0x3fff06000`);
      return;
    }
    const found = history(this.scene, addr);
    if (found.client < 0) {
      this.above.line = NaN;
      put("found", `${hex(addr)} is in no address space of this page`);
      this.redraw();
      return;
    }
    const u = this.scene.fold.place(found.client, addr);
    const { boxes } = this.scene;
    const thin = found.mappings.reduce(
      (least, row) => Math.min(least, boxes.u1[row] - boxes.u0[row]),
      Infinity,
    );
    const high = Number.isFinite(thin)
      ? Math.min(thin * 12, this.view.u1 - this.view.u0)
      : this.view.u1 - this.view.u0;
    this.view.show(this.view.x0, this.view.x1, u - high / 2, u + high / 2);
    this.above.line = u;
    this.above.box = boxOfAddress(this.frame!, u, found);
    this.sheet = 0;
    this.tabs();
    const { id } = this.trace.document.clients[found.client];
    const times = found.mappings.length === 1 ? "once" : `${count(found.mappings.length)} times`;
    const told = found.mappings.length
      ? `was mapped ${times}: the table lists when, and to what`
      : "was never mapped; the picture shows what lies around it";
    put("found", `${hex(addr)} of client ${id} ${told}`);
    this.moved();
    this.settle();
  }

  private drop(): void {
    Object.assign(this.above, { box: undefined, line: NaN });
    put("found", "");
    this.pick(undefined, false);
    this.settle();
  }

  private select(x0: number, y0: number, x1: number, y1: number): void {
    this.above.box = boxOfPixels(this.frame!, x0, y0, x1, y1);
    this.redraw();
    this.settle();
  }

  private mark(step: 1 | -1): void {
    const { axis, view } = this;
    const marks = marksOf(this.scene);
    if (!marks.length) {
      put("found", "no fault and no eviction is in this trace");
      return;
    }
    this.marked = this.marked < 0 ? 0 : (this.marked + step + marks.length) % marks.length;
    const { t, thing } = marks[this.marked];
    if (view.whole) view.zoom(0.5, 0.5, 0.3, 1);
    const wide = view.x1 - view.x0;
    const x = axis.ofTime(t);
    view.show(x - wide / 2, x + wide / 2, view.u0, view.u1);
    put("found", `mark ${this.marked + 1} of ${count(marks.length)}`);
    this.moved();
    this.pick(thing, true);
  }

  private marked = -1;

  // Who asks.

  private controls(): void {
    spaces(this.trace);
    const on = (id: string, event: string, act: (value: string) => void): void => {
      const control = element(id, HTMLElement);
      control.addEventListener(event, () => act((control as HTMLSelectElement).value));
    };
    on("space", "change", (value) => this.space(Number(value)));
    on("colouring", "change", (value) => this.colour(value as Colouring));
    on("axis", "change", (value) => this.turn(value as Mode));
    on("whole", "click", () => this.key("0"));
    on("next", "click", () => this.key("n"));
    on("help", "click", () => this.key("?"));
    on("clear", "click", () => this.drop());
    element("search", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(element("address", HTMLInputElement).value);
    });
    addEventListener("keydown", (event) => {
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
      if (typing || event.ctrlKey || event.metaKey || event.altKey || event.target === this.picture) return;
      if ("ctn?/p0".includes(event.key) && this.key(event.key)) event.preventDefault();
    });
    listen(this.picture, {
      frame: () => this.frame,
      moved: () => this.moved(),
      hover: (px, py, x, y) => tip(this.tip, this.scene, this.frame && thingAt(this.frame, px, py), x, y),
      leave: () => (this.tip.hidden = true),
      choose: (px, py) => this.pick(this.frame && thingAt(this.frame, px, py), false),
      enter: (px, py) => this.enter(px, py),
      rubber: (x0, y0, x1, y1, done) => {
        this.above.rubber = done ? undefined : [x0, y0, x1, y1];
        if (done) this.select(x0, y0, x1, y1);
        this.redraw();
      },
      key: (name) => this.key(name),
    });
    this.pick(undefined, false);
  }

  private key(name: string): boolean {
    const acts: Readonly<Record<string, () => void>> = {
      c: () => this.colour(this.colouring === "object" ? "client" : "object"),
      t: () => this.turn(this.axis.mode === "call" ? "time" : "call"),
      n: () => this.mark(1),
      p: () => this.mark(-1),
      "/": () => element("address", HTMLInputElement).select(),
      "?": () => element("keys", HTMLDialogElement).showModal(),
      Escape: () => this.drop(),
      Enter: () => {
        this.above.box = boxInView(this.frame!);
        this.redraw();
        this.settle();
      },
      "0": () => {
        this.view.reset();
        this.moved();
      },
    };
    const act = acts[name];
    act?.();
    return act !== undefined;
  }
}

async function open(): Promise<void> {
  try {
    const text = element("data", HTMLElement).textContent ?? "";
    const trace = await Trace.read(JSON.parse(text) as Document);
    const page = new Page(trace);
    Object.assign(window, { gpuvmPage: page }); // the tests ask it what a frame cost
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  } catch (error) {
    put("found", `This page cannot be drawn: ${error instanceof Error ? error.message : String(error)}`);
    document.documentElement.dataset.ready = "failed";
  }
}

void open();
