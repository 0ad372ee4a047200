// Look at texts: what every chosen strategy keeps of them.
import { useMemo, useState } from "preact/hooks";
import { Matrix, Ranking } from "./alike";
import { ask, type Compared, type Info } from "./api";
import { Copies } from "./copy";
import { useLatest } from "./latest";
import { Problem } from "./problem";
import { curl, python, yaml } from "./snippets";
import { kindOf, percent, type Pointed, Tokens } from "./tokens";

const FIRST = ["mean", "cls", "max", "last", "weighted_mean", "gem(p=3)"];
const EXAMPLES = ["The old mill by the pond grinds no more grain.", "A wheel turns in the water of the river.", "My invoice from March is wrong."];
const MOST_TEXTS = 64;
const NUMBERS = 6;

/** One line a text; lines of blanks alone are none. */
export function lines(written: string): string[] {
  return written.split("\n").map((line) => line.trim()).filter(Boolean);
}

export function Texts({ info }: { info: Info }) {
  const [written, write] = useState(EXAMPLES.join("\n"));
  const [model, setModel] = useState(info.default_model);
  const own = info.models[model]?.pooling ?? "mean";
  const [more, setMore] = useState<string[]>([]);
  const offered = useMemo(() => [...new Set([own, ...FIRST, ...more])], [own, more]);
  const [chosen, choose] = useState<string[]>([own, "max", "cls"].filter((name, place, all) => all.indexOf(name) === place));
  const [pointed, point] = useState<Pointed>(null);
  const [tries, setTries] = useState(0);
  const routes = info.models[model]?.routes;
  const [role, setRole] = useState("document");

  const texts = lines(written);
  const poolings = offered.filter((name) => chosen.includes(name));
  const body = { texts, pooling: poolings, model, truncate: true, numbers: NUMBERS, ...(routes ? { input_type: role } : {}) };
  const ready = texts.length > 0 && texts.length <= MOST_TEXTS && poolings.length > 0;
  const { answer, error, busy } = useLatest(ready ? { body, tries } : null, (input, signal) =>
    ask<Compared>("compare", input.body, signal),
  );

  return (
    <section aria-labelledby="texts-title" aria-busy={busy}>
      <h2 id="texts-title">Look at texts</h2>
      <div class="controls">
        <label class="wide">
          Texts, one a line
          <textarea rows={4} value={written} dir="auto" onInput={(event) => write(event.currentTarget.value)} />
        </label>
        {Object.keys(info.models).length > 1 && (
          <label>
            Model
            <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
              {Object.keys(info.models).map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
        )}
        {routes && (
          <label>
            Texts are{" "}
            <select value={role} onChange={(event) => setRole(event.currentTarget.value)}>
              <option value="document">documents</option>
              <option value="query">queries</option>
            </select>
          </label>
        )}
        <fieldset>
          <legend>Poolings</legend>
          {offered.map((name) => (
            <label key={name} class="choice">
              <input
                type="checkbox"
                checked={chosen.includes(name)}
                onChange={() => choose(chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name])}
              />
              {name}
              {name === own && <small> (served)</small>}
            </label>
          ))}
          <form
            onSubmit={(event) => {
              event.preventDefault();
              const field = event.currentTarget.elements.namedItem("another") as HTMLInputElement;
              const name = field.value.trim();
              if (!name) return;
              setMore([...more, name]);
              choose([...chosen, name]);
              field.value = "";
            }}
          >
            <label>
              Another <input name="another" placeholder="kmax(k=3)" list="strategies" spellcheck={false} />
            </label>
            <datalist id="strategies">
              {info.poolings.map((name) => (
                <option key={name} value={name} />
              ))}
            </datalist>
            <button type="submit">Add</button>
          </form>
        </fieldset>
      </div>
      {texts.length === 0 && <p class="note">Write a text above, and see what each pooling makes of it.</p>}
      {texts.length > MOST_TEXTS && (
        <p class="note">
          {texts.length} lines are written, and {MOST_TEXTS} texts are compared at once. Take some out.
        </p>
      )}
      {poolings.length === 0 && <p class="note">Choose a pooling.</p>}
      {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
      {!answer && busy && <p class="note">Embedding …</p>}
      {answer && ready && (
        <>
          <Copies
            of={{
              curl: () => curl("compare", body),
              Python: () => python("compare", body),
              // A model with routes has two encoders, and its folder is not told.
              ...(routes ? {} : { YAML: () => yaml(model, info.models[model]?.encoder ?? "", poolings[0] ?? own) }),
            }}
          />
          <p class="note">
            A token's shade and bar are its share of the text's vector, measured against the largest share in its row. Dashed ones stand
            for no characters of yours. Point at one, or reach it by Tab and the arrow keys, to read its share under each pooling.
          </p>
          <Seen answer={answer} pointed={pointed} onPoint={point} />
          {answer.texts.length > 1 && (
            <>
              <h3>How alike</h3>
              <p class="note">The cosine of each two texts, by their numbers above.</p>
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

type SeenProps = { answer: Compared; pointed: Pointed; onPoint: (to: Pointed) => void };

function Seen({ answer, pointed, onPoint }: SeenProps) {
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
                  label={`Tokens of text ${place + 1} under ${view.pooling}`}
                  pointed={pointed?.text === place ? pointed.token : null}
                  onPoint={(token) => onPoint(token === null ? null : { text: place, token })}
                />
                <p class="vector">
                  largest share {percent(Math.max(...seen.shares))}; norm {seen.norm.toFixed(3)}; {view.dimension} numbers: {seen.vector.map((number) => number.toFixed(4)).join("  ")} …
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
