/** A table of any length: only the rows that are seen are in the page. */

export interface Column {
  title: string;
  width: number; // in `ch`
  text(row: number): string;
  value?(row: number): number; // to sort by; else it cannot be
  number?: boolean; // flush right
}

const ROW = 24;
const SPARE = 6;
const MOST_PIXELS = 8_000_000; // browsers draw nothing far below; then a scrolled pixel is more than a pixel

export class Table {
  private columns: readonly Column[] = [];
  private rows: ArrayLike<number> = [];
  private sort: { column: number; down: boolean } | undefined;
  private current = -1; // place of the row that has the keyboard
  private readonly head = document.createElement("div");
  private readonly body = document.createElement("div");
  private readonly space = document.createElement("div");

  constructor(
    private readonly root: HTMLElement,
    private readonly chosen: (row: number) => void,
  ) {
    this.head.className = "row head";
    this.head.setAttribute("role", "row");
    this.body.className = "rows";
    this.body.tabIndex = 0;
    this.body.setAttribute("role", "rowgroup");
    this.space.className = "space";
    this.body.append(this.space);
    root.setAttribute("role", "table");
    root.append(this.head, this.body);
    this.body.addEventListener("scroll", () => {
      this.head.style.transform = `translateX(${-this.body.scrollLeft}px)`;
      this.fill();
    });
    this.body.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fill()).observe(this.body);
  }

  get length(): number {
    return this.rows.length;
  }

  /** Other rows; with the same columns the order stays. */
  show(columns: readonly Column[], rows: ArrayLike<number>): void {
    if (columns !== this.columns) this.sort = undefined;
    this.columns = columns;
    this.rows = rows;
    this.current = -1;
    this.root.setAttribute("aria-rowcount", String(rows.length + 1));
    this.order();
    this.heads();
    this.body.scrollTop = 0;
    this.fill();
  }

  private order(): void {
    const value = this.sort && this.columns[this.sort.column].value;
    if (!value || !this.sort) return;
    const sign = this.sort.down ? -1 : 1;
    this.rows = Array.from(this.rows).sort((a, b) => sign * (value(a) - value(b)));
  }

  private heads(): void {
    this.head.replaceChildren(
      ...this.columns.map((column, i) => {
        const cell = document.createElement(column.value ? "button" : "span");
        cell.className = column.number ? "cell number" : "cell";
        cell.style.width = `${column.width}ch`;
        cell.setAttribute("role", "columnheader");
        const sorted = this.sort?.column === i;
        cell.setAttribute("aria-sort", sorted ? (this.sort?.down ? "descending" : "ascending") : "none");
        cell.textContent = column.title + (sorted ? (this.sort?.down ? " ▾" : " ▴") : "");
        if (column.value) {
          cell.addEventListener("click", () => {
            this.sort = { column: i, down: sorted && !this.sort?.down };
            this.order();
            this.heads();
            this.fill();
          });
        }
        return cell;
      }),
    );
  }

  private get pixels(): number {
    return Math.min(this.rows.length * ROW, MOST_PIXELS);
  }

  private fill(): void {
    const { clientHeight, scrollTop } = this.body;
    this.space.style.height = `${this.pixels}px`;
    const hidden = Math.max(this.pixels - clientHeight, 1);
    const above = Math.max(this.rows.length * ROW - clientHeight, 0) * Math.min(scrollTop / hidden, 1);
    const first = Math.max(Math.floor(above / ROW) - SPARE, 0);
    const last = Math.min(Math.ceil((above + clientHeight) / ROW) + SPARE, this.rows.length);
    const shift = scrollTop - above;
    const lines: HTMLElement[] = [];
    for (let place = first; place < last; place++) lines.push(this.line(place, place * ROW + shift));
    this.space.replaceChildren(...lines);
  }

  private line(place: number, top: number): HTMLElement {
    const row = this.rows[place];
    const line = document.createElement("div");
    line.className = place === this.current ? "row current" : "row";
    line.style.top = `${top}px`;
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", String(place + 2));
    for (const column of this.columns) {
      const cell = document.createElement("span");
      cell.className = column.number ? "cell number" : "cell";
      cell.style.width = `${column.width}ch`;
      cell.setAttribute("role", "cell");
      cell.textContent = column.text(row);
      line.append(cell);
    }
    line.addEventListener("click", () => this.choose(place));
    return line;
  }

  private choose(place: number): void {
    this.current = Math.min(Math.max(place, 0), this.rows.length - 1);
    if (this.current < 0) return;
    const [top, seen] = [this.current * ROW, this.body.clientHeight];
    if (this.pixels === this.rows.length * ROW) {
      if (top < this.body.scrollTop) this.body.scrollTop = top;
      if (top + ROW > this.body.scrollTop + seen) this.body.scrollTop = top + ROW - seen;
    }
    this.fill();
    this.chosen(this.rows[this.current]);
  }

  private key(event: KeyboardEvent): void {
    const page = Math.max(Math.floor(this.body.clientHeight / ROW) - 1, 1);
    const steps: Readonly<Record<string, number>> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined || !this.rows.length) return;
    event.preventDefault();
    this.choose(this.current < 0 ? 0 : Math.min(Math.max(this.current + step, 0), this.rows.length - 1));
  }
}
