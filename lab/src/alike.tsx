// How alike texts are under each strategy, and how the order of pairs changes from one to the next.
import type { View } from "./api";

/** The cosine of each two texts under one strategy. */
export function Matrix({ view }: { view: View }) {
  const count = view.cosines.length;
  return (
    <table class="matrix">
      <caption>{view.pooling}</caption>
      <thead>
        <tr>
          <th scope="col">
            <span class="unseen">text</span>
          </th>
          {Array.from({ length: count }, (_, column) => (
            <th scope="col" key={column}>
              {column + 1}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {view.cosines.map((row, place) => (
          <tr key={place}>
            <th scope="row">{place + 1}</th>
            {row.map((cosine, column) => (
              <td key={column} style={{ "--share": String(Math.max(cosine, 0)) }}>
                {cosine.toFixed(2)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

type Pair = [number, number];

/** All pairs of so many texts. */
export function pairs(count: number): Pair[] {
  return Array.from({ length: count }, (_, first) =>
    Array.from({ length: count - first - 1 }, (_, more): Pair => [first, first + more + 1]),
  ).flat();
}

/** The rank of each pair under a strategy, 1 being the most alike. */
export function ranks(view: View, of: Pair[]): number[] {
  const cosine = ([first, second]: Pair) => view.cosines[first]?.[second] ?? 0;
  const order = of.map((_, place) => place).sort((a, b) => cosine(of[b]!) - cosine(of[a]!) || a - b);
  const found = Array<number>(of.length).fill(0);
  order.forEach((place, rank) => (found[place] = rank + 1));
  return found;
}

/** Pairs in the order of the first strategy, with their rank under each, and where it moved. */
export function Ranking({ views, count }: { views: View[]; count: number }) {
  const all = pairs(count);
  const byView = views.map((view) => ranks(view, all));
  const first = byView[0];
  if (!first) return null;
  const order = all.map((_, place) => place).sort((a, b) => first[a]! - first[b]!);
  return (
    <table class="ranking">
      <thead>
        <tr>
          <th scope="col">texts</th>
          {views.map((view, column) => (
            <th scope="col" key={column}>
              {view.pooling}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {order.map((place) => {
          const [one, other] = all[place]!;
          return (
            <tr key={place}>
              <th scope="row">
                {one + 1} and {other + 1}
              </th>
              {views.map((view, column) => {
                const rank = byView[column]![place]!;
                const moved = column ? byView[column - 1]![place]! - rank : 0;
                return (
                  <td key={column}>
                    <b>{rank}</b> {view.cosines[one]?.[other]?.toFixed(3)}{" "}
                    {moved !== 0 && (
                      <span class={moved > 0 ? "up" : "down"} aria-label={moved > 0 ? `up by ${moved}` : `down by ${-moved}`}>
                        {moved > 0 ? "▲" : "▼"}
                        {Math.abs(moved)}
                      </span>
                    )}
                  </td>
                );
              })}
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
