// A grid of four by four, pooled in windows of two by two: each window is four tokens that follow each other.
import "./grid.css";

const SIDE = 4;

/** Which token is in a row and a column. */
function token(row: number, column: number): number {
  return 4 * (2 * (row >> 1) + (column >> 1)) + 2 * (row & 1) + (column & 1);
}

/** The numbers of a grid window by window. */
export function blocks(grid: number[][]): number[] {
  const found: number[] = [];
  grid.forEach((row, at) => row.forEach((number, column) => (found[token(at, column)] = number)));
  return found;
}

type Props = { of: number[]; onChange: (token: number, to: number) => void };

export function Grid({ of, onChange }: Props) {
  return (
    <table class="grid states">
      <caption>A window is two rows by two columns</caption>
      <tbody>
        {Array.from({ length: SIDE }, (_, row) => (
          <tr key={row}>
            {Array.from({ length: SIDE }, (_, column) => (
              <td key={column}>
                <input
                  type="number"
                  step="any"
                  value={of[token(row, column)]}
                  aria-label={`Row ${row + 1}, column ${column + 1}`}
                  onInput={(event) => {
                    const to = event.currentTarget.valueAsNumber;
                    if (Number.isFinite(to)) onChange(token(row, column), to);
                  }}
                />
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** What is left of each window, where it was. */
export function Windows({ most, mean }: { most: number[]; mean: number[] }) {
  return (
    <div class="matrices windows" tabIndex={0} role="region" aria-label="What is left of each window">
      {Object.entries({ "Max of each window": most, "Mean of each window": mean }).map(([title, of]) => (
        <table key={title}>
          <caption>{title}</caption>
          <tbody>
            {[0, 1].map((row) => (
              <tr key={row}>
                {of.slice(2 * row, 2 * row + 2).map((number, column) => (
                  <td key={column}>{number.toFixed(3)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      ))}
    </div>
  );
}
