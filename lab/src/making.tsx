// One's own texts as scratch collections, one for each chosen pooling.
import { useEffect, useState } from "preact/hooks";
import type { Info } from "./api";
import { textOf, Unreadable } from "./cells";
import { ModelChoice, PoolingChoice, useModel, usePoolings } from "./choices";
import { type Doc, firstLines, MOST_CHARACTERS, MOST_TEXTS, ofFile, ofTable, type Read, type Table, tooLarge } from "./intake";
import { useKept } from "./kept";
import { Problem } from "./problem";
import { type Cut, CUTS, useScratch, type Wanted } from "./scratch";

const MOST_MADE = 8; // collections at once
const LONG = 100_000; // characters that a field for text takes without trouble

/** A file, or what was pasted and is too long for a field. */
type Given = { name: string; read: Read };

type Props = { info: Info; onMade: (names: string[]) => void };

export function Making({ info, onMade }: Props) {
  const scratch = useScratch();
  const model = useModel(info);
  const poolings = usePoolings("search", model.model.pooling, ["cls", "max"]);
  const [cuts, setCuts] = useKept<Cut[]>("search.cuts", ["whole"]);
  const [written, write] = useKept("search.written", "");
  const [given, give] = useKept<Given | null>("search.given", null);
  const [column, setColumn] = useKept<string | null>("search.column", null);
  const [fault, setFault] = useState<string | null>(null);
  const [over, setOver] = useState(false);

  const take = (name: string, content: string) => {
    const much = tooLarge(content.length);
    if (much) return setFault(much);
    try {
      const read = ofFile(name, content);
      setColumn("table" in read ? read.table.field : null);
      give({ name, read });
      setFault(null);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      give(null);
      setFault(error.message);
    }
  };
  const choose = async (file: File | undefined) => {
    if (!file) return;
    const much = tooLarge(file.size);
    if (much) setFault(much);
    else {
      try {
        take(file.name, await textOf(file));
      } catch (error) {
        give(null);
        setFault((error as Error).message);
      }
    }
  };
  useEffect(() => {
    const stay = (event: DragEvent) => event.preventDefault(); // a file beside the field must not replace the page
    for (const kind of ["dragover", "drop"] as const) addEventListener(kind, stay);
    return () => {
      for (const kind of ["dragover", "drop"] as const) removeEventListener(kind, stay);
    };
  }, []);

  const { docs, count, said } = docsOf(given, column, written);
  const wanted: Wanted[] = cuts.flatMap((cut) => poolings.chosen.map((pooling) => ({ model: model.name, pooling, cut })));
  const missing =
    fault ??
    said ??
    (count > MOST_TEXTS
      ? `${many(count, given)} texts are given, and the page takes ${MOST_TEXTS.toLocaleString("en")}. Take the first ones, or store all with “millpond index FILE --collection NAME” and choose that collection above.`
      : !poolings.chosen.length || !cuts.length
        ? "Choose at least one pooling, and whole texts or chunks."
        : wanted.length > MOST_MADE
          ? `This would be ${wanted.length} collections, and the page makes ${MOST_MADE} at once. Choose fewer poolings.`
          : null);
  const make = (few: Doc[]) => void scratch.fill(few, wanted, onMade);
  const running = scratch.filling?.state === "running";
  return (
    <>
      <p class="note">
        Each pooling becomes a collection of its own. They are deleted when you close the page, or ten minutes after it is gone.
      </p>
      <div class="controls">
        <div
          class={over ? "intake over" : "intake"}
          onDragOver={() => setOver(true)}
          onDragLeave={() => setOver(false)}
          onDrop={(event) => {
            setOver(false);
            void choose(event.dataTransfer?.files[0]);
          }}
        >
          {given ? (
            <p>
              <bdi>{given.name}</bdi>{" "}
              <button type="button" onClick={() => give(null)}>
                Take it out
              </button>
            </p>
          ) : (
            <label>
              Texts to search in, one a line
              <textarea
                rows={5}
                value={written}
                dir="auto"
                onInput={(event) => {
                  setFault(null);
                  write(event.currentTarget.value);
                }}
                onPaste={(event) => {
                  const pasted = event.clipboardData?.getData("text/plain") ?? "";
                  if (pasted.length <= LONG) return;
                  event.preventDefault();
                  take("what you pasted", pasted);
                }}
              />
            </label>
          )}
          <label>
            Or a file: CSV with a header, JSON lines or plain lines, up to {MOST_TEXTS.toLocaleString("en")} texts and {MOST_CHARACTERS / 1e6} MB{" "}
            <input
              type="file"
              accept=".csv,.tsv,.jsonl,.ndjson,.json,.txt,text/*"
              onChange={(event) => {
                void choose(event.currentTarget.files?.[0]);
                event.currentTarget.value = "";
              }}
            />
          </label>
          {given && "table" in given.read && (
            <label>
              Column with the texts{" "}
              <select value={column ?? ""} onChange={(event) => setColumn(event.currentTarget.value || null)}>
                <option value="">choose one</option>
                {given.read.table.names.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
          )}
        </div>
        <div>
          <ModelChoice info={info} of={model} roles={false} />
          <PoolingChoice info={info} of={poolings} model={model} />
          <fieldset>
            <legend>What gets a vector</legend>
            {(Object.keys(CUTS) as Cut[]).map((cut) => (
              <label key={cut} class="choice">
                <input
                  type="checkbox"
                  checked={cuts.includes(cut)}
                  onChange={() => setCuts(cuts.includes(cut) ? cuts.filter((one) => one !== cut) : [...cuts, cut])}
                />
                {CUTS[cut]}
              </label>
            ))}
            <p class="note">A chunk is a sentence. Late: read within its text. Early: read by itself.</p>
          </fieldset>
        </div>
      </div>
      {missing && (
        <p class={fault ? "problem" : "note"} role={fault ? "alert" : undefined}>
          {missing}
        </p>
      )}
      <p class="copies">
        <button type="button" disabled={missing !== null || running} onClick={() => make(docs)}>
          {missing === null ? `Make ${wanted.length} ${wanted.length === 1 ? "collection" : "collections"} of ${count} ${count === 1 ? "text" : "texts"}` : "Make collections"}
        </button>
        {count > MOST_TEXTS && wanted.length > 0 && (
          <button type="button" disabled={running} onClick={() => make(docs)}>
            Take the first {MOST_TEXTS.toLocaleString("en")}
          </button>
        )}
      </p>
    </>
  );
}

/** How far the filling is, what it waits for, and what it left out. */
export function Fill({ onKey }: { onKey: () => void }) {
  const scratch = useScratch();
  const filling = scratch.filling;
  if (!filling) return null;
  const { done, total, state, waiting, left, why, error } = filling;
  const ends = { running: "", stopped: "Stopped; what is stored can be searched. ", done: "Done. ", failed: "" };
  return (
    <div class="fill">
      <label>
        <span>
          {ends[state]}
          {done} of {total} texts stored
        </span>
        {state === "running" && <progress max={total} value={done} />}
      </label>
      {state === "running" && (
        <button type="button" onClick={() => scratch.stop()}>
          Stop
        </button>
      )}
      <output aria-live="polite">{waiting}</output>
      {left > 0 && (
        <p class="note">
          {left} {left === 1 ? "text was" : "texts were"} left out. The first: {why}
        </p>
      )}
      {error && <Problem error={error} onKey={onKey} />}
    </div>
  );
}

/** What is given as documents, how many there are, and what has to be done where there are none. */
function docsOf(given: Given | null, column: string | null, written: string): { docs: Doc[]; count: number; said: string | null } {
  const none = { docs: [], count: 0 };
  if (given && "docs" in given.read) return { ...given.read, said: null };
  if (given && "table" in given.read) {
    if (column === null) return { ...none, said: `No column is called text, sentence, body or content. Choose the column of ${given.name} that holds the texts.` };
    return ofColumn(given.read.table, column);
  }
  const much = tooLarge(written.length);
  if (much) return { ...none, said: much };
  const { docs, count } = firstLines(written);
  return { docs, count, said: count === 0 ? "Write or paste texts, or choose a file." : null };
}

function ofColumn(table: Table, column: string): { docs: Doc[]; count: number; said: string | null } {
  try {
    const docs = ofTable({ ...table, rows: table.rows.slice(0, MOST_TEXTS) }, column);
    return { docs, count: table.rows.length > MOST_TEXTS ? table.rows.length : docs.length, said: null };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { docs: [], count: 0, said: error.message };
  }
}

/** Tables are read no further than is needed to know that they have too many rows. */
function many(count: number, given: Given | null): string {
  return given && "table" in given.read ? `More than ${MOST_TEXTS.toLocaleString("en")}` : count.toLocaleString("en");
}
