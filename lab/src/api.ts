// The public HTTP API, which everything on the page comes from.

export type Token = { token: string; start: number | null; end: number | null };
export type ComparedText = { tokens: Token[]; prompt: number; truncated: boolean };
export type TextView = { shares: number[]; norm: number; vector: number[] };
export type View = { pooling: string; dimension: number; texts: TextView[]; cosines: number[][] };
export type Compared = { model: string; head: string | null; limit: number; texts: ComparedText[]; views: View[] };

export type Model = {
  encoder: string;
  pooling: string;
  declared_pooling: string | null;
  normalize: boolean;
  dimension: number;
  max_tokens: number;
  prompts: Record<string, string>;
  default_prompt: string | null;
  fingerprint: string;
  backend: string;
  precision: string;
  streams: number;
  tokens_per_second: number | null;
  warnings: string[];
  routes?: Record<string, unknown>;
  default_route?: string | null;
};
/** How much the service is at, and what it has used and made since it started. */
export type Load = {
  requests: number;
  resident_bytes: number | null;
  cpu_seconds: number;
  uptime_seconds: number;
  /** To requests that work for a client: how many, how many failed, and how many took up to so many seconds. */
  answers: { total: number; failed: number; seconds: [number, number][] };
  models: Record<string, { queued_texts: number; queued_tokens: number; vectors: number }>;
};

export type Info = {
  version: string;
  cores: number;
  default_model: string;
  models: Record<string, Model>;
  poolings: string[];
  load: Load;
  limits: { max_queued_tokens: number; max_requests: number; max_texts: number };
};

/** What the service says of a request that it refuses, in its own words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    detail: string,
    /** Seconds after which the same request may succeed, as far as it says so. */
    readonly retryAfter: number | null = null,
  ) {
    super(detail);
  }
}

/** The service does not answer. */
export class Offline extends Error {
  constructor() {
    super(`No answer from ${location.origin}. It may be starting again: what you wrote is kept, and is sent once it answers.`);
  }
}

const GATEWAY = [502, 504]; // what a proxy says for a service that does not answer it

let key = "";

/** Send this key from now on. It is kept in this page's memory alone. */
export function useKey(value: string): void {
  key = value.trim();
}

/** Whether a key is sent. */
export function keyed(): boolean {
  return key !== "";
}

export type Method = "GET" | "POST" | "PUT" | "DELETE";

/** Send a request; paths are relative to where the page is served. Throws `Refused`, or `Offline`. */
export async function send(method: Method, path: string, body?: unknown, options: RequestInit = {}): Promise<Response> {
  if (/[^\x21-\x7e]/.test(key)) throw new Refused(401, "This is no key of the service: keys have letters, digits and signs of ASCII alone.");
  const headers: Record<string, string> = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }), ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Offline();
  }
  if (answer.ok) return answer;
  const problem = (await answer.json().catch(() => null)) as { detail?: string } | null;
  if (!problem && GATEWAY.includes(answer.status)) throw new Offline();
  const pause = Number(answer.headers.get("retry-after")) || null;
  throw new Refused(answer.status, problem?.detail ?? `The service answered ${answer.status} ${answer.statusText}.`, pause);
}

/** Ask for what there is, or send a body to be answered, and return the JSON of the answer. */
export async function ask<Answer>(path: string, body?: unknown, signal?: AbortSignal): Promise<Answer> {
  const answer = await send(body === undefined ? "GET" : "POST", path, body, signal ? { signal } : {});
  return (await answer.json()) as Answer;
}

/** The service went away in the middle of its answer. */
export class Cut extends Error {
  constructor() {
    super(`${location.origin} went away before it was done. It may be starting again.`);
  }
}

/** Send a body and take the lines of JSON of the answer as they come. Throws as `send`, or `Cut`. */
export async function* stream<Line>(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<Line> {
  const answer = await send("POST", path, body, { signal });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw signal.aborted ? error : new Cut();
    });
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line) yield JSON.parse(line) as Line;
  }
  if (rest) throw new Cut();
}
