// Points of a plane: which are within an outline, and which is next in a direction.

export type Place = [number, number];

/** Whether a place is within an outline, by how often a ray from it crosses that. */
export function within([x, y]: Place, outline: Place[]): boolean {
  let inside = false;
  outline.forEach(([x1, y1], at) => {
    const [x2, y2] = outline[(at + 1) % outline.length]!;
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  });
  return inside;
}

function apart(one: Place, other: Place): number {
  return Math.hypot(one[0] - other[0], one[1] - other[1]);
}

/** The places nearest to one of them, itself first. */
export function nearest(places: Place[], to: number, count: number): number[] {
  const from = places[to]!;
  const order = places.map((_, at) => at).sort((a, b) => apart(places[a]!, from) - apart(places[b]!, from) || a - b);
  return [to, ...order.filter((at) => at !== to)].slice(0, count);
}

/** The nearest place in a direction, of those that lie more that way than to a side; the one itself where none does. */
export function towards(places: Place[], from: number, [x, y]: Place): number {
  const here = places[from]!;
  let [best, least] = [from, Infinity];
  places.forEach((place, at) => {
    const along = (place[0] - here[0]) * x + (place[1] - here[1]) * y;
    const aside = Math.abs((place[0] - here[0]) * y) + Math.abs((place[1] - here[1]) * x);
    const cost = along + 2 * aside;
    if (at !== from && along > 0 && along >= aside && cost < least) [best, least] = [at, cost];
  });
  return best;
}
