// Data that one pastes or drops: CSV, TSV or lines of JSON, as rows of a request.
import { cells, type Unreadable } from "./cells";

export type Row = Record<string, unknown>;
export type Layout = "pairs" | "classification";
export type Rows = { layout: Layout; rows: Row[]; left: number };

export const MOST_BYTES = 5_000_000;
export const MOST_ROWS = 2_000;
const LEAST_ROWS = 20;

const LAYOUTS: { layout: Layout; columns: string[] }[] = [
  { layout: "pairs", columns: ["sentence1", "sentence2", "score"] },
  { layout: "pairs", columns: ["anchor", "positive"] },
  { layout: "classification", columns: ["text", "label"] },
];

/** Say that so many bytes are too many; null where they are not. */
export function tooLarge(name: string, bytes: number): string | null {
  if (bytes <= MOST_BYTES) return null;
  return `${name} has ${megabytes(bytes)}, and the page takes ${megabytes(MOST_BYTES)}. Take some rows out: ${MOST_ROWS} are compared at most.`;
}

export function megabytes(bytes: number): string {
  return bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(bytes % 1e6 ? 2 : 0)} MB`;
}

/** Read what is written, or return what is wrong with it as a sentence. */
export function read(written: string): Rows | string {
  const found = records(written.replace(/^\ufeff/, ""));
  if (typeof found === "string") return found;
  const columns = Object.keys(found[0] ?? {});
  const layout = LAYOUTS.find((each) => each.columns.every((column) => columns.includes(column)));
  if (!layout) {
    const named = columns.slice(0, 8).map((column) => (column.length > 40 ? `${column.slice(0, 40)}…` : column));
    return `The columns are named ${named.join(", ")}${columns.length > 8 ? ", …" : ""}. They have to be sentence1, sentence2 and score; or anchor and positive; or text and label.`;
  }
  if (found.length < LEAST_ROWS) {
    return `${found.length === 1 ? "This is 1 row" : `These are ${found.length} rows`}, and fewer than ${LEAST_ROWS} tell no pooling from another. Give a few hundred, if there are.`;
  }
  const kept = found.slice(0, MOST_ROWS);
  const rows = kept.map((row) => Object.fromEntries(layout.columns.map((column) => [column, row[column] ?? null])));
  return { layout: layout.layout, rows, left: found.length - kept.length };
}

function records(written: string): Row[] | string {
  const begin = written.trimStart()[0];
  if (begin === "[" || begin === "{") return ofJson(written, begin);
  const table = ofTable(written);
  if (typeof table === "string") return table;
  const [columns, ...rest] = table;
  if (!columns) return "There is nothing yet. Paste some rows, or choose a file.";
  if (!rest.length) return "There is one line, and the first line names the columns. Put rows below it.";
  return rest.map((row) => Object.fromEntries(columns.map((column, place) => [column, row[place]])));
}

function ofTable(written: string): string[][] | string {
  try {
    return cells("This table", written, Infinity);
  } catch (error) {
    return (error as Unreadable).message;
  }
}

function ofJson(written: string, begin: string): Row[] | string {
  const isRow = (value: unknown): value is Row => typeof value === "object" && value !== null && !Array.isArray(value);
  try {
    const all: unknown[] = begin === "[" ? JSON.parse(written) : lines(written);
    const wrong = all.findIndex((value) => !isRow(value));
    return wrong < 0 ? (all as Row[]) : `Row ${wrong + 1} is not an object with named fields.`;
  } catch (error) {
    return (error as Error).message.startsWith("Line ") ? (error as Error).message : `This is not JSON: ${(error as Error).message}.`;
  }
}

function lines(written: string): unknown[] {
  return written.split("\n").flatMap((line, place) => {
    if (!line.trim()) return [];
    try {
      return [JSON.parse(line)];
    } catch {
      throw new Error(`Line ${place + 1} is not JSON. Each line is one object, such as {"sentence1": "…", "sentence2": "…", "score": 3}.`);
    }
  });
}
