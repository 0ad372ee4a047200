// GeM's p from 1 to 20: from the mean towards the number that is largest in size, and who has a part in it.
import { useState } from "preact/hooks";
import { ask } from "./api";
import { useLatest } from "./latest";
import { type Line, Lines } from "./lines";
import { Problem } from "./problem";

type Pooled = { pooling: string; vector: number[]; weights: (number | number[])[] };
type Pools = { poolings: Pooled[] };
type Props = { states: number[][]; counts: boolean[]; power: number; tries: number; onKey: () => void };

const POWERS = [1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20];
const MOST_LINES = 8;

/** One number of the vector as p grows, and each token's share of it. */
export function GemCurve({ states, counts, power, tries, onKey }: Props) {
  const [chosen, choose] = useState(0);
  const body = { states, counts, pooling: [...POWERS.map((p) => `gem(p=${p})`), "mean", "max"] };
  const { answer, error } = useLatest({ body, tries }, async (input, signal) => ({
    pooled: (await ask<Pools>("pool", input.body, signal)).poolings,
    tokens: input.body.states.length,
  }));
  if (error) return <Problem error={error} onKey={onKey} />;
  const dim = states[0]?.length ?? 1;
  const number = Math.min(chosen, dim - 1);
  if (!answer || answer.pooled[0]?.vector.length !== dim) return null;
  const powers = answer.pooled.slice(0, POWERS.length);
  const level = (place: number) => POWERS.map(() => answer.pooled[POWERS.length + place]?.vector[number] ?? 0);
  const values: Line[] = [
    { name: "gem", values: powers.map((each) => each.vector[number] ?? 0) },
    { name: "mean", values: level(0) },
    { name: "max", values: level(1) },
  ];
  return (
    <>
      <h3>GeM between the mean and the largest number</h3>
      <p class="note">
        With p = 1 it is the mean; the larger p is, the nearer it comes to the number that is largest in size, and the more of it is that
        token's. A token's part is its number to the power p, by the sum of those of all tokens. The upright line is where the slider of GeM's p
        stands.
      </p>
      {dim > 1 && (
        <p>
          <label>
            Of each state, number{" "}
            <select value={number} onChange={(event) => choose(Number(event.currentTarget.value))}>
              {Array.from({ length: dim }, (_, place) => (
                <option key={place} value={place}>
                  {place + 1}
                </option>
              ))}
            </select>
          </label>
        </p>
      )}
      <div class="beside">
        <Lines x={POWERS} lines={values} at={power} axis="p: what GeM gives" label="What GeM gives, by p, between mean and max" />
        <Lines x={POWERS} lines={shares(powers, answer.tokens, number)} at={power} first={3} top={1} axis="p: part of each token" label="Each token's part, by p" />
      </div>
    </>
  );
}

/** The shares of the tokens that have most at the largest p, in their order. */
function shares(powers: Pooled[], tokens: number, number: number): Line[] {
  const share = (each: Pooled, token: number) => {
    const of = each.weights[token] ?? 0;
    return typeof of === "number" ? of : (of[number] ?? 0);
  };
  const lines = Array.from({ length: tokens }, (_, token) => ({
    name: `token ${token + 1}`,
    values: powers.map((each) => share(each, token)),
  }));
  const total = powers.map((_, place) => lines.reduce((sum, line) => sum + line.values[place]!, 0));
  const found = lines.map((line) => ({ ...line, values: line.values.map((value, place) => value / (total[place] || 1)) }));
  const last = (line: { values: number[] }) => line.values.at(-1)!;
  const least = found.map(last).sort((one, other) => other - one)[MOST_LINES - 1] ?? 0;
  return found.filter((line) => last(line) >= least).slice(0, MOST_LINES);
}
