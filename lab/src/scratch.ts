// Scratch collections: made by this page, filled in batches, kept while it is open, and dropped with it.
import { Offline, Refused, send } from "./api";
import { type Collection, drop, pathOf } from "./collections";
import type { Doc } from "./intake";
import { Shared, useShared } from "./shared";

const PREFIX = "lab-";
const IDLE = 600; // seconds without use after which the service drops one, should this page not get to it
const KEEP = 120_000; // milliseconds between two uses that keep them
const BATCH = 64; // documents of a request, and
const BATCH_CHARACTERS = 100_000;
const FULL = [429, 503];
const BUSY = 2; // times that documents are refused for want of room before fewer are sent
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

type Rejected = { id: string | null; detail: string };

class Scratch extends Shared {
  filling: Filling | null = null;
  /** Changes whenever collections, or what they hold, may have changed. */
  version = 0;
  private readonly made = new Set<string>();
  private aborter: AbortController | null = null;
  private timer = 0;

  constructor() {
    super();
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

  has(name: string): boolean {
    return this.made.has(name);
  }

  /** Whether a collection is the scratch of another page, which drops it when it likes. */
  ofAnother(one: Collection): boolean {
    return one.name.startsWith(PREFIX) && one.idle_timeout !== undefined && !this.has(one.name);
  }

  get names(): string[] {
    return [...this.made];
  }

  /** Make a collection for each that is wanted, and store all documents in each; names are told at once. */
  async fill(docs: Doc[], wanted: Wanted[], begun: (names: string[]) => void): Promise<void> {
    const aborter = new AbortController();
    this.aborter?.abort();
    this.aborter = aborter;
    const stem = `${PREFIX}${[...crypto.getRandomValues(new Uint8Array(5))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    const names = wanted.map((one, place) => `${stem}-${place + 1}-${plain(one)}`);
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
      await this.storeAll(docs, names, aborter.signal);
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

  /** Store documents in each collection, fewer at once where the service has no room for so many. */
  private async storeAll(docs: Doc[], names: string[], signal: AbortSignal): Promise<void> {
    let size = BATCH;
    for (let done = 0, batches = 0; done < docs.length; ) {
      const batch = batchOf(docs, done, size);
      try {
        const rejected: Rejected[][] = [];
        for (const name of names) rejected.push(await this.store(name, batch, signal));
        const left = rejected[0] ?? [];
        this.change({ left: this.filling!.left + left.length, why: this.filling!.why || (left[0]?.detail ?? "") });
      } catch (error) {
        if (!(error instanceof Refused && [413, ...FULL].includes(error.status)) || batch.length === 1) throw error;
        size = Math.ceil(batch.length / 2); // what is stored already is not embedded again
        continue;
      }
      size = Math.min(BATCH, size + 1);
      done += batch.length;
      if (++batches % SHOWN === 0) this.version++;
      this.change({ done });
    }
  }

  /** Store documents in one collection, and return those that are left out. */
  private async store(name: string, docs: Doc[], signal: AbortSignal): Promise<Rejected[]> {
    const body = { documents: docs, truncate: true, on_error: "skip" };
    const patience = docs.length > 1 ? BUSY : Infinity;
    try {
      const answer = await this.patiently(() => send("POST", pathOf(name, "/documents"), body, { signal }), signal, patience);
      return ((await answer.json()) as { rejected?: Rejected[] }).rejected ?? [];
    } catch (error) {
      if (!(error instanceof Refused && error.status === 404)) throw error;
      this.made.delete(name);
      throw new Error(`The collection “${name}” is gone: somebody dropped it, or the service has another store now. Make it again.`);
    }
  }

  /** Ask until the service answers and has room; what it refuses for good, or too often for want of room, is thrown. */
  private async patiently(work: () => Promise<Response>, signal: AbortSignal, patience = Infinity): Promise<Response> {
    for (let busy = 0; ; ) {
      try {
        const answer = await work();
        if (this.filling?.waiting) this.change({ waiting: "" });
        return answer;
      } catch (error) {
        if (signal.aborted) throw error;
        if (error instanceof Offline) {
          this.change({ waiting: "The service does not answer. It may be starting again: this goes on once it answers." });
          await pause(AGAIN, signal);
        } else if (error instanceof Refused && FULL.includes(error.status) && busy++ < patience) {
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

}

/** What a collection is made with, in letters that a name may have. */
function plain({ pooling, cut }: Wanted): string {
  return (cut === "whole" ? pooling : `${pooling}-${cut}`).replace(/[^A-Za-z0-9_.-]+/g, "-").replace(/-+$/, "").slice(0, 60);
}

/** The next documents, up to a number and to a number of characters, and at least one. */
function batchOf(docs: Doc[], from: number, size: number): Doc[] {
  let to = from + 1;
  let characters = docs[from]!.text.length;
  while (to < docs.length && to - from < size && (characters += docs[to]!.text.length) <= BATCH_CHARACTERS) to++;
  return docs.slice(from, to);
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
  return useShared(scratch);
}
