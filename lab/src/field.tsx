// A field for texts. Browsers stand still over millions of characters in one, so it refuses them before they are in it.
import { useState } from "preact/hooks";

const MOST = 200_000; // characters

type Props = { label: string; value: string; rows: number; onWrite: (written: string) => void };

export function TextField({ label, value, rows, onWrite }: Props) {
  const [refused, refuse] = useState(0);
  const fits = (characters: number) => {
    refuse(characters > MOST ? characters : 0);
    return characters <= MOST;
  };
  return (
    <div>
      <label class="wide">
        {label}
        <textarea
          rows={rows}
          value={value}
          dir="auto"
          onInput={(event) => {
            const field = event.currentTarget;
            if (fits(field.value.length)) onWrite(field.value);
            else field.value = value;
          }}
          onPaste={(event) => {
            const pasted = event.clipboardData?.getData("text/plain").length ?? 0;
            if (!fits(pasted)) event.preventDefault();
          }}
        />
      </label>
      {refused > 0 && (
        <p role="alert" class="problem">
          That has {refused.toLocaleString("en")} characters, and this field takes {MOST.toLocaleString("en")}: it is as it was before. Paste a part of it, or store all of it in a
          collection with <code>millpond index</code>.
        </p>
      )}
    </div>
  );
}
