// Tokens, the query and pooled vectors in two dimensions.

export type Point = { at: [number, number]; kind: "token" | "masked" | "query" | "vector"; name: string };

const SIZE = 420;
const MARGIN = 36;
const CROSS = 6;
const LETTER = 7; // of a label's width
const LINE = 13; // of its height

type Label = { x: number; y: number; width: number };

/** Whether a point's name stands in it. */
function inside(point: Point): boolean {
  return point.kind === "token" || point.kind === "masked";
}

function label(point: Point, x: number, y: number): Label {
  if (inside(point)) return { x, y: y + 4, width: 0 };
  return { x: x + 9, y: y + (point.kind === "vector" ? -6 : 4), width: LETTER * point.name.length };
}

/** Move labels down until none stands on another. */
function apart(labels: Label[]): Label[] {
  const found: Label[] = [];
  for (const one of labels) {
    const moved = { ...one };
    const covers = (other: Label) =>
      other.width > 0 && Math.abs(other.y - moved.y) < LINE && moved.x < other.x + other.width && other.x < moved.x + moved.width;
    while (moved.width > 0 && found.some(covers)) moved.y += LINE;
    found.push(moved);
  }
  return found;
}

/** A picture; each kind has a shape of its own, and each vector its name. What it shows stands in the tables too. */
export function Plot({ points }: { points: Point[] }) {
  const reach = 1.1 * Math.max(1, ...points.flatMap((point) => point.at.map(Math.abs)));
  const place = (number: number) => ((number + reach) / (2 * reach)) * (SIZE - 2 * MARGIN) + MARGIN;
  const x = (point: Point) => place(point.at[0]);
  const y = (point: Point) => SIZE - place(point.at[1]);
  const labels = apart(points.map((point) => label(point, x(point), y(point))));
  return (
    <svg class="plot" viewBox={`0 0 ${SIZE} ${SIZE}`} role="img" aria-label="Tokens as circles, pooled vectors as crosses">
      <line class="axis" x1={MARGIN} x2={SIZE - MARGIN} y1={SIZE / 2} y2={SIZE / 2} />
      <line class="axis" y1={MARGIN} y2={SIZE - MARGIN} x1={SIZE / 2} x2={SIZE / 2} />
      {points.map((point, number) => (
        <g key={`${point.kind}${point.name}${number}`} class={point.kind}>
          {point.kind === "query" && <line x1={SIZE / 2} y1={SIZE / 2} x2={x(point)} y2={y(point)} />}
          {point.kind === "vector" ? (
            <path d={`M${x(point) - CROSS},${y(point)}h${2 * CROSS}M${x(point)},${y(point) - CROSS}v${2 * CROSS}`} />
          ) : (
            <circle cx={x(point)} cy={y(point)} r={point.kind === "query" ? 4 : 9} />
          )}
          <text x={labels[number]!.x} y={labels[number]!.y} text-anchor={inside(point) ? "middle" : "start"}>
            {point.name}
          </text>
        </g>
      ))}
    </svg>
  );
}
