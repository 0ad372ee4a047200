// Tables out of text, and text out of a file.

/** What cannot be read, and what to do about it. */
export class Unreadable extends Error {}

/** The text of a file, by its byte order mark or else as UTF-8. Throws `Unreadable` where it is neither. */
export async function textOf(file: File): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const [first, second] = bytes;
  const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new Unreadable(`${file.name} is no text in UTF-8. Save it in that encoding; programs for tables call it “CSV UTF-8”.`);
  }
}

/**
 * The names of columns, and below them the cells of rows, up to one more than `most`, of CSV as RFC 4180 has it: quoted cells may hold
 * the separator, line breaks and doubled quotes. Throws `Unreadable`.
 */
export function cells(name: string, content: string, most: number): string[][] {
  const separator = separatorOf(content);
  const rows: string[][] = [];
  let row: string[] = [];
  let at = 0;
  let line = 1;
  while (at <= content.length) {
    let cell: string;
    if (content[at] === '"') {
      const begun = line;
      let parts = "";
      for (at++; ; ) {
        const quote = content.indexOf('"', at);
        if (quote < 0) throw new Unreadable(`${name}, line ${begun}: a quote is opened and never closed. Close it, or double it ("") where it is part of a text.`);
        parts += content.slice(at, quote);
        at = quote + 1;
        if (content[at] !== '"') break;
        parts += '"';
        at++;
      }
      line += parts.split("\n").length - 1;
      cell = parts;
      if (at < content.length && content[at] !== separator && content[at] !== "\n" && content[at] !== "\r")
        throw new Unreadable(`${name}, line ${line}: something follows a closing quote. Double the quotes ("") that are part of a text.`);
    } else {
      const begun = at;
      while (at < content.length && content[at] !== separator && content[at] !== "\n" && content[at] !== "\r") at++;
      cell = content.slice(begun, at);
    }
    row.push(cell);
    if (content[at] === separator) {
      at++;
      continue;
    }
    if (content[at] === "\r" && content[at + 1] === "\n") at++;
    at++;
    line++;
    if (row.length > 1 || row[0]!.trim()) rows.push(row);
    if (rows.length > most + 1) break; // the rest is counted by nobody: it is too much
    row = [];
    if (at >= content.length) break;
  }
  const [names = [], ...body] = rows;
  body.forEach((cells, place) => {
    if (cells.length > names.length)
      throw new Unreadable(`${name}, row ${place + 1}: it has ${cells.length} cells, and the first line names ${names.length} columns. Put texts with commas in quotes.`);
  });
  return names.length ? [names.map((one) => one.trim()), ...body] : [];
}

function separatorOf(content: string): string {
  const header = /[^\r\n]*\S[^\r\n]*/.exec(content)?.[0] ?? "";
  const count = (sign: string) => header.split(sign).length;
  return ["\t", ";"].reduce((best, sign) => (count(sign) > count(best) ? sign : best), ",");
}
