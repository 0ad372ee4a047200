// Lines over the range of something, each with a dash, a mark and a name of its own at its end.
import { useEffect, useState } from "preact/hooks";
import "./lines.css";

export type Line = { name: string; values: (number | null)[]; wrong?: boolean };
type Props = {
  x: number[];
  lines: Line[];
  /** Where a vertical line shows the value that is set. */
  at: number;
  label: string;
  axis: string;
  /** The top of the scale; as high as the lines reach unless given. */
  top?: number;
  /** Kinds of lines that stand in other charts too begin at this number. */
  first?: number;
};

const HEIGHT = 320;
const LEFT = 48;
const TOP = 14;
const BOTTOM = 42;
const LETTER = 7.4; // of a label's width, in pixels
const BETWEEN = 15; // labels, from one to the next
const LONGEST = 22;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 1 2", "1 4", "11 2 2 2 2 2"];
const MARKS = [
  "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
  "M-3.5,-3.5h7v7h-7z",
  "M0,-4.5L4.5,3.5H-4.5z",
  "M0,-5L5,0L0,5L-5,0z",
  "M-4,-4L4,4M4,-4L-4,4",
  "M-5,0H5M0,-5V5",
  "M0,4.5L4.5,-3.5H-4.5z",
  "M-5,-2.5h10v5h-10z",
];

/** Numbers on an axis: about five, one, two or five times a power of ten apart. */
function ticks(low: number, high: number): number[] {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((times) => times * power >= rough) ?? 10);
  const count = Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1;
  return Array.from({ length: count }, (_, place) => Number(((Math.ceil(low / step - 1e-9) + place) * step).toPrecision(10)));
}

/** Places for labels, in the order of the lines, none on another and all between two heights. */
function apart(wanted: number[], least: number, most: number): number[] {
  const order = wanted.map((_, place) => place).sort((one, other) => wanted[one]! - wanted[other]!);
  const found = [...wanted];
  let free = least;
  for (const place of order) {
    found[place] = Math.max(found[place]!, free);
    free = found[place]! + BETWEEN;
  }
  let limit = most;
  for (const place of order.reverse()) {
    found[place] = Math.min(found[place]!, limit);
    limit = found[place]! - BETWEEN;
  }
  return found;
}

function short(name: string): string {
  return name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name;
}

/** The kind of a line, as in a chart, to stand beside its name elsewhere. */
export function Key({ place, wrong = false }: { place: number; wrong?: boolean }) {
  return (
    <svg class="key" viewBox="0 -7 34 14" width="34" height="14" aria-hidden="true">
      <g class={kind(place, wrong)}>
        <path class="line" d="M1,0H33" stroke-dasharray={DASHES[place % DASHES.length]} />
        <path class="mark" d={MARKS[place % MARKS.length]} transform="translate(17)" />
      </g>
    </svg>
  );
}

function kind(place: number, wrong: boolean): string {
  return wrong ? "series wrong" : `series series-${place % 6}`;
}

/** The width that an element has on the page. */
function useWidth(): [(element: HTMLElement | null) => void, number] {
  const [width, setWidth] = useState(480);
  const [element, setElement] = useState<HTMLElement | null>(null);
  useEffect(() => {
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(Math.max(element.clientWidth, 240)));
    observer.observe(element);
    return () => observer.disconnect();
  }, [element]);
  return [setElement, width];
}

export function Lines({ x, lines, at, label, axis, top, first = 0 }: Props) {
  const [measured, width] = useWidth();
  const seen = lines.flatMap((line) => line.values.filter((value) => value !== null));
  const high = top ?? Math.max(...seen);
  const low = Math.min(high - 0.01, ...seen) - 0.04 * (high - Math.min(...seen));
  const widest = Math.max(...lines.map((line) => short(line.name).length));
  const right = width - Math.min(LETTER * widest + 22, width / 2);
  const [least, most] = [x[0]!, x.at(-1)!];
  const across = (value: number) => LEFT + ((value - least) / (most - least || 1)) * (right - LEFT);
  const up = (value: number) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const points = lines.map((line) => x.flatMap((value, place) => {
    const height = line.values[place];
    return height === null || height === undefined ? [] : [[across(value), up(height)] as const];
  }));
  const labels = apart(points.map((each) => each.at(-1)?.[1] ?? TOP), TOP, HEIGHT - BOTTOM);
  return (
    <div class="curves" ref={measured}>
      <svg width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`} role="img" aria-label={label}>
        <g class="axis">
          {ticks(low, high).map((value) => (
            <g key={value}>
              <line x1={LEFT} x2={right} y1={up(value)} y2={up(value)} />
              <text x={LEFT - 10} y={up(value) + 4} text-anchor="end">
                {value}
              </text>
            </g>
          ))}
          {ticks(least, most).map((value) => (
            <text key={value} x={across(value)} y={HEIGHT - BOTTOM + 18} text-anchor="middle">
              {value}
            </text>
          ))}
          <text x={(LEFT + right) / 2} y={HEIGHT - 6} text-anchor="middle">
            {axis}
          </text>
        </g>
        <line class="at" x1={across(at)} x2={across(at)} y1={TOP} y2={HEIGHT - BOTTOM} />
        {lines.map((line, place) => (
          <g key={line.name} class={kind(first + place, !!line.wrong)}>
            <path
              class="line"
              d={points[place]!.map(([left, height], number) => `${number ? "L" : "M"}${left.toFixed(1)},${height.toFixed(1)}`).join("")}
              stroke-dasharray={DASHES[(first + place) % DASHES.length]}
            />
            {points[place]!.map(([left, height], number) => (
              <path key={number} class="mark" d={MARKS[(first + place) % MARKS.length]} transform={`translate(${left.toFixed(1)} ${height.toFixed(1)})`} />
            ))}
            {points[place]!.length > 0 && (
              <>
                <path class="leader" d={`M${right + 4},${points[place]!.at(-1)![1].toFixed(1)}L${right + 10},${labels[place]!.toFixed(1)}`} />
                <text x={right + 13} y={labels[place]! + 4}>
                  {short(line.name)}
                </text>
              </>
            )}
          </g>
        ))}
      </svg>
    </div>
  );
}
