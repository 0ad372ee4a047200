// What one has written and chosen on a panel, which is there when one comes back to it, until the page is closed.
import { type Dispatch, type StateUpdater, useState } from "preact/hooks";

const kept = new Map<string, unknown>();

/** State as of `useState` that outlives its panel, under a name of its own. */
export function useKept<Value>(name: string, first: Value): [Value, Dispatch<StateUpdater<Value>>] {
  const [value, set] = useState<Value>(kept.has(name) ? (kept.get(name) as Value) : first);
  kept.set(name, value);
  return [value, set];
}
