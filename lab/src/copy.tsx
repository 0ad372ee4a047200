import { useState } from "preact/hooks";

const THINGS: Record<string, string> = { curl: "this request ", Python: "this request ", YAML: "this pooling " };
const TITLES: Record<string, string> = {
  curl: "A command that asks the service for what is shown",
  Python: "A program that asks the service for what is shown",
  YAML: "The lines of a config file that serve this pooling",
};

/** Buttons that copy texts, and say so. */
export function Copies({ of }: { of: Record<string, () => string> }) {
  const [said, say] = useState("");
  const copy = async (name: string, text: string) => {
    try {
      await navigator.clipboard.writeText(text);
      say(`Copied as ${name}.`);
    } catch {
      say(text); // a page that is not served over TLS or from this machine may not copy
    }
  };
  return (
    <div class="copies" role="group" aria-label="Take it with you">
      {Object.entries(of).map(([name, text]) => (
        <button type="button" key={name} onClick={() => copy(name, text())} title={TITLES[name]}>
          Copy {THINGS[name]}as {name}
        </button>
      ))}
      <output aria-live="polite">{said}</output>
    </div>
  );
}
