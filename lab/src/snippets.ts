// The same request as a command, as a program and as a config.
import { keyed } from "./api";

const KEY = "MILLPOND_API_KEY"; // a variable of the environment, as copies hold no key
const SHELL = 100_000; // bytes that an argument of a command may have

/** A shell command; a request without a body is a GET. */
export function curl(path: string, body?: unknown): string {
  const url = new URL(path, location.href).href;
  const authorized = keyed() ? ` -H "authorization: Bearer $${KEY}"` : "";
  if (body === undefined) return `curl -s '${url}'${authorized}`;
  const written = JSON.stringify(body);
  const asked = `curl -s ${url}${authorized} -H 'content-type: application/json' -d`;
  if (new Blob([written]).size > SHELL) return `${asked} @- <<'END'\n${written}\nEND`;
  return `${asked} '${written.replaceAll("'", `'\\''`)}'`;
}

/** A literal of Python; JSON's are the same but for three names. */
export function literal(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value as object).map(([name, of]) => `${JSON.stringify(name)}: ${literal(of)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** A Python program. */
export function python(path: string, body?: unknown): string {
  const url = JSON.stringify(new URL(path, location.href).href);
  const asked = body === undefined ? `get(${url}` : `post(${url}, json=${literal(body)}`;
  return `${keyed() ? "import os\n\n" : ""}import httpx\n\nanswer = httpx.${asked}${headers()}, timeout=60)\nprint(answer.raise_for_status().json())`;
}

/** A Python program that prints each line of the answer as it comes; `file` holds the body where it is long. */
export function pythonByLine(path: string, body: unknown, file?: string): string {
  const url = JSON.stringify(new URL(path, location.href).href);
  const asked = file ? `content=open(${JSON.stringify(file)}, "rb")${headers('"content-type": "application/json"')}` : `json=${literal(body)}${headers()}`;
  const imported = `import json\n${keyed() ? "import os\n" : ""}\nimport httpx\n\n`;
  return `${imported}with httpx.stream("POST", ${url}, ${asked}, timeout=None) as answer:\n    for line in answer.iter_lines():\n        print(json.loads(line))`;
}

/** The headers of a request in Python, with the key where the page has one. */
function headers(...written: string[]): string {
  const all = [...written, ...(keyed() ? [`"authorization": f"Bearer {os.environ['${KEY}']}"`] : [])];
  return all.length ? `, headers={${all.join(", ")}}` : "";
}

/** The section of a deployment's config that serves this pooling. */
export function yaml(model: string, encoder: string, pooling: string): string {
  const named = /^[a-z_][\w.-]*$/i.test(model) && !/^(y|n|yes|no|on|off|true|false|null)$/i.test(model) ? model : JSON.stringify(model);
  return `models:\n  ${named}:\n    encoder: ${JSON.stringify(encoder)}\n    pooling: ${JSON.stringify(pooling)}`;
}
