// The tokens of a text, shaded by their share of its vector.
import type { ComparedText } from "./api";

const SPECIAL = "special token";

export type Pointed = { text: number; token: number } | null;

/** Say what a token is: special, of a prompt, or neither. */
export function kindOf(text: ComparedText, place: number): string {
  const token = text.tokens[place];
  if (place < text.prompt) return "of the prompt, not pooled";
  return token && token.start === null ? SPECIAL : "";
}

/** Write a share as a percentage. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** Shades on one scale for all rows: the root of a share, so that 1 % is told from none beside 100 %. */
export function onOneScale(share: number): number {
  return Math.sqrt(Math.min(Math.max(share, 0), 1));
}

/** Shades by the largest share of a row, so that small differences within it are seen. */
export function byLargest(shares: number[]): (share: number) => number {
  const most = Math.max(...shares, Number.MIN_VALUE);
  return (share) => Math.max(share, 0) / most;
}

/** What shades on one scale mean. */
export function Scale() {
  return (
    <span class="tokens scale" aria-hidden="true">
      {[0.01, 0.05, 0.25, 1].map((share) => (
        <span key={share} style={{ "--share": String(onOneScale(share)) }}>
          {100 * share} %
        </span>
      ))}
    </span>
  );
}

type Shown = {
  text: ComparedText;
  shares: number[];
  /** How dark a share is, from 0 to 1. */
  shade: (share: number) => number;
  label: string;
  pointed: number | null;
  onPoint: (token: number | null) => void;
};

/** One row of tokens. Arrow keys move from one to the next; each has a bar as long as its shade is dark. */
export function Tokens({ text, shares, shade, label, pointed, onPoint }: Shown) {
  const focus = (event: KeyboardEvent, place: number) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const item = event.currentTarget as HTMLElement;
    const target =
      event.key === "Home"
        ? item.parentElement?.firstElementChild
        : event.key === "End"
          ? item.parentElement?.lastElementChild
          : step && item.parentElement?.children[place + step];
    if (target) {
      event.preventDefault();
      (target as HTMLElement).focus();
    }
  };
  return (
    <ol class="tokens" aria-label={label} onMouseLeave={() => onPoint(null)}>
      {text.tokens.map((token, place) => {
        const share = shares[place] ?? 0;
        const kind = kindOf(text, place);
        return (
          <li
            key={place}
            class={[kind ? (kind === SPECIAL ? "special" : "prompt") : "", pointed === place ? "pointed" : ""].join(" ")}
            style={{ "--share": String(shade(share)) }}
            tabIndex={place === (pointed ?? 0) ? 0 : -1}
            aria-label={`${token.token}, ${percent(share)}${kind ? `, ${kind}` : ""}`}
            onMouseEnter={() => onPoint(place)}
            onFocus={() => onPoint(place)}
            onKeyDown={(event) => focus(event, place)}
          >
            <bdi>{token.token}</bdi>
          </li>
        );
      })}
    </ol>
  );
}
