// The same request as a command, as a program and as a config.

/** A shell command; a request without a body is a GET. */
export function curl(path: string, body?: unknown): string {
  const url = new URL(path, location.href).href;
  if (body === undefined) return `curl -s '${url}'`;
  const quoted = JSON.stringify(body).replaceAll("'", `'\\''`);
  return `curl -s ${url} -H 'content-type: application/json' -d '${quoted}'`;
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
  return `import httpx\n\nanswer = httpx.${asked}, timeout=60)\nprint(answer.raise_for_status().json())`;
}

/** The section of a deployment's config that serves this pooling. */
export function yaml(model: string, encoder: string, pooling: string): string {
  return `models:\n  ${model}:\n    encoder: ${JSON.stringify(encoder)}\n    pooling: ${JSON.stringify(pooling)}`;
}
