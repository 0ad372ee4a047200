// Texts to search in, out of what one pastes or chooses: lines, CSV, JSON lines or a JSON list.
import { cells, Unreadable } from "./cells";

export type Doc = { id: string; text: string; metadata: Record<string, unknown> };
/** Rows with named values; `field` is the one that holds the text, null where one has to say it. */
export type Table = { names: string[]; rows: Record<string, unknown>[]; field: string | null };
/** The first documents, as many as are taken, and how many there are; or a table. */
export type Read = { docs: Doc[]; count: number } | { table: Table };

export const MOST_CHARACTERS = 4_000_000;
export const MOST_TEXTS = 5_000;
const MOST_NAMED = 3;
const TEXT_NAMES = ["text", "sentence", "body", "content"];
const ID_NAMES = ["id", "_id"];

/** How much one may give at once, in words; null where it is not too much. Nothing is parsed for it. */
export function tooLarge(characters: number): string | null {
  if (characters <= MOST_CHARACTERS) return null;
  const mega = (count: number) => `${(count / 1e6).toFixed(1)} MB`;
  return `This has ${mega(characters)}, and the page takes up to ${mega(MOST_CHARACTERS)}. Give a part of it, or store it with “millpond index FILE --collection NAME” and choose that collection here.`;
}

/** Count the lines that are not blank, without making them. */
export function countLines(written: string): number {
  let count = 0;
  for (let start = 0; start < written.length; ) {
    const found = written.indexOf("\n", start);
    const end = found < 0 ? written.length : found;
    if (/\S/.test(written.slice(start, Math.min(end, start + 200))) || written.slice(start, end).trim()) count++;
    start = end + 1;
  }
  return count;
}

/** One document a line; blank lines are none. */
function ofLines(written: string): Doc[] {
  const texts = written.split("\n").map((line) => line.trim()).filter(Boolean);
  return texts.map((text, place) => ({ id: String(place + 1), text, metadata: {} }));
}

/** Read a file by its name's ending, and where that says nothing as lines. Throws `Unreadable`. */
export function ofFile(name: string, written: string): Read {
  const content = written.replace(/^\ufeff/, "");
  if (!content.trim()) throw new Unreadable(`${name} is empty. Choose a file with at least one text.`);
  if (/\.(csv|tsv)$/i.test(name)) return { table: ofCsv(name, content) };
  if (/\.(jsonl|ndjson|json)$/i.test(name)) return ofJson(name, content);
  return firstLines(content);
}

/** The first lines that are not blank, as many as are taken, and how many there are. */
export function firstLines(written: string): { docs: Doc[]; count: number } {
  const count = countLines(written);
  if (count <= MOST_TEXTS) return { docs: ofLines(written), count };
  let end = 0;
  for (let lines = 0; lines < MOST_TEXTS; ) {
    const begun = end;
    end = written.indexOf("\n", begun) + 1;
    if (written.slice(begun, end).trim()) lines++;
  }
  return { docs: ofLines(written.slice(0, end)), count };
}

function ofCsv(name: string, content: string): Table {
  const [names = [], ...body] = cells(name, content, MOST_TEXTS);
  const twice = names.find((one, place) => names.indexOf(one) !== place);
  if (twice !== undefined) throw new Unreadable(`${name} has two columns with the name “${twice}”. Give each column a name of its own in the first line.`);
  if (!body.length) throw new Unreadable(`${name} has a first line with names of columns, and no rows below it.`);
  const rows = body.map((row) => Object.fromEntries(names.map((one, place) => [one, valueOf(row[place] ?? "")])));
  return tableOf(name, names, rows);
}

/** A number where writing it gives the same cell again: 7, not 007. */
function valueOf(cell: string): unknown {
  return cell !== "" && String(Number(cell)) === cell && Number.isFinite(Number(cell)) ? Number(cell) : cell;
}

function ofJson(name: string, content: string): Read {
  const items: unknown[] = content.trimStart().startsWith("[") ? listOf(name, content) : linesOf(name, content);
  const wrong = items.findIndex((item) => typeof item !== "string" && (typeof item !== "object" || item === null || Array.isArray(item)));
  if (wrong >= 0) throw new Unreadable(`${name}, item ${wrong + 1}: it is neither a string nor an object. Each line has one text in quotes, or one object such as {"text": "A mill."}.`);
  if (!items.length) throw new Unreadable(`${name} holds no text.`);
  const halved = items.findIndex(isHalved);
  if (halved >= 0) throw new Unreadable(`${name}, item ${halved + 1}: a character is cut in half (one of two surrogates, such as \\ud83d), so that it is no text. Write the file anew.`);
  if (items.every((item) => typeof item === "string"))
    return numbered(items);
  const rows = items.map((item) => (typeof item === "string" ? { text: item } : (item as Record<string, unknown>)));
  const names = [...new Set(rows.flatMap(Object.keys))];
  return { table: tableOf(name, names, rows) };
}

/** Whether a string in it has one of two surrogates alone, which JSON can write and UTF-8 cannot. */
function isHalved(value: unknown): boolean {
  if (typeof value === "string") return /\p{Surrogate}/u.test(value);
  return typeof value === "object" && value !== null && Object.entries(value).flat().some(isHalved);
}

function numbered(texts: string[]): { docs: Doc[]; count: number } {
  const docs = texts.flatMap((text, place) => (text.trim() ? [{ id: String(place + 1), text, metadata: {} }] : []));
  return { docs: docs.slice(0, MOST_TEXTS), count: docs.length };
}

function listOf(name: string, content: string): unknown[] {
  try {
    return JSON.parse(content) as unknown[];
  } catch (error) {
    throw new Unreadable(`${name} is no JSON: ${(error as Error).message}`);
  }
}

function linesOf(name: string, content: string): unknown[] {
  const found: unknown[] = [];
  content.split("\n").some((line, place) => {
    if (!line.trim()) return false;
    try {
      found.push(JSON.parse(line));
    } catch (error) {
      throw new Unreadable(`${name}, line ${place + 1} is no JSON: ${(error as Error).message}`);
    }
    return found.length > MOST_TEXTS;
  });
  return found;
}

function tableOf(name: string, names: string[], rows: Record<string, unknown>[]): Table {
  const usable = names.filter((one) => rows.some((row) => typeof row[one] === "string" && /\p{L}/u.test(row[one])));
  if (!usable.length)
    throw new Unreadable(`${name} has no column with texts, but ${names.map((one) => `“${one}”`).join(", ") || "none"}. One column has to hold the texts to search in.`);
  const field = TEXT_NAMES.map((one) => usable.find((found) => found.toLowerCase() === one)).find(Boolean) ?? null;
  return { names: usable, rows, field: field ?? (usable.length === 1 ? usable[0]! : null) };
}

/** Documents of a table whose column `field` has the text; all other columns but the id are metadata. Throws `Unreadable`. */
export function ofTable({ rows }: Table, field: string): Doc[] {
  const idName = ID_NAMES.find((one) => one !== field && rows.every((row) => row[one] !== undefined && row[one] !== null && row[one] !== ""));
  const docs = rows.flatMap((row, place): Doc[] => {
    const text = row[field];
    if (typeof text !== "string" && typeof text !== "number") return [];
    if (!String(text).trim()) return [];
    const rest = Object.entries(row).filter(([one, value]) => one !== field && one !== idName && value !== "");
    return [{ id: idName ? String(row[idName]) : String(place + 1), text: String(text), metadata: Object.fromEntries(rest) }];
  });
  if (!docs.length) throw new Unreadable(`The column “${field}” has no text in any row. Choose another.`);
  const seen = new Set<string>();
  const twice = new Set<string>();
  for (const { id } of docs) {
    if (seen.has(id)) twice.add(id);
    seen.add(id);
  }
  if (twice.size) {
    const named = [...twice].slice(0, MOST_NAMED).map((id) => `“${id}”`).join(", ");
    throw new Unreadable(
      `${twice.size} ${twice.size === 1 ? "id stands" : "ids stand"} in several rows: ${named}${twice.size > MOST_NAMED ? ", …" : ""}. A later text would replace an earlier one. Make ids differ, or take the column “${idName}” out, and rows are numbered.`,
    );
  }
  return docs;
}
