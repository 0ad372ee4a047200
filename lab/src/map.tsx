// A map: texts in two dimensions, as each pooling places them.
import { useEffect, useState } from "preact/hooks";
import { ask, type Info } from "./api";
import { ModelChoice, PoolingChoice, useModel, usePoolings } from "./choices";
import { type Collection, listed, madeWith } from "./collections";
import { Copies } from "./copy";
import { EXAMPLES } from "./examples";
import { TextField } from "./field";
import type { Place } from "./geometry";
import { useKept } from "./kept";
import { useLatest } from "./latest";
import { Problem } from "./problem";
import { Scatter } from "./scatter";
import { useScratch } from "./scratch";
import { curl, python, yaml } from "./snippets";
import { lines } from "./texts";
import "./map.css";

const MOST_TEXTS = 2_000;
const LISTED = 500; // texts of a collection that are embedded anew
const STORED = "as stored";

type Plane = { points: Place[]; explained: [number, number] };
type View = Plane & { pooling: string };
type Projected = { model: string; views: View[] };
type OfCollection = Plane & { total: number; ids: string[]; spans?: [number, number][] };
type Listed = { documents: { id: string; text: string }[] };
type Shown = { views: View[]; texts: string[]; note: string };

export function Projection({ info }: { info: Info }) {
  const [source, setSource] = useKept("map.source", "");
  const [written, write] = useKept("map.written", EXAMPLES.map((example) => example.text).join("\n"));
  const [anew, setAnew] = useKept("map.anew", false);
  const scratch = useScratch();
  const [found, setFound] = useState<Collection[]>([]);
  const collections = found.filter((each) => !scratch.ofAnother(each));
  const [tries, setTries] = useState(0);
  const model = useModel(info);
  const poolings = usePoolings("map", model.model.pooling, ["max", "cls"]);
  const [view, setView] = useKept("map.view", "");
  useEffect(() => {
    const aborter = new AbortController();
    listed(aborter.signal).then(setFound, () => setFound([])); // a key that may not search still has texts to write
    return () => aborter.abort();
  }, [tries]);

  const named = collections.some((each) => each.name === source) ? source : "";
  const texts = named ? [] : lines(written);
  const fields = { pooling: poolings.chosen, ...model.fields, truncate: true };
  const embedded = !named || anew;
  const enough = named ? true : texts.length > 1 && texts.length <= MOST_TEXTS;
  const ready = enough && (!embedded || poolings.chosen.length > 0);
  const { answer, error, busy } = useLatest(ready ? { named, anew, texts, fields, tries } : null, (input, signal) =>
    input.named ? ofCollection(input.named, input.anew ? input.fields : null, signal) : ofTexts(input.texts, input.fields, signal),
  );
  const current = answer?.views.find((each) => each.pooling === view) ?? answer?.views[0];
  const [path, body] = named && !anew ? [`collections/${named}/project`, {}] : ["project", { texts: answer?.texts ?? texts, ...fields }];

  return (
    <section aria-labelledby="map-title" aria-busy={busy}>
      <h2 id="map-title">Map</h2>
      <p class="note">
        Texts as points: those that a pooling makes alike lie close together. A vector has hundreds of numbers, and two are left of them here, its
        principal components (PCA), in which the vectors lie furthest apart.
      </p>
      <div class="controls">
        <div>
          {collections.length > 0 && (
            <label>
              Show{" "}
              <select value={named} onChange={(event) => setSource(event.currentTarget.value)}>
                <option value="">texts that I write</option>
                {collections.map((each) => (
                  <option key={each.name} value={each.name}>
                    {madeWith(each, info)}: {each.count} documents in {each.name}
                  </option>
                ))}
              </select>
            </label>
          )}
          {!named && (
            <TextField label="Texts, one a line" rows={6} value={written} onWrite={write} />
          )}
          {named && (
            <label class="choice">
              <input type="checkbox" checked={anew} onChange={() => setAnew(!anew)} /> under other poolings: embed its first {LISTED} texts anew
            </label>
          )}
          {embedded && <ModelChoice info={info} of={model} />}
        </div>
        {embedded && <PoolingChoice info={info} of={poolings} model={model} />}
      </div>
      {!named && texts.length < 2 && <p class="note">Write two texts or more, one a line.</p>}
      {texts.length > MOST_TEXTS && (
        <p class="note">
          {texts.length.toLocaleString("en")} lines are written, and {MOST_TEXTS.toLocaleString("en")} texts are shown at once. Take some out, or store them in
          a collection with <code>millpond index</code>, and choose it here.
        </p>
      )}
      {embedded && poolings.chosen.length === 0 && <p class="note">Choose a pooling.</p>}
      {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
      {!answer && busy && <p class="note">Embedding …</p>}
      {answer && ready && current && (
        <>
          <fieldset class="views">
            <legend>As seen by</legend>
            {answer.views.map((each) => (
              <label key={each.pooling} class="choice">
                <input type="radio" name="view" checked={each === current} onChange={() => setView(each.pooling)} /> {each.pooling}
              </label>
            ))}
          </fieldset>
          <p class="note">
            {answer.note} {seen(current.explained)}
          </p>
          <Chosen key={answer.texts.join("\n")} view={current} texts={answer.texts} />
          <Copies
            of={{
              curl: () => curl(path, body),
              Python: () => python(path, body),
              ...(embedded && !model.model.routes ? { YAML: () => yaml(model.name, model.model.encoder, current.pooling) } : {}),
            }}
          />
        </>
      )}
    </section>
  );
}

/** The picture, and the texts that are chosen in it. */
function Chosen({ view, texts }: { view: View; texts: string[] }) {
  const [chosen, choose] = useState<ReadonlySet<number>>(new Set());
  if (texts.length === 0) return <p class="note">There is no text here yet.</p>;
  const found = [...chosen].sort((a, b) => a - b).map((number) => texts[number] ?? "");
  return (
    <div class="map">
      <div>
        <Scatter places={view.points} texts={texts} label={`Texts as ${view.pooling} places them`} chosen={chosen} onChoose={choose} />
        <p class="note">
          Draw around points to list them; Shift adds to what is listed. By keyboard: arrow keys go from point to point, Enter chooses one, N it and
          the nine nearest to it in this picture, Escape none.
        </p>
      </div>
      <div class="list">
        <h3>{found.length === 1 ? "1 text chosen" : `${found.length} texts chosen`}</h3>
        {found.length > 0 && (
          <>
            <Copies of={{ text: () => found.join("\n") }} />
            <button type="button" onClick={() => choose(new Set())}>
              Choose none
            </button>
            <ol tabIndex={0} aria-label="Texts chosen">
              {found.map((text, place) => (
                <li key={place}>
                  <bdi>{text}</bdi>
                </li>
              ))}
            </ol>
          </>
        )}
      </div>
    </div>
  );
}

async function ofTexts(texts: string[], fields: object, signal: AbortSignal): Promise<Shown> {
  const { views } = await ask<Projected>("project", { texts, ...fields }, signal);
  return { views, texts, note: `${texts.length.toLocaleString("en")} texts.` };
}

/** Documents by their stored vectors, or with `fields` some of their texts embedded anew. */
async function ofCollection(name: string, fields: object | null, signal: AbortSignal): Promise<Shown> {
  const path = `collections/${encodeURIComponent(name)}`;
  if (fields) {
    const { documents } = await ask<Listed>(`${path}/documents/list`, { limit: LISTED, include: ["text"] }, signal);
    const texts = documents.map((each) => each.text).filter((text) => text.trim());
    if (texts.length < 2) return { views: [{ pooling: STORED, points: [], explained: [0, 0] }], texts: [], note: "Its documents have no texts." };
    return ofTexts(texts, fields, signal);
  }
  const found = await ask<OfCollection>(`${path}/project`, {}, signal);
  const { documents } = found.ids.length
    ? await ask<Listed>(`${path}/documents/get`, { ids: [...new Set(found.ids)], include: ["text"] }, signal)
    : { documents: [] };
  const byId = new Map(documents.map((each) => [each.id, each.text]));
  const texts = found.ids.map((id, at) => {
    const [start, end] = found.spans?.[at] ?? [0, undefined];
    return [...(byId.get(id) ?? "")].slice(start, end).join("").trim() || id;
  });
  const of = found.total > new Set(found.ids).size ? `The first ${new Set(found.ids).size} of ${found.total.toLocaleString("en")} documents.` : "";
  return { views: [{ ...found, pooling: STORED }], texts, note: of || `${found.total.toLocaleString("en")} documents.` };
}

/** How much of the truth the picture is. */
function seen([across, up]: [number, number]): string {
  if (across + up === 0) return "Their vectors are all the same.";
  const rest = 100 - Math.round(100 * across) - Math.round(100 * up);
  return `The two axes show ${share(across)} and ${share(up)} of what sets these vectors apart (variance); ${rest} % is not to be seen here, so take distances as rough.`;
}

function share(of: number): string {
  return `${Math.round(100 * of)} %`;
}
