// Texts as points, which one points at, chooses by a lasso, and walks between with arrow keys.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { nearest, type Place, towards, within } from "./geometry";
import "./scatter.css";

const FIRST: Size = [900, 600]; // until the picture is there
const LOWEST = 360;
const MARGIN = 30;
const NEIGHBOURS = 10;
const STEADY = 6; // how far a hand that clicks may move
const LABELLED = 150; // points that have labels, where there is room
const LETTER = 6.2; // of a label's width
const LINE = 14; // of its height
const CIRCLE = "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z";
const DIAMOND = "M0,-8L8,0L0,8L-8,0Z";
const WAYS: Record<string, Place> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

type Size = [number, number];
type Side = "left" | "right";

type Props = {
  places: Place[];
  texts: string[];
  label: string;
  chosen: ReadonlySet<number>;
  onChoose: (chosen: ReadonlySet<number>) => void;
};

/** The picture. What is chosen is a diamond, and a circle else. */
export function Scatter({ places, texts, label, chosen, onChoose }: Props) {
  const [pointed, point] = useState(0);
  const [shown, show] = useState(false); // whether the pointed one is
  const [outline, draw] = useState<Place[]>([]);
  const [byTouch, setByTouch] = useState(false);
  const picture = useRef<SVGSVGElement>(null);
  const [size, setSize] = useState(FIRST);
  useEffect(() => {
    // As many units as pixels, so that points and letters have one size on every screen.
    const watch = new ResizeObserver(([found]) => {
      const width = Math.round(found!.contentRect.width);
      setSize([width, Math.max(LOWEST, Math.round((2 * width) / 3))]);
    });
    watch.observe(picture.current!.parentElement!);
    return () => watch.disconnect();
  }, []);
  const drawn = useMemo(() => placed(places, size), [places, size]);
  const labels = useMemo(() => labelled(drawn, texts, size[0]), [drawn, texts]);
  const current = Math.min(pointed, places.length - 1);

  const at = (event: PointerEvent): Place => {
    const box = picture.current!.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * size[0], ((event.clientY - box.top) / box.height) * size[1]];
  };
  const toggle = (one: number) => {
    const next = new Set(chosen);
    if (!next.delete(one)) next.add(one);
    onChoose(next);
  };
  const key = (event: KeyboardEvent) => {
    const way = WAYS[event.key];
    if (way) point(towards(drawn, current, way));
    else if (event.key === "Enter" || event.key === " ") toggle(current);
    else if (event.key.toLowerCase() === "n") onChoose(new Set([...chosen, ...nearest(drawn, current, NEIGHBOURS)]));
    else if (event.key === "Escape") onChoose(new Set());
    else return;
    show(true);
    event.preventDefault();
  };
  const lasso = {
    onPointerDown: (event: PointerEvent) => {
      if (event.button !== 0 || (event.pointerType === "touch" && !byTouch)) return;
      draw([at(event)]);
    },
    onPointerMove: (event: PointerEvent) => {
      const first = outline[0];
      const here = at(event);
      if (!first || (outline.length === 1 && Math.hypot(here[0] - first[0], here[1] - first[1]) < STEADY)) return;
      picture.current!.setPointerCapture(event.pointerId); // not before, so that a click is one on a point
      draw([...outline, here]);
    },
    onPointerUp: (event: PointerEvent) => {
      const found = drawn.flatMap((place, number) => (outline.length > 2 && within(place, outline) ? [number] : []));
      if (found.length) onChoose(new Set(event.shiftKey ? [...chosen, ...found] : found));
      draw([]);
    },
    onPointerCancel: () => draw([]),
  };
  return (
    <div class="scatter">
      <div
        class="points"
        role="listbox"
        aria-multiselectable="true"
        aria-label={label}
        aria-activedescendant={`point-${current}`}
        tabIndex={0}
        onKeyDown={key}
        onFocus={() => show(true)}
      >
        <svg ref={picture} viewBox={`0 0 ${size[0]} ${size[1]}`} role="presentation" class={byTouch ? "by-touch" : ""} {...lasso}>
          {drawn.map(([x, y], number) => (
            <g
              key={number}
              id={`point-${number}`}
              role="option"
              aria-selected={chosen.has(number)}
              aria-label={texts[number]}
              class={[chosen.has(number) ? "chosen" : "", shown && number === current ? "pointed" : ""].join(" ")}
              style={{ transform: `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)` }}
              onPointerEnter={() => {
                if (outline.length) return;
                point(number);
                show(true);
              }}
              onClick={() => toggle(number)}
            >
              <path d={chosen.has(number) ? DIAMOND : CIRCLE} />
              {labels.has(number) && (
                <text x={labels.get(number) === "left" ? -9 : 9} y={4} text-anchor={labels.get(number) === "left" ? "end" : "start"}>
                  {shortened(texts[number] ?? "")}
                </text>
              )}
            </g>
          ))}
          {outline.length > 1 && <polygon class="lasso" points={outline.map((place) => place.join(",")).join(" ")} />}
        </svg>
      </div>
      <p class="pointed-at" aria-live="polite">
        {shown && <bdi>{texts[current]}</bdi>}
      </p>
      <button type="button" class="touch" aria-pressed={byTouch} onClick={() => setByTouch(!byTouch)}>
        Draw around points by touch
      </button>
    </div>
  );
}

/** Where points stand in the picture: one scale for both axes, so that distances are to be compared. */
function placed(places: Place[], [width, height]: Size): Place[] {
  const reach = Math.max(1e-9, ...places.map(([x, y]) => Math.max(Math.abs(x) / (width - 2 * MARGIN), Math.abs(y) / (height - 2 * MARGIN))));
  return places.map(([x, y]) => [width / 2 + x / (2 * reach), height / 2 - y / (2 * reach)]);
}

function shortened(text: string): string {
  const letters = [...text];
  return letters.length > 28 ? `${letters.slice(0, 27).join("")}…` : text;
}

/** Points whose label stands on no other label and no point, with the side that it stands on: the left where the right has no room. */
function labelled(drawn: Place[], texts: string[], most: number): Map<number, Side> {
  const found = new Map<number, Side>();
  const boxes: [number, number, number][] = [];
  drawn.forEach(([x, y], number) => {
    if (found.size === LABELLED) return;
    const width = LETTER * Math.min(28, texts[number]?.length ?? 0) + 12;
    const side = x + width > most ? "left" : "right";
    const from = side === "left" ? x - width : x;
    const covered = boxes.some(([from2, y2, width2]) => Math.abs(y2 - y) < LINE && from < from2 + width2 && from2 < from + width);
    const onPoint = drawn.some(([px, py], other) => other !== number && Math.abs(py - y) < 9 && px > from && px < from + width);
    if (covered || onPoint || from < 0) return;
    boxes.push([from, y, width]);
    found.set(number, side);
  });
  return found;
}
