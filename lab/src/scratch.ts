// Scratch collections: made by this page, filled in batches, kept while it is open, and dropped with it.
import { useEffect, useState } from "preact/hooks";
import { Offline, Refused, send } from "./api";
import { drop, pathOf } from "./collections";
import type { Doc } from "./intake";

const IDLE = 600; // seconds without use after which the service drops one, should this page not get to it
const KEEP = 120_000; // milliseconds between two uses that keep them
const BATCH = 64; // documents of a request, and
const BATCH_CHARACTERS = 100_000;
const AGAIN = 2; // seconds until a service that does not answer is asked again
const SHOWN = 8; // batches after which searches are made anew

export const CUTS = { whole: "whole texts", late: "late chunks", early: "early chunks" } as const;
export type Cut = keyof typeof CUTS;
export type Wanted = { model: string; pooling: string; cut: Cut };

export type Filling = {
  names: string[];
  done: number;
  total: number;
  /** What it waits for, if it does. */
  waiting: string;
  left: number;
  why: string;
  state: "running" | "stopped" | "done" | "failed";
  error: Error | null;
};

type Upserted = { rejected?: { id: string | null; detail: string }[] };

class Scratch {
  filling: Filling | null = null;
  /** Changes whenever collections, or what they hold, may have changed. */
  version = 0;
  private readonly made = new Set<string>();
  private readonly listeners = new Set<() => void>();
  private aborter: AbortController | null = null;
  private timer = 0;

  constructor() {
    addEventListener("pagehide", () => {
      this.aborter?.abort();
      for (const name of this.made) void drop(name, { keepalive: true }).catch(() => undefined);
      this.made.clear();
      this.tell();
    });
    addEventListener("pageshow", (event) => {
      if (!event.persisted) return; // what one comes back to has lost its collections
      this.filling = null;
      this.version++;
      this.tell();
    });
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  has(name: string): boolean {
    return this.made.has(name);
  }

  get names(): string[] {
    return [...this.made];
  }

  /** Make a collection for each that is wanted, and store all documents in each; names are told at once. */
  async fill(docs: Doc[], wanted: Wanted[], begun: (names: string[]) => void): Promise<void> {
    const aborter = new AbortController();
    this.aborter?.abort();
    this.aborter = aborter;
    const stem = `lab-${[...crypto.getRandomValues(new Uint8Array(5))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    const names = wanted.map((_, place) => `${stem}-${place + 1}`);
    this.change({ names, done: 0, total: docs.length, waiting: "", left: 0, why: "", state: "running", error: null });
    this.keep();
    try {
      for (const [place, one] of wanted.entries()) {
        this.made.add(names[place]!);
        const chunking = one.cut === "whole" ? {} : { chunking: { by: "sentence", mode: one.cut } };
        const body = { model: one.model, pooling: one.pooling, idle_timeout: IDLE, ...chunking };
        await this.patiently(() => send("PUT", pathOf(names[place]!), body, { signal: aborter.signal }), aborter.signal);
      }
      this.version++;
      begun(names);
      let batches = 0;
      for (const batch of batchesOf(docs)) {
        for (const name of names) await this.store(name, batch, aborter.signal);
        if (++batches % SHOWN === 0) this.version++;
        this.change({ done: this.filling!.done + batch.length });
      }
      this.change({ state: "done" });
    } catch (error) {
      if (aborter !== this.aborter) return; // another one has begun
      if (aborter.signal.aborted) this.change({ state: "stopped", waiting: "" });
      else this.change({ state: "failed", waiting: "", error: error as Error });
      begun(names.filter((name) => this.made.has(name)));
    } finally {
      this.version++;
      this.tell();
    }
  }

  stop(): void {
    this.aborter?.abort();
  }

  async drop(...names: string[]): Promise<void> {
    if (this.filling?.names.some((name) => names.includes(name))) this.stop();
    try {
      for (const name of names) {
        await drop(name).catch((error: Error) => {
          if (!(error instanceof Refused && error.status === 404)) throw error;
        });
        this.made.delete(name);
      }
      if (this.filling && !this.filling.names.some((name) => this.made.has(name))) this.filling = null;
    } finally {
      this.version++;
      this.tell();
    }
  }

  /** Store documents, in parts where they are too much for one request. */
  private async store(name: string, docs: Doc[], signal: AbortSignal): Promise<void> {
    const body = { documents: docs, truncate: true, on_error: "skip" };
    try {
      const answer = await this.patiently(() => send("POST", pathOf(name, "/documents"), body, { signal }), signal);
      const rejected = ((await answer.json()) as Upserted).rejected ?? [];
      if (rejected.length && name === this.filling!.names[0])
        this.change({ left: this.filling!.left + rejected.length, why: this.filling!.why || rejected[0]!.detail });
    } catch (error) {
      if (error instanceof Refused && error.status === 413 && docs.length > 1) {
        const half = Math.ceil(docs.length / 2);
        await this.store(name, docs.slice(0, half), signal);
        await this.store(name, docs.slice(half), signal);
        return;
      }
      if (error instanceof Refused && error.status === 404) {
        this.made.delete(name);
        throw new Error(`The collection “${name}” is gone: somebody dropped it, or the service has another store now. Make it again.`);
      }
      throw error;
    }
  }

  /** Ask until the service answers and has room; what it refuses for good is thrown. */
  private async patiently(work: () => Promise<Response>, signal: AbortSignal): Promise<Response> {
    while (true) {
      try {
        const answer = await work();
        if (this.filling?.waiting) this.change({ waiting: "" });
        return answer;
      } catch (error) {
        if (signal.aborted) throw error;
        if (error instanceof Offline) {
          this.change({ waiting: "The service does not answer. It may be starting again: this goes on once it answers." });
          await pause(AGAIN, signal);
        } else if (error instanceof Refused && (error.status === 503 || error.status === 429)) {
          const seconds = error.retryAfter ?? AGAIN;
          this.change({ waiting: `The service is busy. This goes on in ${seconds} s.` });
          await pause(seconds, signal);
        } else throw error;
      }
    }
  }

  private keep(): void {
    this.timer ||= window.setInterval(() => {
      for (const name of this.made) {
        send("GET", pathOf(name)).catch((error: Error) => {
          if (!(error instanceof Refused && error.status === 404)) return;
          this.made.delete(name);
          this.version++;
          this.tell();
        });
      }
    }, KEEP);
  }

  private change(change: Partial<Filling>): void {
    this.filling = { ...(this.filling as Filling), ...change };
    this.tell();
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}

function* batchesOf(docs: Doc[]): Generator<Doc[]> {
  let batch: Doc[] = [];
  let characters = 0;
  for (const doc of docs) {
    if (batch.length === BATCH || (batch.length && characters + doc.text.length > BATCH_CHARACTERS)) {
      yield batch;
      batch = [];
      characters = 0;
    }
    batch.push(doc);
    characters += doc.text.length;
  }
  if (batch.length) yield batch;
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = window.setTimeout(resolve, 1_000 * seconds);
    signal.addEventListener("abort", () => {
      window.clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}

const scratch = new Scratch();

/** The scratch collections of this page; whoever calls this is drawn again when they change. */
export function useScratch(): Scratch {
  const [, draw] = useState(0);
  useEffect(() => scratch.listen(() => draw((count) => count + 1)), []);
  return scratch;
}
