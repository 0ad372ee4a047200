// Tokens, the query and pooled vectors in two dimensions.

export type Point = { at: [number, number]; kind: "token" | "masked" | "query" | "vector"; name: string };

const SIZE = 420;
const MARGIN = 36;
const CROSS = 6;
const LETTER = 7; // of a label's width
const LINE = 13; // of its height

type Box = { left: number; top: number; right: number; bottom: number };
type Label = { x: number; y: number; anchor: "start" | "end" | "middle" };

/** Whether a point's name stands in it. */
function inside(point: Point): boolean {
  return point.kind === "token" || point.kind === "masked";
}

function cover(one: Box, other: Box): boolean {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

/** Where a name may stand beside its point: right, left, above, below, and the same further away. */
function* beside(x: number, y: number, width: number): Generator<[Label, Box]> {
  for (let away = 0; away < 6; away++) {
    const far = away * LINE;
    for (const [dx, dy] of [[9, -6 - far], [9, 14 + far], [-9, -6 - far], [-9, 14 + far], [9, 4], [-9, 4]] as const) {
      const left = dx > 0 ? x + dx : x + dx - width;
      const box = { left, top: y + dy - LINE + 3, right: left + width, bottom: y + dy + 3 };
      yield [{ x: x + dx, y: y + dy, anchor: dx > 0 ? "start" : "end" }, box];
    }
  }
}

/** A place for each name, on no other name, no circle and within the picture, as far as there is one. */
function labelled(points: Point[], x: (point: Point) => number, y: (point: Point) => number): Label[] {
  const taken: Box[] = points.map((point) => {
    const reach = inside(point) ? 9 : 5;
    return { left: x(point) - reach, top: y(point) - reach, right: x(point) + reach, bottom: y(point) + reach };
  });
  return points.map((point): Label => {
    if (inside(point)) return { x: x(point), y: y(point) + 4, anchor: "middle" };
    let first: Label | null = null;
    for (const [label, box] of beside(x(point), y(point), LETTER * point.name.length)) {
      first ??= label;
      const within = box.left >= 0 && box.right <= SIZE && box.top >= 0 && box.bottom <= SIZE;
      if (!within || taken.some((other) => cover(box, other))) continue;
      taken.push(box);
      return label;
    }
    return first!;
  });
}

/** A picture; each kind has a shape of its own, and each vector its name. What it shows stands in the tables too. */
export function Plot({ points }: { points: Point[] }) {
  const reach = 1.1 * Math.max(1, ...points.flatMap((point) => point.at.map(Math.abs)));
  const place = (number: number) => ((number + reach) / (2 * reach)) * (SIZE - 2 * MARGIN) + MARGIN;
  const x = (point: Point) => place(point.at[0]);
  const y = (point: Point) => SIZE - place(point.at[1]);
  const labels = labelled(points, x, y);
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
          <text x={labels[number]!.x} y={labels[number]!.y} text-anchor={labels[number]!.anchor}>
            {point.name}
          </text>
        </g>
      ))}
    </svg>
  );
}
