// What outlives the panel that shows it: whoever shows it is drawn again when it tells of a change.
import { useEffect, useState } from "preact/hooks";

export class Shared {
  private readonly listeners = new Set<() => void>();

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  protected tell(): void {
    for (const listener of this.listeners) listener();
  }
}

export function useShared<Of extends Shared>(of: Of): Of {
  const [, draw] = useState(0);
  useEffect(() => of.listen(() => draw((count) => count + 1)), []);
  return of;
}
