// Requests of which only the latest counts: the one under way is aborted, and no more than one waits.
import { useEffect, useRef, useState } from "preact/hooks";
import { Offline } from "./api";

export type Latest<Answer> = { answer: Answer | null; error: Error | null; busy: boolean };

const PAUSE = 60; // milliseconds without a change before a request is sent
const AGAIN = 2_000; // milliseconds until a service that did not answer is asked again

/** Ask whenever `input` changes, as JSON; the answer before it stays until the next one comes. */
export function useLatest<Input, Answer>(
  input: Input | null,
  ask: (input: Input, signal: AbortSignal) => Promise<Answer>,
): Latest<Answer> {
  const [state, setState] = useState<Latest<Answer>>({ answer: null, error: null, busy: false });
  const [attempt, setAttempt] = useState(0);
  const asking = useRef(ask);
  asking.current = ask;
  const written = JSON.stringify(input);
  useEffect(() => {
    if (input === null) {
      setState({ answer: null, error: null, busy: false });
      return;
    }
    const aborter = new AbortController();
    let again = 0;
    setState((before) => ({ ...before, busy: true }));
    const waiting = window.setTimeout(async () => {
      try {
        const answer = await asking.current(input, aborter.signal);
        if (!aborter.signal.aborted) setState({ answer, error: null, busy: false });
      } catch (error) {
        if (aborter.signal.aborted) return;
        setState((before) => ({ ...before, error: error as Error, busy: false }));
        if (error instanceof Offline) again = window.setTimeout(() => setAttempt((count) => count + 1), AGAIN);
      }
    }, PAUSE);
    return () => {
      window.clearTimeout(waiting);
      window.clearTimeout(again);
      aborter.abort();
    };
  }, [written, attempt]);
  return state;
}
