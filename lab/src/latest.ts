// Requests of which only the latest counts: one is under way, at most one waits, and what waited before it is dropped.
import { useEffect, useRef, useState } from "preact/hooks";
import { Offline, Refused } from "./api";

export type Latest<Answer> = { answer: Answer | null; error: Error | null; busy: boolean };

const PATIENCE = 300; // milliseconds after which a request is aborted for a later one; a quicker one is shown first
const AGAIN = 2_000; // milliseconds until a service that did not answer is asked again

/** Ask whenever `input` changes, as JSON; the answer before it stays until the next one comes. */
export function useLatest<Input, Answer>(
  input: Input | null,
  ask: (input: Input, signal: AbortSignal) => Promise<Answer>,
): Latest<Answer> {
  const [state, setState] = useState<Latest<Answer>>({ answer: null, error: null, busy: false });
  const line = useRef<Line<Input, Answer> | null>(null);
  line.current ??= new Line(setState);
  line.current.ask = ask;
  const written = JSON.stringify(input);
  useEffect(() => line.current?.next(input), [written]);
  useEffect(() => () => line.current?.close(), []);
  return state;
}

/** Whether it is the request that is wrong, so that the answer before it is none to it. */
function atFault(error: Error): boolean {
  return error instanceof Refused && error.status < 429;
}

type Tell<Answer> = (change: (before: Latest<Answer>) => Latest<Answer>) => void;

/** The request under way, and the one that waits for it. */
class Line<Input, Answer> {
  ask: (input: Input, signal: AbortSignal) => Promise<Answer> = () => Promise.reject();
  private aborter: AbortController | null = null;
  private begun = 0;
  private waiting: { input: Input } | null = null;
  private timer = 0;

  constructor(private readonly tell: Tell<Answer>) {}

  /** Ask for this from now on; for nothing where it is null. */
  next(input: Input | null): void {
    window.clearTimeout(this.timer);
    this.waiting = null;
    if (input === null) {
      this.aborter?.abort();
      this.tell(() => ({ answer: null, error: null, busy: false }));
      return;
    }
    this.tell((before) => ({ ...before, busy: true }));
    this.waiting = { input };
    if (this.aborter === null) void this.run();
    else this.timer = window.setTimeout(() => this.aborter?.abort(), this.begun + PATIENCE - performance.now());
  }

  /** Ask for nothing any more. */
  close(): void {
    window.clearTimeout(this.timer);
    this.waiting = null;
    this.aborter?.abort();
  }

  private async run(): Promise<void> {
    while (this.waiting !== null) {
      const { input } = this.waiting;
      this.waiting = null;
      const aborter = new AbortController();
      this.aborter = aborter;
      this.begun = performance.now();
      const found = await this.ask(input, aborter.signal).then(
        (answer) => ({ answer, error: null }),
        (error: Error) => (atFault(error) ? { answer: null, error } : { error }),
      );
      this.aborter = null;
      window.clearTimeout(this.timer);
      if (aborter.signal.aborted) continue;
      const busy = this.waiting !== null;
      this.tell((before) => ({ ...before, ...found, busy }));
      if (found.error instanceof Offline && !busy) this.timer = window.setTimeout(() => this.next(input), AGAIN);
    }
  }
}
