// A figure, and how it went.
import "./spark.css";

const WIDTH = 120;
const HEIGHT = 28;

type Props = { name: string; value: string; values: number[]; most?: number | undefined; note?: string };

/** A figure with a line of its values until now, of which the last stands in words; `most` is where the line ends at the top. */
export function Spark({ name, value, values, most, note }: Props) {
  const top = Math.max(most ?? 0, ...values, 1e-9);
  const x = (place: number) => (values.length > 1 ? (place / (values.length - 1)) * WIDTH : WIDTH);
  const y = (number: number) => HEIGHT - 1 - (number / top) * (HEIGHT - 2);
  return (
    <div class="spark">
      <span>{name}</span>
      <output aria-label={name}>{value}</output>
      {values.length > 0 && (
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
          <polyline points={values.map((number, place) => `${x(place).toFixed(1)},${y(number).toFixed(1)}`).join(" ")} />
        </svg>
      )}
      <small>{note}</small>
    </div>
  );
}
