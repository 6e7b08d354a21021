/** Numbers as text, as the rest of gpuvm writes them. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Bytes in the largest binary unit that is not below 1, three digits: `1.5 MiB`. */
export function size(bytes: number): string {
  let power = 0;
  let value = bytes;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power++;
  }
  const digits = power === 0 || value >= 999.5 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  return `${digits} ${UNITS[power]}`;
}

/** `0x3fff06000`. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

/** A whole number with commas: `10,855`. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `1 mapping`, `2 mappings`. */
export function many(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Nanoseconds in the unit that fits: `12.3 ms`; `not known` for less than nothing. */
export function duration(ns: number): string {
  if (!(ns >= 0)) return "not known";
  for (const [unit, factor] of [
    ["s", 1e9],
    ["ms", 1e6],
    ["µs", 1e3],
  ] as const) {
    if (ns >= factor) return `${Number((ns / factor).toPrecision(ns >= 1000 * factor ? 6 : 4))} ${unit}`;
  }
  return `${Math.round(ns)} ns`;
}

/** A time of the recording, with as many digits as tell `step` apart: `1.250 s`. */
export function moment(ns: number, step: number): string {
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(step / 1e9) - 1e-9), 0), 9);
  return `${(ns / 1e9).toFixed(digits)} s`;
}

/** 1, 2 or 5 times a power of ten: the smallest that is at least `least`. */
export function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  for (const factor of [1, 2, 5]) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

const ERRNOS: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  22: "EINVAL",
  24: "EMFILE",
  25: "ENOTTY",
  28: "ENOSPC",
  38: "ENOSYS",
  62: "ETIME",
  75: "EOVERFLOW",
  95: "EOPNOTSUPP",
  110: "ETIMEDOUT",
  125: "ECANCELED",
};

/** A result: `0`, or an errno's name. */
export function result(ret: number): string {
  return ret >= 0 ? String(ret) : (ERRNOS[-ret] ?? `errno ${-ret}`);
}
