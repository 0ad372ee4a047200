// Token states that one writes, disturbs and masks, and what every strategy makes of them: the numbers of lessons.
import { useMemo, useState } from "preact/hooks";
import { ask } from "./api";
import { Copies } from "./copy";
import { GemCurve } from "./gem";
import { blocks, Grid, Windows } from "./grid";
import { useKept } from "./kept";
import { useLatest } from "./latest";
import { Plot, type Point } from "./plot";
import { Problem } from "./problem";
import { Slider } from "./slider";
import { curl, python } from "./snippets";
import { percent } from "./tokens";

type Row = { state: number[]; counts: boolean };
type Pooled = { pooling: string; vector: number[]; weights: number[] | number[][]; gradient: number[][] };
type Pools = { poolings: Pooled[] };
type Body = { states: number[][]; counts: boolean[]; pooling: string[]; query?: number[] };
type Answers = { disturbed: Pooled[]; clean: Pooled[]; unmasked: Pooled | null };

const GRID = [
  [0.2, 0.8, 0.1, 0.9],
  [0.5, 0.3, 0.7, 0.4],
  [0.6, 0.1, 0.3, 0.5],
  [0.4, 0.9, 0.2, 0.8],
];
const PIECES = (count: number) => [`piecewise(n=${count})`, `piecewise(n=${count}, by=mean)`];

const rows = (...states: number[][]): Row[] => states.map((state) => ({ state, counts: true }));

type Of = {
  rows: Row[];
  /** Poolings that the lesson speaks of, beside those that are always shown. */
  more?: string[];
  query?: number[];
  upstream?: number;
  /** Whether the tokens are the windows of a grid of four by four, one after the other. */
  grid?: boolean;
};

const LESSONS: Record<string, Of> = {
  "Four tokens in two dimensions": { rows: rows([0.5, 0.3], [0.8, -0.2], [0.1, 0.9], [-0.3, 0.5]), query: [0.7, -0.5] },
  "Three tokens and padding": {
    rows: [...rows([0.6, 0.4], [0.8, 0.2], [0.3, 0.7]), { state: [0.1, 0.05], counts: false }],
  },
  "Four tokens in three dimensions": {
    rows: rows([0.5, 0.3, -0.1], [0.8, -0.2, 0.4], [0.1, 0.9, 0.3], [-0.3, 0.5, 0.6]),
  },
  "A block and its gradients": { rows: rows([1.2], [0.5], [0.3], [2.7]), upstream: 0.5 },
  "Between the mean and the max": { rows: rows([1], [0.5], [2], [0.3]), more: ["gem(p=1)", "gem(p=10)"] },
  "A 4 × 4 grid with windows": { rows: rows(...blocks(GRID).map((number) => [number])), more: PIECES(4), grid: true },
  "Windows and segments": {
    rows: rows([0.2], [0.8], [0.1], [0.9]),
    more: ["window(2, 2, by=max) > mean", ...PIECES(2)],
  },
  "Six tokens in two segments": { rows: rows([0], [1], [2], [3], [4], [5]), more: PIECES(2) },
  "Seven tokens in two segments": { rows: rows([0], [1], [2], [3], [4], [5], [6]), more: PIECES(2) },
  "Nine numbers and their mean": { rows: rows(...[0.5, 0.2, 0.8, 0.1, 0.9, 0.3, 0.4, 0.6, 0.7].map((number) => [number])) },
  "One loud token among eight": { rows: rows([3], [0.1], [0.1], [0.1], [0.1], [0.1], [0.1], [0.1], [0.1]) },
  "Nine tokens that are all loud": {
    rows: rows(...[2.1, 1.8, 2.3, 1.9, 2.5, 2.0, 1.7, 2.2, 2.4].map((number) => [number])),
  },
};
const FIRST = Object.keys(LESSONS)[0]!;
const FILLER = 0.05; // of each number of a token that says nothing
const PADDED = 0.1;

/** The same numbers at every visit, from -1 to 1, so that one slider's place has one meaning. */
function jitter(place: number): number {
  const wave = Math.sin(12.9898 * (place + 1)) * 43758.5453;
  return 2 * (wave - Math.floor(wave)) - 1;
}

/** Noise on every token that counts, then tokens that say nothing, then padding. */
export function disturbed(of: Row[], noise: number, filler: number, padding: number): Row[] {
  const dim = of[0]?.state.length ?? 1;
  return [
    ...of.map(({ state, counts }, token) => ({
      counts,
      state: counts ? state.map((number, place) => number + noise * jitter(token * dim + place)) : state,
    })),
    ...Array.from({ length: filler }, () => ({ counts: true, state: Array<number>(dim).fill(FILLER) })),
    ...Array.from({ length: padding }, () => ({ counts: false, state: Array<number>(dim).fill(PADDED) })),
  ];
}

function cosine(one: number[], other: number[]): number {
  const dot = (a: number[], b: number[]) => a.reduce((sum, number, place) => sum + number * (b[place] ?? 0), 0);
  return dot(one, other) / (Math.sqrt(dot(one, one) * dot(other, other)) || 1);
}

async function asked(body: Body, clean: Body, signal: AbortSignal): Promise<Answers> {
  const pool = async (of: object) => (await ask<Pools>("pool", of, signal)).poolings;
  const masked = body.counts.includes(false);
  const [now, before, forgotten] = await Promise.all([
    pool(body),
    pool(clean),
    masked ? pool({ states: body.states, pooling: "mean" }) : [],
  ]);
  return { disturbed: now, clean: before, unmasked: forgotten[0] ?? null };
}

export function Lesson({ tab }: { tab: string }) {
  const [lesson, setLesson] = useKept("laboratory.lesson", FIRST);
  const [written, setWritten] = useKept("laboratory.written", LESSONS[FIRST]!.rows);
  const [noise, setNoise] = useKept("laboratory.noise", 0);
  const [filler, setFiller] = useKept("laboratory.filler", 0);
  const [padding, setPadding] = useKept("laboratory.padding", 0);
  const [power, setPower] = useKept("laboratory.power", 3);
  const [upstream, setUpstream] = useKept("laboratory.upstream", 1);
  const [angle, setAngle] = useKept("laboratory.angle", 324);
  const [sharpness, setSharpness] = useKept("laboratory.sharpness", 0.86);
  const [exact, setExact] = useKept<number[] | null>("laboratory.query", LESSONS[FIRST]!.query ?? null);
  const [tries, setTries] = useState(0);

  const dim = written[0]?.state.length ?? 1;
  const turnedQuery = useMemo(() => turned(angle, sharpness, dim), [angle, sharpness, dim]);
  const query = exact?.length === dim ? exact : turnedQuery; // a lesson's own until one turns it
  const { more = [], grid = false } = LESSONS[lesson]!;
  const poolings = ["mean", "max", "cls", "last", "weighted_mean", `gem(p=${power})`, "attention"];
  poolings.push(...more.filter((name) => !poolings.includes(name)));
  const bodyOf = (of: Row[]): Body => ({
    states: of.map((row) => row.state),
    counts: of.map((row) => row.counts),
    pooling: poolings,
    query,
  });
  const now = disturbed(written, noise, filler, padding);
  const ready = now.some((row) => row.counts);
  const body = bodyOf(now);
  const { answer, error, busy } = useLatest(ready ? { body, clean: bodyOf(written), tries } : null, (input, signal) =>
    asked(input.body, input.clean, signal),
  );

  const change = (token: number, to: Partial<Row>) =>
    setWritten(written.map((row, place) => (place === token ? { ...row, ...to } : row)));
  return (
    <section role="tabpanel" id={`${tab}-panel`} aria-labelledby={tab} aria-busy={busy}>
      <p class="note">
        Token states of your own, without a model: change a number, turn the query, add noise, filler and padding, and watch what every
        pooling makes of them. All is computed by the service's own poolings.
      </p>
      <div class="controls">
        <div>
          <label>
            Begin with{" "}
            <select
              value={lesson}
              onChange={(event) => {
                const chosen = LESSONS[event.currentTarget.value]!;
                setLesson(event.currentTarget.value);
                setWritten(chosen.rows);
                setExact(chosen.query ?? null);
                setUpstream(chosen.upstream ?? 1);
              }}
            >
              {Object.keys(LESSONS).map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <div class="scrolled" tabIndex={0} role="region" aria-label="Token states">
            {grid && written.length === 16 ? <Grid of={written.map((row) => row.state[0] ?? 0)} onChange={(token, to) => change(token, { state: [to] })} /> : <States of={written} onChange={change} />}
          </div>
          <p>
            <button
              type="button"
              onClick={() => setWritten([...written, { state: Array<number>(dim).fill(0), counts: true }])}
              disabled={written.length >= 32}
            >
              One token more
            </button>{" "}
            <button type="button" onClick={() => setWritten(written.slice(0, -1))} disabled={written.length < 2}>
              One less
            </button>
          </p>
        </div>
        <fieldset>
          <legend>Disturb it</legend>
          <Slider name="Noise" value={noise} most={1} step={0.01} onChange={setNoise} />
          <Slider name="Filler tokens" value={filler} most={16} step={1} onChange={setFiller} />
          <Slider name="Padding" value={padding} most={16} step={1} onChange={setPadding} />
          <Slider name="GeM's p" value={power} least={1} most={20} step={0.5} onChange={setPower} />
          <Slider name="Angle of attention's query" value={angle} most={359} step={1} unit="°" onChange={(to) => (setAngle(to), setExact(null))} />
          <Slider name="Length of attention's query" value={sharpness} most={20} step={0.02} onChange={(to) => (setSharpness(to), setExact(null))} />
          <Slider name="Error of the vector (upstream gradient)" value={upstream} most={2} step={0.1} onChange={setUpstream} />
        </fieldset>
      </div>
      {!ready && <p class="note">No token is in the mask, so there is nothing to pool. Tick one.</p>}
      {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
      {answer && ready && (
        <>
          <Copies of={{ curl: () => curl("pool", body), Python: () => python("pool", body) }} />
          <div class="beside">
            <div class="scrolled" tabIndex={0} role="region" aria-label="What the poolings give">
              <Outputs answers={answer} />
            </div>
            {dim === 2 && <Plot points={points(now, query, answer)} />}
          </div>
          {grid && noise + filler + padding === 0 && written.length === 16 && (
            <Windows
              most={vectorOf(answer.disturbed, "piecewise(n=4)")}
              mean={vectorOf(answer.disturbed, "piecewise(n=4, by=mean)")}
            />
          )}
          <h3>Weights and gradients</h3>
          <p class="note">
            The weight of each token in the pooled vector, as a mean over dimensions where each has its own. Below it the gradient: how much of an
            error of {upstream} in each number of the vector reaches each number of the token in training.
          </p>
          <div class="scrolled" tabIndex={0} role="region" aria-label="Weights and gradients">
            <Weights pooled={answer.disturbed} rows={now} own={written.length} upstream={upstream} />
          </div>
          <GemCurve states={body.states} counts={body.counts} power={power} tries={tries} onKey={() => setTries(tries + 1)} />
        </>
      )}
    </section>
  );
}

/** A query of this length; in two dimensions and more it is turned in the plane of the first two. */
function turned(angle: number, length: number, dim: number): number[] {
  const radians = (angle * Math.PI) / 180;
  const found = Array<number>(dim).fill(0);
  found[0] = length * Math.cos(radians);
  if (dim > 1) found[1] = length * Math.sin(radians);
  return found.map((number) => Math.round(1e6 * number) / 1e6);
}

function vectorOf(pooled: Pooled[], start: string): number[] {
  return pooled.find((each) => each.pooling === start)?.vector ?? [];
}

function points(of: Row[], query: number[], { disturbed, unmasked }: Answers): Point[] {
  const at = (vector: number[]): [number, number] => [vector[0] ?? 0, vector[1] ?? 0];
  return [
    ...of.map((row, place): Point => ({ at: at(row.state), kind: row.counts ? "token" : "masked", name: `${place + 1}` })),
    { at: at(query), kind: "query", name: "query" },
    ...disturbed
      .filter((each) => each.vector.length === 2)
      .map((each): Point => ({ at: at(each.vector), kind: "vector", name: each.pooling })),
    ...(unmasked ? [{ at: at(unmasked.vector), kind: "vector", name: "mean without the mask" } as Point] : []),
  ];
}

type StatesProps = { of: Row[]; onChange: (token: number, to: Partial<Row>) => void };

function States({ of, onChange }: StatesProps) {
  const dim = of[0]?.state.length ?? 1;
  return (
    <table class="states">
      <thead>
        <tr>
          <th scope="col">token</th>
          {Array.from({ length: dim }, (_, place) => (
            <th scope="col" key={place}>
              dim {place + 1}
            </th>
          ))}
          <th scope="col">in the mask</th>
        </tr>
      </thead>
      <tbody>
        {of.map((row, token) => (
          <tr key={token}>
            <th scope="row">{token + 1}</th>
            {row.state.map((number, place) => (
              <td key={place}>
                <input
                  type="number"
                  step="any"
                  required
                  value={number}
                  aria-label={`Token ${token + 1}, dim ${place + 1}`}
                  onInput={(event) => {
                    const to = event.currentTarget.valueAsNumber;
                    if (Number.isFinite(to)) {
                      onChange(token, { state: row.state.map((old, at) => (at === place ? to : old)) });
                    }
                  }}
                />
              </td>
            ))}
            <td>
              <input
                type="checkbox"
                checked={row.counts}
                aria-label={`Token ${token + 1} in the mask`}
                onChange={(event) => onChange(token, { counts: event.currentTarget.checked })}
              />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Outputs({ answers }: { answers: Answers }) {
  const unmasked = answers.unmasked;
  return (
    <table class="outputs">
      <thead>
        <tr>
          <th scope="col">pooling</th>
          <th scope="col">vector</th>
          <th scope="col">cosine to the undisturbed one</th>
        </tr>
      </thead>
      <tbody>
        {answers.disturbed.map((each, place) => (
          <tr key={each.pooling}>
            <th scope="row">{each.pooling}</th>
            <td>{numbers(each.vector)}</td>
            <td>{cosine(each.vector, answers.clean[place]?.vector ?? each.vector).toFixed(3)}</td>
          </tr>
        ))}
        {unmasked && (
          <tr class="wrong">
            <th scope="row">mean without the mask</th>
            <td>{numbers(unmasked.vector)}</td>
            <td>{cosine(unmasked.vector, answers.clean[0]?.vector ?? unmasked.vector).toFixed(3)}</td>
          </tr>
        )}
      </tbody>
    </table>
  );
}

function numbers(vector: number[]): string {
  return vector.map((number) => number.toFixed(3)).join("  ");
}

function mean(weight: number | number[]): number {
  return typeof weight === "number" ? weight : weight.reduce((sum, each) => sum + each, 0) / weight.length;
}

type WeightsProps = { pooled: Pooled[]; rows: Row[]; own: number; upstream: number };

function Weights({ pooled, rows: of, own, upstream }: WeightsProps) {
  return (
    <table class="weights">
      <thead>
        <tr>
          <th scope="col">token</th>
          {pooled.map((each) => (
            <th scope="col" key={each.pooling}>
              {each.pooling}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {of.map((row, token) => (
          <tr key={token}>
            <th scope="row">
              {token + 1} <small>{!row.counts ? "masked" : token >= own ? "filler" : ""}</small>
            </th>
            {pooled.map((each) => {
              const weight = mean(each.weights[token] ?? 0);
              return (
                <td key={each.pooling} style={{ "--share": String(Math.min(Math.max(weight, 0), 1)) }}>
                  {percent(weight)}
                  <small>{numbers((each.gradient[token] ?? []).map((number) => upstream * number))}</small>
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
