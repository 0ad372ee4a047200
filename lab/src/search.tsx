// Search the same texts under several poolings at once: one column each, and which documents move.
import { useMemo, useState } from "preact/hooks";
import { ask, type Info, Offline, Refused } from "./api";
import { type Collection, type Hits, listed, madeWith, pathOf } from "./collections";
import { Copies } from "./copy";
import { EXAMPLE_QUERY, EXAMPLES } from "./examples";
import { checked, Filter } from "./filter";
import { type Column, Columns } from "./hits";
import { useKept } from "./kept";
import { useLatest } from "./latest";
import { Fill, Making } from "./making";
import { Problem } from "./problem";
import { useScratch } from "./scratch";
import { curl, python, yaml } from "./snippets";
import "./search.css";

const MODES = { dense: "by meaning (dense)", keyword: "by words (keyword)", hybrid: "by both (hybrid)" } as const;
type Mode = keyof typeof MODES;
const MOST_HITS = 50; // in a column
const MOST_COLUMNS = 8;

type Body = { query: string; k: number; mode?: Mode; filter?: object; truncate: boolean };
type Found = Hits | { refused: string; status: number };

export function Search({ info }: { info: Info }) {
  const scratch = useScratch();
  const [chosen, choose] = useKept<string[]>("search.chosen", []);
  const [query, setQuery] = useKept("search.query", "");
  const [mode, setMode] = useKept<Mode>("search.mode", "dense");
  const [k, setK] = useKept("search.k", "10");
  const [grouped, setGrouped] = useKept("search.grouped", true);
  const [filter, setFilter] = useKept("search.filter", "");
  const [copied, setCopied] = useState(0);
  const [tries, setTries] = useState(0);
  const again = () => setTries((count) => count + 1);

  const all = useLatest({ tries, version: scratch.version }, (_, signal) => listed(signal));
  const known = (all.answer ?? []).filter((one) => !scratch.ofAnother(one));
  const columns = chosen.flatMap((name) => known.filter((one) => one.name === name)).slice(0, MOST_COLUMNS);
  const chunked = columns.some((one) => one.chunking);
  const condition = useMemo(() => checked(filter), [filter]);
  const hits = Number(k);
  const rightK = Number.isInteger(hits) && hits >= 1 && hits <= MOST_HITS;

  const body: Body = {
    query,
    k: hits,
    ...(mode === "dense" ? {} : { mode }),
    ...(condition.filter ? { filter: condition.filter } : {}),
    truncate: true,
  };
  const bodyOf = (one: Collection) => (one.chunking && grouped ? { ...body, group: "document" } : body);
  const ready = query.trim() !== "" && rightK && !condition.fault && columns.length > 0;
  const asked = columns.map((one) => ({ name: one.name, body: bodyOf(one) }));
  const found = useLatest(ready ? { asked, tries, version: scratch.version } : null, async (input, signal) =>
    Promise.all(
      input.asked.map(async (one): Promise<Found & { name: string }> => {
        try {
          return { name: one.name, ...(await ask<Hits>(pathOf(one.name, "/search"), one.body, signal)) };
        } catch (error) {
          if (!(error instanceof Refused) || error.status === 401) throw error;
          return { name: one.name, refused: error.message, status: error.status };
        }
      }),
    ),
  );
  const answers = found.answer ?? [];
  const shown: Column[] = columns.flatMap((collection) => {
    const answer = answers.find((one) => one.name === collection.name);
    if (!answer) return [];
    const heading = madeWith(collection, info);
    return [{ collection, heading, ...("hits" in answer ? { hits: answer.hits, warnings: answer.warnings ?? [], refused: "" } : { hits: [], warnings: [], refused: answer.refused }) }];
  });
  // What is said of every column in the same words is said once.
  const refusals = new Set(shown.map((one) => one.refused));
  const common = shown.length > 0 && refusals.size === 1 ? [...refusals][0]! : "";
  const status = answers.find((one) => "refused" in one);
  const fields = [...new Set(shown.flatMap((one) => one.hits.flatMap((hit) => Object.keys(hit.metadata))))];
  const taken = columns[Math.min(copied, columns.length - 1)];
  const served = taken?.model ? info.models[taken.model] : undefined;

  const tryExamples = () => {
    const model = info.default_model;
    const poolings = [...new Set([info.models[model]!.pooling, "cls", "max"])];
    void scratch.fill(EXAMPLES, poolings.map((pooling) => ({ model, pooling, cut: "whole" })), (names) => {
      choose(names);
      setQuery((before) => before || EXAMPLE_QUERY);
    });
  };

  return (
    <section aria-labelledby="search-title" aria-busy={found.busy || (all.busy && !all.answer)}>
      <h2 id="search-title">Search</h2>
      <p class="note">
        Ask the same texts under several poolings at once. Each collection becomes a column, and you see which documents move.
      </p>
      {all.error && <Problem error={all.error} onKey={again} />}
      <div class="sources">
        <fieldset class="known">
          <legend>Collections to search</legend>
          {all.answer && !known.length && <p class="note">There is no collection yet. Try it with examples, or make some of your own texts.</p>}
          {!all.answer && !all.error && <p class="note">Asking for collections …</p>}
          <div class="list">
            {known.map((one) => (
              <Choice
                key={one.name}
                of={one}
                info={info}
                chosen={chosen.includes(one.name)}
                full={columns.length >= MOST_COLUMNS}
                onChoose={() => choose(chosen.includes(one.name) ? chosen.filter((name) => name !== one.name) : [...chosen, one.name])}
              />
            ))}
          </div>
          <p class="copies">
            <button type="button" disabled={scratch.filling?.state === "running"} onClick={tryExamples}>
              Try it with examples
            </button>
            {scratch.names.length > 0 && (
              <button type="button" onClick={() => void scratch.drop(...scratch.names).catch(again)}>
                Delete all that this page made
              </button>
            )}
          </p>
        </fieldset>
        <details>
          <summary>Your own texts</summary>
          <Making info={info} onMade={choose} />
        </details>
        <Fill onKey={again} />
      </div>
      <form
        class="ask"
        role="search"
        onSubmit={(event) => {
          event.preventDefault();
          again();
        }}
      >
        <label class="query">
          Query <input type="search" dir="auto" value={query} onInput={(event) => setQuery(event.currentTarget.value)} />
        </label>
        <label>
          Search{" "}
          <select value={mode} onChange={(event) => setMode(event.currentTarget.value as Mode)}>
            {(Object.keys(MODES) as Mode[]).map((one) => (
              <option key={one} value={one}>
                {MODES[one]}
              </option>
            ))}
          </select>
        </label>
        <label>
          Hits <input type="number" min={1} max={MOST_HITS} value={k} onInput={(event) => setK(event.currentTarget.value)} />
        </label>
        {chunked && (
          <label>
            <input type="checkbox" checked={grouped} onChange={() => setGrouped(!grouped)} /> each document once, by its best chunk
          </label>
        )}
      </form>
      <Filter written={filter} fault={condition.fault} onWrite={setFilter} fields={fields} />
      {!rightK && <p class="note">Ask for 1 to {MOST_HITS} hits.</p>}
      {mode === "keyword" && <p class="note">Words are looked for without vectors: poolings make no difference here.</p>}
      {columns.length === 0 && known.length > 0 && <p class="note">Choose one or several collections above.</p>}
      {columns.length > 0 && !query.trim() && <p class="note">Write a query.</p>}
      {chosen.length > MOST_COLUMNS && <p class="note">The first {MOST_COLUMNS} of {chosen.length} chosen collections are shown.</p>}
      {found.error && !(found.error instanceof Offline && all.error) && <Problem error={found.error} onKey={again} />}
      {common && <Problem error={new Refused(status && "status" in status ? status.status : 0, common)} onKey={again} />}
      {found.busy && !found.answer && <p class="note">Searching …</p>}
      {ready && !common && shown.length > 0 && taken && (
        <>
          <div class="take">
            <Copies
              of={{
                curl: () => curl(pathOf(taken.name, "/search"), bodyOf(taken)),
                Python: () => python(pathOf(taken.name, "/search"), bodyOf(taken)),
                // A model with routes has two encoders, and its folder is not told.
                ...(served && !served.routes ? { YAML: () => yaml(taken.model!, served.encoder, taken.pooling!) } : {}),
              }}
            />
            {columns.length > 1 && (
              <label>
                for column{" "}
                <select value={String(columns.indexOf(taken))} onChange={(event) => setCopied(Number(event.currentTarget.value))}>
                  {columns.map((one, place) => (
                    <option key={one.name} value={String(place)}>
                      {place + 1}: {madeWith(one, info)}
                    </option>
                  ))}
                </select>
              </label>
            )}
          </div>
          <Columns columns={shown} query={query} mode={mode} info={info} />
        </>
      )}
    </section>
  );
}

function minutes(seconds: number): string {
  return seconds % 60 ? `${seconds} s` : `${seconds / 60} min`;
}

type ChoiceProps = { of: Collection; info: Info; chosen: boolean; full: boolean; onChoose: () => void };

function Choice({ of, info, chosen, full, onChoose }: ChoiceProps) {
  const scratch = useScratch();
  const [error, setError] = useState<Error | null>(null);
  return (
    <div class="collection">
      <label>
        <input type="checkbox" checked={chosen} disabled={full && !chosen} onChange={onChoose} /> <b>{madeWith(of, info)}</b>{" "}
        <small>
          {of.count} {of.count === 1 ? "document" : "documents"} in <bdi>{of.name}</bdi>
          {of.idle_timeout && `, deleted after ${minutes(of.idle_timeout)} without use`}
        </small>
      </label>
      {scratch.has(of.name) && (
        <button type="button" aria-label={`Delete ${of.name}`} onClick={() => void scratch.drop(of.name).catch(setError)}>
          Delete
        </button>
      )}
      {error && <Problem error={error} onKey={() => setError(null)} />}
    </div>
  );
}
