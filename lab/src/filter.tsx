// A condition on metadata, as the API has it; and a row that writes the simplest one.
import { useState } from "preact/hooks";

export type Checked = { filter: object | null; fault: string | null };

/** Read a filter; what it means is checked by the service. */
export function checked(written: string): Checked {
  if (!written.trim()) return { filter: null, fault: null };
  try {
    const filter: unknown = JSON.parse(written);
    if (typeof filter !== "object" || filter === null || Array.isArray(filter))
      return { filter: null, fault: 'A filter is an object, such as {"year": {"$gte": 2020}}.' };
    return { filter, fault: null };
  } catch (error) {
    return { filter: null, fault: `This is no JSON yet: ${(error as Error).message}` };
  }
}

/** A name as a filter spells it, where dots lead into objects and a dollar begins an operator. */
function spelled(field: string): string {
  return field.replace(/[\\.]/g, "\\$&").replace(/^\$/, "\\$");
}

function valueOf(written: string): unknown {
  if (["true", "false", "null"].includes(written)) return JSON.parse(written);
  return written !== "" && String(Number(written)) === written && Number.isFinite(Number(written)) ? Number(written) : written;
}

type Props = { written: string; fault: string | null; onWrite: (filter: string) => void; fields: string[] };

export function Filter({ written, fault, onWrite, fields }: Props) {
  const [open] = useState(written !== "");
  const add = (field: string, value: string) => {
    const { filter } = checked(written);
    onWrite(JSON.stringify({ ...filter, [field]: valueOf(value) }));
  };
  return (
    <details class="filter" open={open}>
      <summary>Filter{written.trim() && !fault && " (in use)"}</summary>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const { field, value } = event.currentTarget.elements as unknown as Record<string, HTMLInputElement>;
          if (field!.value.trim()) add(field!.value.trim(), value!.value.trim());
        }}
      >
        <label>
          Field <input name="field" list="search-fields" spellcheck={false} />
        </label>
        <datalist id="search-fields">
          {fields.map((field) => (
            <option key={field} value={spelled(field)} />
          ))}
        </datalist>
        <label>
          is <input name="value" aria-label="Value of the field" />
        </label>
        <button type="submit" disabled={fault !== null}>
          Add to the filter
        </button>
      </form>
      <label>
        Condition on metadata, as JSON
        <textarea
          rows={2}
          spellcheck={false}
          value={written}
          aria-invalid={fault !== null}
          aria-describedby={fault ? "filter-fault" : undefined}
          onInput={(event) => onWrite(event.currentTarget.value)}
        />
      </label>
      {fault && (
        <p class="problem" id="filter-fault">
          {fault}
        </p>
      )}
    </details>
  );
}
