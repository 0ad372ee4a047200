// The table of a report: each pooling's score and its interval, drawn on one axis, and whether it differs beyond noise.
import { type DataSet, hundredfold, type Perturbed, type Report, type Score, type Scored } from "./report";
import "./scores.css";

const WIDTH = 260;
const HEIGHT = 24;
const MARGIN = 8;
const NAMES: Record<string, string> = {
  spearman: "Spearman's rank correlation of cosine and score",
  "ndcg@10": "nDCG@10: how early the right texts are found",
  accuracy: "accuracy of a linear classifier over the vectors",
};

type Axis = { low: number; high: number; x: (value: number) => number };

/** One axis for all rows, with room for each interval, from one multiple of ten to another. */
function axisOf(scores: { low: number; high: number }[]): Axis {
  const low = Math.floor(10 * Math.min(...scores.map((each) => each.low))) / 10;
  const high = Math.max(Math.ceil(10 * Math.max(...scores.map((each) => each.high))) / 10, low + 0.1);
  return { low, high, x: (value) => MARGIN + ((value - low) / (high - low)) * (WIDTH - 2 * MARGIN) };
}

/** One axis for all differences, as far to the left of zero as to its right. */
function around(differences: Score[]): Axis {
  const reach = Math.max(0.05, Math.ceil(20 * Math.max(...differences.flatMap((each) => [Math.abs(each.low), Math.abs(each.high)]), 0)) / 20);
  return { low: -reach, high: reach, x: (value) => MARGIN + ((value + reach) / (2 * reach)) * (WIDTH - 2 * MARGIN) };
}

/** What the scores are. */
export function Heading({ data }: { data: DataSet }) {
  const metric = data.metrics[0]!;
  return (
    <h4 id="scores-title" class="measured">
      {NAMES[metric] ?? metric}, times 100, over {data.size} {data.items}
    </h4>
  );
}

export function Scores({ report, data, guess }: { report: Report; data: DataSet; guess: string | null }) {
  const metric = data.metrics[0]!;
  const of = (row: Scored) => row.scores[metric]!;
  const rows = [...data.rows].sort((one, other) => of(other).value - of(one).value);
  const axis = axisOf(rows.map(of));
  const differences = around(rows.flatMap((row) => row.difference ?? []));
  const reference = rows.find((row) => row.strategy === data.reference)!;
  const dims = new Map(report.strategies.map((each) => [each.name, each.dim]));
  const recovered = rows.some((row) => row.information);
  return (
    <div class="scrolled" tabIndex={0} role="region" aria-label="Scores of the poolings">
      <table class="scores" aria-labelledby="scores-title">
        <thead>
          <tr>
            <th scope="col">pooling</th>
            <th scope="col">score</th>
            <th scope="col">
              95 % interval
              <Ticks axis={axis} step={0.1 * Math.ceil(Math.round((axis.high - axis.low) * 10) / 5)} />
            </th>
            <th scope="col">
              difference to {data.reference}, 95 % interval
              <Ticks axis={differences} step={differences.high} />
            </th>
            <th scope="col">lost when words are replaced</th>
            <th scope="col">lost when half is cut off</th>
            {recovered && <th scope="col">words kept</th>}
            <th scope="col">dimensions</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.strategy} class={row === reference ? "reference" : undefined}>
              <th scope="row">
                {row.strategy}
                {row.strategy === report.declared && <small> declared</small>}
                {row.strategy === guess && <small> your guess</small>}
              </th>
              <td>{hundredfold(of(row).value)}</td>
              <td class="interval">
                <Interval of={of(row)} axis={axis} at={of(reference).value} marked={row === reference} />
                <span>
                  {hundredfold(of(row).low)} to {hundredfold(of(row).high)}
                </span>
              </td>
              <td class={`interval verdict ${(row.verdict ?? "").replace(" ", "-")}`}>
                {row.difference && <Interval of={row.difference} axis={differences} at={0} marked={false} />}
                {inWords(row)}
              </td>
              <td>{lost(row.robustness["noise"], 0.2)}</td>
              <td>{lost(row.robustness["cut"], 0.5)}</td>
              {recovered && <td>{row.information ? `${hundredfold(row.information.words_recovered)} %` : "–"}</td>}
              <td>{dims.get(row.strategy)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inWords(row: Scored): string {
  if (row.verdict === null || row.difference === null) return "what the others are compared with";
  const { value, low, high } = row.difference;
  const equal = hundredfold(Math.abs(low)) === "0.0" && hundredfold(Math.abs(high)) === "0.0";
  const words = equal ? "the same" : row.verdict === "within noise" ? "may be chance" : row.verdict;
  return `${words}: ${signed(value)} (${signed(low)} to ${signed(high)})`;
}

function signed(value: number): string {
  return `${value >= 0 ? "+" : "−"}${hundredfold(Math.abs(value))}`;
}

function lost(levels: Perturbed[] | undefined, level: number): string {
  const found = levels?.find((each) => Math.abs(each.level - level) < 1e-9);
  return found ? hundredfold(found.lost) : "–";
}

type IntervalProps = { of: Score; axis: Axis; at: number; marked: boolean };

/** A line from end to end and a point at the score: a square where it is what the others are compared with. */
function Interval({ of: { value, low, high }, axis, at, marked }: IntervalProps) {
  const middle = HEIGHT / 2;
  return (
    <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <line class="compared" x1={axis.x(at)} x2={axis.x(at)} y1={0} y2={HEIGHT} />
      <line x1={axis.x(low)} x2={axis.x(high)} y1={middle} y2={middle} />
      {[low, high].map((end, place) => (
        <line key={place} x1={axis.x(end)} x2={axis.x(end)} y1={middle - 4} y2={middle + 4} />
      ))}
      {marked ? (
        <rect x={axis.x(value) - 5} y={middle - 5} width={10} height={10} />
      ) : (
        <circle cx={axis.x(value)} cy={middle} r={4.5} />
      )}
    </svg>
  );
}

function Ticks({ axis, step }: { axis: Axis; step: number }) {
  const count = Math.floor((axis.high - axis.low) / step + 1e-9) + 1;
  const ticks = Array.from({ length: count }, (_, place) => axis.low + place * step);
  return (
    <svg class="ticks" viewBox={`0 0 ${WIDTH} 18`} aria-hidden="true">
      {ticks.map((tick) => (
        <g key={tick}>
          <line x1={axis.x(tick)} x2={axis.x(tick)} y1={14} y2={18} />
          <text x={axis.x(tick)} y={11} text-anchor="middle">
            {Math.round(100 * tick)}
          </text>
        </g>
      ))}
    </svg>
  );
}
