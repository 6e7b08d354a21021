// Builds the page: src/ bundled, with its style, in one file; readable, as it is committed.
// node build.mjs [OUT]
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const out = process.argv[2] ?? here("../python/gpuvm/report/page/viewer.html");

const { outputFiles } = await build({
  entryPoints: [here("src/main.ts")],
  bundle: true,
  format: "iife",
  target: ["chrome103", "firefox115", "safari16.4"],
  charset: "ascii",
  legalComments: "none",
  write: false,
});
const script = outputFiles[0].text;
if (/<\/script|<!--/i.test(script)) throw new Error("the script would end its element");
const [page, style] = await Promise.all(
  ["src/page.html", "src/page.css"].map((path) => readFile(here(path), "utf8")),
);
// Functions as replacements: a $ in the script means nothing.
await writeFile(
  out,
  page.replace("%STYLE%", () => `\n${style}`).replace("%SCRIPT%", () => `\n${script}`),
);
