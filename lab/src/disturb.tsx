// A text through a model, disturbed: how far the vector of every pooling moves.
import { useRef, useState } from "preact/hooks";
import { ask, type Info, Refused } from "./api";
import { ModelChoice, PoolingChoice, useModel, usePoolings } from "./choices";
import { Copies } from "./copy";
import { TextField } from "./field";
import { useKept } from "./kept";
import { useLatest } from "./latest";
import { Key, type Line, Lines } from "./lines";
import { Problem } from "./problem";
import { Slider } from "./slider";
import { curl, python } from "./snippets";
import "./disturb.css";

type Change = { noise: number; filler: number; swaps: number; replaced: number; keep: number; padding: number };
type Name = keyof Change;
type Outcome = {
  text: string;
  tokens: number;
  padding: number;
  truncated: boolean;
  cosines: number[];
  without_mask: number | null;
};
type Perturbed = { model: string; limit: number; tokens: number; poolings: string[]; changes: Outcome[] };
type Body = { text: string; pooling: string[]; changes: Partial<Change>[]; model: string; input_type?: string; truncate: boolean };
type Asked = { of: Omit<Body, "changes">; set: Change; swept: Name; most: number };
type Answer = { found: Perturbed; x: number[]; set: Change; swept: Name };

const NOTHING: Change = { noise: 0, filler: 0, swaps: 0, replaced: 0, keep: 1, padding: 0 };
const EXAMPLE = "The old mill by the pond grinds no more grain, but on Sundays the wheel still turns for guests.";
const SLIDERS: Record<Name, { title: string; most: number; step: number; hint: string }> = {
  noise: { title: "Noise in states", most: 2, step: 0.05, hint: "Added to each token's state; at 1 it is as large as the states are." },
  filler: { title: "Filler sentences", most: 16, step: 1, hint: "Appended to the text; they say nothing in particular." },
  swaps: { title: "Swapped words", most: 64, step: 1, hint: "How many words change places with the next one." },
  replaced: { title: "Replaced tokens", most: 1, step: 0.05, hint: "Share of the tokens that another one stands in for, or that are dropped." },
  keep: { title: "Kept share", most: 1, step: 0.05, hint: "Of the text's tokens; its end is cut off." },
  padding: { title: "Padding tokens", most: 256, step: 4, hint: "Behind the text, as beside a longer one. Only the mask keeps them out." },
};
const NAMES = Object.keys(SLIDERS) as Name[];
const POINTS = 9;
const WITHOUT_MASK = "mean, mask forgotten";

function words(text: string): number {
  return text.split(/\s+/).filter(Boolean).length;
}

/** Places from 0 to the most, evenly, and the one that is set. */
function places(of: Asked, points: number): number[] {
  const { step } = SLIDERS[of.swept];
  const even = Array.from({ length: points }, (_, place) => (of.most * place) / (points - 1));
  const rounded = even.map((value) => Number((Math.round(value / step) * step).toFixed(4)));
  return [...new Set([...rounded, of.set[of.swept]])].sort((one, other) => one - other);
}

/** What of a change is a change. */
function told(change: Change): Partial<Change> {
  return Object.fromEntries(NAMES.filter((name) => change[name] !== NOTHING[name]).map((name) => [name, change[name]]));
}

/** A request for what is set, and for these places of the slider that was touched last. */
function bodyOf(asked: Asked, x: number[]): Body {
  const along = x.map((value) => ({ ...asked.set, [asked.swept]: value }));
  return { ...asked.of, changes: [asked.set, ...along].map(told) };
}

export function Disturb({ info, tab }: { info: Info; tab: string }) {
  const [text, write] = useKept("disturb.text", EXAMPLE);
  const [kept, set] = useKept<Change>("disturb.change", NOTHING);
  const [swept, sweep] = useKept<Name>("disturb.swept", "noise");
  const [tries, setTries] = useState(0);
  const model = useModel(info);
  const poolings = usePoolings("disturb", model.model.pooling, ["cls", "max"]);
  const fits = useRef({ of: "", points: POINTS });

  const mostOf = (name: Name) => (name === "swaps" ? Math.min(Math.max(words(text) - 1, 1), 64) : SLIDERS[name].most);
  const change = { ...kept, swaps: Math.min(kept.swaps, mostOf("swaps")) };
  const of = { text, pooling: poolings.chosen, ...model.fields, truncate: true };
  const ready = text.trim() !== "" && poolings.chosen.length > 0;
  const asked: Asked = { of, set: change, swept, most: mostOf(swept) };
  const { answer, error, busy } = useLatest(ready ? { ...asked, tries } : null, async (input, signal): Promise<Answer> => {
    const about = JSON.stringify([input.of, input.swept]);
    if (fits.current.of !== about) fits.current = { of: about, points: POINTS };
    for (;;) {
      const x = places(input, fits.current.points);
      try {
        return { found: await ask<Perturbed>("perturb", bodyOf(input, x), signal), x, set: input.set, swept: input.swept };
      } catch (failed) {
        // So long a text fits fewer times into a request.
        if (!(failed instanceof Refused) || failed.status !== 413 || fits.current.points <= 2) throw failed;
        fits.current.points = Math.max(Math.floor(fits.current.points / 2), 2);
      }
    }
  });

  const sent = () => bodyOf(asked, places(asked, fits.current.points));
  return (
    <section role="tabpanel" id={`${tab}-panel`} aria-labelledby={tab} aria-busy={busy}>
      <p class="note">
        Disturb a text, or what the model makes of its tokens, and watch how far the vector of every pooling moves. A cosine of 1 is the
        undisturbed vector. All is computed by the service, with the model's own states.
      </p>
      <div class="controls">
        <TextField label="A text" rows={4} value={text} onWrite={write} />
        <div>
          <ModelChoice info={info} of={model} />
          <PoolingChoice info={info} of={poolings} model={model} />
        </div>
      </div>
      <div class="beside moved">
        <fieldset class="hinted">
          <legend>Disturb it</legend>
          {NAMES.map((name) => (
            <Slider
              key={name}
              name={SLIDERS[name].title}
              value={change[name]}
              most={mostOf(name)}
              step={SLIDERS[name].step}
              hint={SLIDERS[name].hint}
              onChange={(to) => {
                set({ ...change, [name]: to });
                sweep(name);
              }}
            />
          ))}
          <p>
            <button type="button" onClick={() => set(NOTHING)}>
              Undisturbed again
            </button>
          </p>
        </fieldset>
        <div>
          {text.trim() === "" && <p class="note">Write a text above, and see what each pooling makes of it.</p>}
          {poolings.chosen.length === 0 && <p class="note">Choose a pooling.</p>}
          {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
          {!answer && busy && <p class="note">Embedding …</p>}
          {answer && ready && <Moved answer={answer} />}
        </div>
      </div>
      {answer && ready && (
        <>
          <Read answer={answer} />
          <Copies of={{ curl: () => curl("perturb", sent()), Python: () => python("perturb", sent()) }} />
        </>
      )}
    </section>
  );
}

/** A chart over the range of a slider, and the numbers where it stands. */
function Moved({ answer }: { answer: Answer }) {
  const { found, x, set, swept } = answer;
  const [now, ...along] = found.changes;
  if (!now) return null;
  const lines: Line[] = found.poolings.map((name, place) => ({
    name,
    values: along.map((each) => each.cosines[place] ?? null),
  }));
  const padded = swept === "padding" || set.padding > 0;
  if (padded) lines.push({ name: WITHOUT_MASK, values: along.map((each) => each.without_mask), wrong: true });
  const title = SLIDERS[swept].title;
  return (
    <>
      <h3>Cosine to the undisturbed vector</h3>
      <Lines x={x} lines={lines} at={set[swept]} top={1} axis={title} label={`Cosine to the undisturbed vector, by ${title.toLowerCase()}`} />
      <p class="note">
        Over the whole range of the slider that you touched last, with the others as they are. The upright line is where it stands; the
        table has the numbers there. Each pooling has a scale of its own: any two texts may be at 0.7 under max or cls, and at 0.1 under mean. Look
        at the form of a curve, and not at which is higher.
      </p>
      <div class="scrolled" tabIndex={0} role="region" aria-label="Cosines at this setting">
        <table class="outputs">
          <thead>
            <tr>
              <th scope="col">pooling</th>
              <th scope="col">cosine</th>
            </tr>
          </thead>
          <tbody>
            {found.poolings.map((name, place) => (
              <tr key={name}>
                <th scope="row">
                  <Key place={place} />
                  {name}
                </th>
                <td>{(now.cosines[place] ?? 0).toFixed(3)}</td>
              </tr>
            ))}
            {padded && (
              <tr class="wrong">
                <th scope="row">
                  <Key place={found.poolings.length} wrong />
                  {WITHOUT_MASK}
                </th>
                <td>{now.without_mask === null ? "no number" : now.without_mask.toFixed(3)}</td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
      {set.padding > now.padding && (
        <p class="note">
          {now.padding} padding tokens were added: with the text they are the {found.limit} tokens that the model takes.
        </p>
      )}
    </>
  );
}

/** The disturbed text. */
function Read({ answer: { found } }: { answer: Answer }) {
  const [now] = found.changes;
  if (!now) return null;
  return (
    <>
      <h3>
        What the model reads{" "}
        <small>
          {now.tokens} of at most {found.limit} tokens{now.truncated && ", cut: what is beyond was not read"}
        </small>
      </h3>
      <div class="scrolled disturbed" tabIndex={0} role="region" aria-label="The disturbed text" dir="auto">
        {now.text}
      </div>
    </>
  );
}
