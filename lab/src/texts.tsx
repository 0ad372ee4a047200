// Look at texts: what every chosen strategy keeps of them.
import { useRef, useState } from "preact/hooks";
import { Matrix, Ranking } from "./alike";
import { ask, type Compared, type Info } from "./api";
import { ModelChoice, PoolingChoice, useModel, usePoolings } from "./choices";
import { Copies } from "./copy";
import { TextField } from "./field";
import { useKept } from "./kept";
import { useLatest } from "./latest";
import { Problem } from "./problem";
import { curl, python, yaml } from "./snippets";
import { byLargest, kindOf, onOneScale, percent, type Pointed, Scale, Tokens } from "./tokens";

const EXAMPLES = [
  "A wheel turns in the water of the river.",
  "The bank of the river is steep.",
  "The bank charges a fee for every transfer.",
  "We sat on the bank and watched the barges pass.",
];
const MOST_TEXTS = 64;
const NUMBERS = 6;

/** One line a text; lines of blanks alone are none. */
export function lines(written: string): string[] {
  return written.split("\n").map((line) => line.trim()).filter(Boolean);
}

export function Texts({ info }: { info: Info }) {
  const [written, write] = useKept("texts.written", EXAMPLES.join("\n"));
  const model = useModel(info);
  const own = model.model.pooling;
  const poolings = usePoolings("texts", own, ["cls", "max"]);
  const [pointed, point] = useState<Pointed>(null);
  const [byRow, setByRow] = useKept("texts.by-row", false);
  const [tries, setTries] = useState(0);
  const alike = useRef<HTMLHeadingElement>(null);

  const texts = lines(written);
  const body = { texts, pooling: poolings.chosen, ...model.fields, truncate: true, numbers: NUMBERS };
  const ready = texts.length > 0 && texts.length <= MOST_TEXTS && poolings.chosen.length > 0;
  const { answer, error, busy } = useLatest(ready ? { body, tries } : null, (input, signal) =>
    ask<Compared>("compare", input.body, signal),
  );

  return (
    <section aria-labelledby="texts-title" aria-busy={busy}>
      <h2 id="texts-title">Look at texts</h2>
      <p class="note">
        An encoder gives one vector for each token of a text, and pooling makes a single vector of them. See which tokens each pooling takes it
        from, and which texts are alike under it.
      </p>
      <div class="controls">
        <TextField label="Texts, one a line" rows={4} value={written} onWrite={write} />
        <div>
          <ModelChoice info={info} of={model} />
          <PoolingChoice info={info} of={poolings} model={model} />
        </div>
      </div>
      {texts.length === 0 && <p class="note">Write a text above, and see what each pooling makes of it.</p>}
      {texts.length > MOST_TEXTS && (
        <p class="note">
          {texts.length} lines are written, and {MOST_TEXTS} texts are compared at once. Take some out.
        </p>
      )}
      {poolings.chosen.length === 0 && <p class="note">Choose a pooling.</p>}
      {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
      {!answer && busy && <p class="note">Embedding …</p>}
      {answer && ready && (
        <>
          <Copies
            of={{
              curl: () => curl("compare", body),
              Python: () => python("compare", body),
              // A model with routes has two encoders, and its folder is not told.
              ...(model.model.routes ? {} : { YAML: () => yaml(model.name, model.model.encoder, poolings.chosen[0] ?? own) }),
            }}
          />
          <p class="note">
            A token's shade and bar are its share of the text's vector{byRow ? ", against the largest share of its row:" : <>: <Scale />.</>}{" "}
            <label>
              <input type="checkbox" checked={byRow} onChange={() => setByRow(!byRow)} /> shade each row by its own largest share
            </label>
          </p>
          <p class="note">
            Dashed tokens stand for no characters of yours. Point at a token, or reach it by Tab and the arrow keys, to read its share under
            each pooling.
          </p>
          {answer.texts.length > 4 && (
            <button type="button" onClick={() => alike.current?.scrollIntoView()}>
              Down to how alike they are
            </button>
          )}
          <Seen answer={answer} normalized={model.model.normalize} byRow={byRow} pointed={pointed} onPoint={point} />
          {answer.texts.length > 1 && (
            <>
              <h3 ref={alike}>How alike</h3>
              <p class="note">
                The cosine of each two texts, by their numbers above. Each pooling has a scale of its own: compare the order of pairs between
                poolings, and not their cosines.
              </p>
              <div class="matrices" tabIndex={0} role="region" aria-label="Cosines">
                {answer.views.map((view) => (
                  <Matrix key={view.pooling} view={view} />
                ))}
              </div>
              <p class="note">
                Pairs of texts, those that are most alike under the first pooling first: the rank of each pair and its cosine. An
                arrow tells how far it moved against the pooling to its left.
              </p>
              <div class="scrolled" tabIndex={0} role="region" aria-label="Ranks of pairs">
                <Ranking views={answer.views} count={answer.texts.length} />
              </div>
            </>
          )}
        </>
      )}
    </section>
  );
}

type SeenProps = { answer: Compared; normalized: boolean; byRow: boolean; pointed: Pointed; onPoint: (to: Pointed) => void };

function Seen({ answer, normalized, byRow, pointed, onPoint }: SeenProps) {
  return (
    <>
      {answer.texts.map((text, place) => (
        <article key={place}>
          <h3>
            Text {place + 1}{" "}
            <small>
              {text.tokens.length} of {answer.limit} tokens{text.truncated && ", cut: what is beyond was not read"}
            </small>
          </h3>
          {answer.views.map((view) => {
            const seen = view.texts[place]!;
            return (
              <div class="strategy" key={view.pooling}>
                <h4>{view.pooling}</h4>
                <Tokens
                  text={text}
                  shares={seen.shares}
                  shade={byRow ? byLargest(seen.shares) : onOneScale}
                  label={`Tokens of text ${place + 1} under ${view.pooling}`}
                  pointed={pointed?.text === place ? pointed.token : null}
                  onPoint={(token) => onPoint(token === null ? null : { text: place, token })}
                />
                <p class="vector">
                  largest share {percent(Math.max(...seen.shares))}; L2 norm as pooled {seen.norm.toFixed(3)}; first of {view.dimension} numbers
                  {normalized && ", normalised"}: {seen.vector.map((number) => number.toFixed(4)).join("  ")}{"\u00a0…"}
                </p>
              </div>
            );
          })}
          <p class="pointed-at" aria-live="polite">
            {pointed?.text === place && <Shares answer={answer} text={place} token={pointed.token} />}
          </p>
        </article>
      ))}
    </>
  );
}

function Shares({ answer, text, token }: { answer: Compared; text: number; token: number }) {
  const of = answer.texts[text];
  const kind = of ? kindOf(of, token) : "";
  return (
    <>
      <bdi>
        <b>{of?.tokens[token]?.token}</b>
      </bdi>
      {kind && ` (${kind})`}: {answer.views.map((view) => `${view.pooling} ${percent(view.texts[text]?.shares[token] ?? 0)}`).join(", ")}
    </>
  );
}
