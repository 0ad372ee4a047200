// Bundles the page into a folder: by default the one that the service serves it from.
import { copyFile, mkdir } from "node:fs/promises";
import { build } from "esbuild";

const target = process.argv[2] ?? "../service/lab";
await mkdir(target, { recursive: true });
await build({
  entryPoints: ["src/lab.tsx"], // what it imports of CSS comes beside it, as lab.css
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
});
await copyFile("src/lab.html", `${target}/lab.html`);
