// The run of the quiz: it goes on while one looks at other panels, and ends with the page.
import { Cut, Offline, Refused, stream } from "./api";
import type { Line, Report, Step } from "./report";
import type { Rows } from "./rows";
import { Shared, useShared } from "./shared";

export type Body = { data?: "examples"; model: string } & Partial<Record<Rows["layout"], Rows["rows"]>>;
export type Outcome = { report: Report; guess: string; body: Body };
export type Run = { step: Step | null; texts: number; begun: number };

class Measuring extends Shared {
  run: Run | null = null;
  /** The last one that came to its end; it stays until another does. */
  outcome: Outcome | null = null;
  said = "";
  error: Error | null = null;
  private aborter: AbortController | null = null;

  async begin(body: Body, guess: string, said = ""): Promise<void> {
    this.aborter?.abort();
    const own = (this.aborter = new AbortController());
    this.change({ error: null, said, run: { step: null, texts: 0, begun: performance.now() } });
    try {
      let report: Report | null = null;
      for await (const line of stream<Line>("evaluate", body, own.signal)) {
        if (line.progress && this.run) {
          const step = line.progress;
          this.change({ run: { ...this.run, step, texts: step.stage === "embedding" ? step.total : this.run.texts } });
        }
        if (line.error) throw new Refused(line.error.status, line.error.detail);
        report = line.report ?? null;
      }
      if (!report) throw new Cut();
      this.change({ outcome: { report, guess, body }, run: null });
    } catch (wrong) {
      if (!own.signal.aborted) this.change({ error: inWords(wrong as Error), run: null });
    }
  }

  stop(): void {
    this.aborter?.abort();
    this.change({ run: null, said: "Stopped. Nothing is left of it; run it again when you like." });
  }

  /** Say what is wrong before anything is run, or with null that nothing is. */
  fail(error: Error | null): void {
    this.change({ error, said: "" });
  }

  private change(to: Partial<Pick<Measuring, "run" | "outcome" | "said" | "error">>): void {
    Object.assign(this, to);
    this.tell();
  }
}

/** Say what one can do about it here. */
function inWords(error: Error): Error {
  if (error instanceof Cut) return new Error(`${error.message} Nothing is left of this run: press Run once it is back.`);
  if (error instanceof Offline) {
    return new Error(`No answer from ${location.origin}. It may be starting again: what you chose is kept. Press Run once it is back.`);
  }
  if (error instanceof Refused && error.status === 503) return new Error(`Not now: ${error.message}`);
  return error;
}

const measuring = new Measuring();

/** The one run of this page; whoever calls this is drawn again as it goes on. */
export function useMeasuring(): Measuring {
  return useShared(measuring);
}
