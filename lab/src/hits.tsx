// Hits in columns, with lines from each document to where it stands in the next column.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Info } from "./api";
import type { Collection, Hit } from "./collections";
import { Why } from "./why";

export type Column = { collection: Collection; heading: string; hits: Hit[]; warnings: string[]; refused: string };

const AROUND = 90; // characters shown on either side of a chunk
const MOST_FIELDS = 4; // of metadata
const MOST_VALUE = 60; // characters of one

/** What makes two hits the same document: its id and its text. */
function keyOf(hit: Hit): string {
  return JSON.stringify([hit.id, hit.text]);
}

/** The place of each document in a column, by the best of its chunks. */
function placesOf(column: Column): Map<string, number> {
  const places = new Map<string, number>();
  column.hits.forEach((hit, place) => {
    if (!places.has(keyOf(hit))) places.set(keyOf(hit), place);
  });
  return places;
}

type Before = { column: number; place: number };

/** Where a document stands in the nearest column to the left that has it, which need not be its neighbour. */
function beforeOf(places: Map<string, number>[], column: number, key: string): Before | null {
  for (let left = column - 1; left >= 0; left--) {
    const place = places[left]!.get(key);
    if (place !== undefined) return { column: left, place };
  }
  return null;
}

type Props = { columns: Column[]; query: string; mode: string; info: Info };

export function Columns({ columns, query, mode, info }: Props) {
  const [pointed, point] = useState<string | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const places = columns.map(placesOf);
  return (
    <>
      {columns.length > 1 && <Legend />}
      <div class="scrolled" tabIndex={0} role="region" aria-label="Hits">
        <div class="columns" ref={frame} onMouseLeave={() => point(null)}>
          <Lines columns={columns} places={places} pointed={pointed} frame={frame} />
          {columns.map((column, number) => (
            <article class="column" key={column.collection.name} aria-labelledby={`column-${number}`} data-column={number}>
              <h3 id={`column-${number}`}>
                {number + 1}: {column.heading}
                <small>
                  {" "}
                  <bdi>{column.collection.name}</bdi>
                </small>
              </h3>
              {column.refused && (
                <p class="problem" role="alert">
                  {column.refused}
                </p>
              )}
              {column.warnings.map((warning) => (
                <p class="note" key={warning}>
                  {warning}
                </p>
              ))}
              {!column.refused && !column.hits.length && <p class="note">No hits.</p>}
              <ol class="hits" aria-label={`Hits of column ${number + 1}, ${column.heading}`}>
                {column.hits.map((hit, place) => {
                  const key = keyOf(hit);
                  const first = places[number]!.get(key) === place;
                  const before = first ? beforeOf(places, number, key) : null;
                  return (
                    <Card
                      key={`${key}${hit.span?.start ?? ""}`}
                      hit={hit}
                      column={column}
                      rank={place + 1}
                      before={before}
                      fresh={number > 0 && !places[number - 1]!.has(key)}
                      alone={columns.length > 1 && places.filter((one) => one.has(key)).length === 1}
                      doc={first ? key : null}
                      pointed={pointed === key}
                      onPoint={() => point(key)}
                      query={query}
                      mode={mode}
                      info={info}
                      number={number}
                    />
                  );
                })}
              </ol>
            </article>
          ))}
        </div>
      </div>
    </>
  );
}

/** What lines and marks mean, and what is not to be compared. */
function Legend() {
  const line = (kind: string) => (
    <svg viewBox="0 -4 30 8" width="30" height="8" aria-hidden="true" class="lines-key">
      <path class={kind} d="M0,0H30" />
    </svg>
  );
  return (
    <p class="note">
      Lines join equal documents of neighbouring columns: {line("rises")} ranks as high or higher in the right one (▲), {line("falls")} lower (▼). ◆ marks
      what is among the hits of one column alone. Each pooling has a scale of its own: compare ranks between columns, and not scores.
    </p>
  );
}

type CardProps = {
  hit: Hit;
  column: Column;
  rank: number;
  before: Before | null;
  fresh: boolean;
  alone: boolean;
  doc: string | null;
  pointed: boolean;
  onPoint: () => void;
  query: string;
  mode: string;
  info: Info;
  number: number;
};

function Card({ hit, column, rank, before, fresh, alone, doc, pointed, onPoint, query, mode, info, number }: CardProps) {
  const moved = before && before.place + 1 - rank;
  const [open, setOpen] = useState(false);
  const fields = Object.entries(hit.metadata).slice(0, open ? undefined : MOST_FIELDS);
  return (
    <li class={`hit${pointed ? " pointed" : ""}${alone ? " alone" : ""}`} data-doc={doc} onMouseEnter={onPoint} onFocusIn={onPoint}>
      <p class="place">
        <b>{rank}</b> <span class="score">{hit.score.toFixed(4)}</span>{" "}
        {moved !== null && moved !== 0 && (
          <span class={moved > 0 ? "up" : "down"}>
            <span aria-hidden="true">
              {moved > 0 ? "▲" : "▼"}
              {Math.abs(moved)}
              {before!.column !== number - 1 && ` (column ${before!.column + 1})`}
            </span>
            <span class="unseen">
              {moved > 0 ? "up" : "down"} by {Math.abs(moved)} against column {before!.column + 1}
            </span>
          </span>
        )}
        {moved === 0 && <span class="same">= <span class="unseen">the rank of column {before!.column + 1}</span></span>}
        {alone ? <span class="mark">◆ in no other column</span> : fresh && <span class="mark">not in column {number}</span>}
        <bdi class="id">{hit.id}</bdi>
      </p>
      <p class={open ? "text" : "text clamped"} dir="auto">
        {hit.span ? <Spanned text={hit.text} start={hit.span.start} end={hit.span.end} whole={open} /> : hit.text}
      </p>
      {fields.length > 0 && (
        <p class="fields">
          {fields.map(([name, value]) => (
            <span key={name}>
              <bdi>{short(name, open)}</bdi>: <bdi>{short(typeof value === "string" ? value : JSON.stringify(value), open)}</bdi>
            </span>
          ))}
        </p>
      )}
      <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
        Why{" "}
        <span class="unseen">
          did {hit.id} match in column {number + 1}
        </span>
      </button>
      {open && <Why hit={hit} collection={column.collection} query={query} mode={mode} info={info} />}
    </li>
  );
}

/** The beginning of a value, or all of it. */
function short(written: string, whole: boolean): string {
  return whole || written.length <= MOST_VALUE ? written : `${written.slice(0, MOST_VALUE)}…`;
}

/** A text with its chunk marked; places count code points. */
function Spanned({ text, start, end, whole }: { text: string; start: number; end: number; whole: boolean }) {
  const points = Array.from(text);
  const from = whole ? 0 : Math.max(0, start - AROUND);
  const to = whole ? points.length : Math.min(points.length, end + AROUND);
  return (
    <>
      {from > 0 && "… "}
      {points.slice(from, start).join("")}
      <mark>{points.slice(start, end).join("")}</mark>
      {points.slice(end, to).join("")}
      {to < points.length && " …"}
    </>
  );
}

type LinesProps = { columns: Column[]; places: Map<string, number>[]; pointed: string | null; frame: { current: HTMLDivElement | null } };
type Line = { key: string; path: string; moved: number };

/** Lines from each document to where it stands in the next column. What they show is told at each hit as well. */
function Lines({ columns, places, pointed, frame }: LinesProps) {
  const [lines, setLines] = useState<Line[]>([]);
  useLayoutEffect(() => {
    const of = frame.current;
    if (!of) return;
    const draw = () => setLines(drawn(of, places));
    draw();
    const observer = new ResizeObserver(draw);
    observer.observe(of);
    for (const list of of.querySelectorAll(".hit")) observer.observe(list);
    return () => observer.disconnect();
  }, [columns.map((one) => one.collection.name + one.hits.map(keyOf).join()).join()]);
  return (
    <svg class="lines" aria-hidden="true">
      {lines.map((line) => (
        <path
          key={line.key}
          d={line.path}
          class={`${line.moved > 0 ? "rises" : line.moved < 0 ? "falls" : "stays"}${pointed !== null && line.key.endsWith(pointed) ? " pointed" : ""}`}
        />
      ))}
    </svg>
  );
}

function drawn(frame: HTMLElement, places: Map<string, number>[]): Line[] {
  const origin = frame.getBoundingClientRect();
  const boxes = places.map((_, number) => {
    const cards = [...frame.querySelectorAll<HTMLElement>(`[data-column="${number}"] .hit[data-doc]`)];
    return new Map(cards.map((card) => [card.dataset.doc!, card]));
  });
  return places.slice(1).flatMap((right, number) =>
    [...right].flatMap(([key, place]): Line[] => {
      const before = places[number]!.get(key);
      if (before === undefined) return [];
      const cards = [boxes[number]!.get(key), boxes[number + 1]!.get(key)];
      const [one, other] = cards.map((card) => card?.getBoundingClientRect());
      const [from, to] = cards.map((card) => card?.querySelector(".place")?.getBoundingClientRect());
      if (!from || !to || !one || !other) return [];
      const [x1, y1] = [one.right - origin.left, from.top + from.height / 2 - origin.top];
      const [x2, y2] = [other.left - origin.left, to.top + to.height / 2 - origin.top];
      const half = (x1 + x2) / 2;
      return [{ key: `${number}${key}`, path: `M${x1},${y1}C${half},${y1} ${half},${y2} ${x2},${y2}`, moved: before - place }];
    }),
  );
}
