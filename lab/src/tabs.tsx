// Tabs: Tab reaches the one that is chosen, arrow keys, Home and End choose another.
import { useRef } from "preact/hooks";
import "./tabs.css";

type Props<Name extends string> = {
  name: string;
  of: Record<Name, string>;
  chosen: Name;
  onChoose: (name: Name) => void;
  label: string;
};

/** What a key leads to: a number of places from the one that is chosen. */
function step(key: string, at: number, count: number): number | null {
  if (key === "ArrowRight") return (at + 1) % count;
  if (key === "ArrowLeft") return (at + count - 1) % count;
  if (key === "Home") return 0;
  return key === "End" ? count - 1 : null;
}

/** A row of tabs; the panel of each is labelled by the id `name-tab`, and has the id `name-tab-panel`. */
export function Tabs<Name extends string>({ name, of, chosen, onChoose, label }: Props<Name>) {
  const buttons = useRef<(HTMLButtonElement | null)[]>([]);
  const names = Object.keys(of) as Name[];
  return (
    <div
      role="tablist"
      aria-label={label}
      class="tabs"
      onKeyDown={(event) => {
        const to = step(event.key, names.indexOf(chosen), names.length);
        if (to === null) return;
        event.preventDefault();
        onChoose(names[to]!);
        buttons.current[to]?.focus();
      }}
    >
      {names.map((each, place) => (
        <button
          type="button"
          role="tab"
          key={each}
          id={`${name}-${each}`}
          aria-selected={each === chosen}
          aria-controls={each === chosen ? `${name}-${each}-panel` : undefined}
          tabIndex={each === chosen ? 0 : -1}
          ref={(button) => {
            buttons.current[place] = button;
          }}
          onClick={() => onChoose(each)}
        >
          {of[each]}
        </button>
      ))}
    </div>
  );
}
