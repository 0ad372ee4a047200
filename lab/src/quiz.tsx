// A quiz: guess which pooling an encoder should use, and have it measured.
import { useState } from "preact/hooks";
import type { Info } from "./api";
import { textOf } from "./cells";
import { ModelChoice, useModel } from "./choices";
import { Copies } from "./copy";
import { useKept } from "./kept";
import { type Outcome, type Run, useMeasuring } from "./measuring";
import { Problem } from "./problem";
import { judged, rowOf, share } from "./report";
import { megabytes, MOST_BYTES, MOST_ROWS, read, tooLarge } from "./rows";
import { Heading, Scores } from "./scores";
import { curl, pythonByLine, yaml } from "./snippets";
import "./quiz.css";

const POOLINGS: Record<string, string> = {
  mean: "the average of all tokens",
  cls: "the first token alone",
  last: "the last token alone",
  max: "the largest number in each dimension",
  weighted_mean: "an average in which later tokens count more",
  mean_sqrt_len: "the sum, divided by the square root of the length",
  gem: "something between mean and max",
  kmax: "the average of the three largest numbers",
  logsumexp: "a softer max",
  "mean + max": "both, one after the other",
  piecewise: "the max of each third of the text",
};
const STAGES: Record<string, string> = {
  embedding: "Embedding the texts under every pooling",
  scoring: "Scoring, and drawing samples for the intervals",
  information: "Asking what words can be read from the vectors",
  robustness: "Disturbing texts, to see what is left of the scores",
  speed: "Timing the poolings",
};
const SHELL = 100_000; // characters that a command line takes

type Source = "examples" | "own";

export function Quiz({ info }: { info: Info }) {
  const model = useModel(info);
  const [guess, setGuess] = useKept("quiz.guess", "");
  const [source, setSource] = useKept<Source>("quiz.source", "examples");
  const [written, write] = useKept("quiz.written", "");
  const [file, setFile] = useKept<File | null>("quiz.file", null);
  const measuring = useMeasuring();
  const { run, said, error, outcome } = measuring;

  const begin = () => {
    if (source === "examples") return void measuring.begin({ model: model.name, data: "examples" }, guess);
    const rows = read(file ? file.written : written);
    if (typeof rows === "string") return measuring.fail(new Error(rows));
    const said = rows.left ? `Of ${rows.rows.length + rows.left} rows the first ${rows.rows.length} are compared.` : "";
    void measuring.begin({ model: model.name, [rows.layout]: rows.rows }, guess, said);
  };

  return (
    <section class="quiz" aria-labelledby="quiz-title" aria-busy={run !== null}>
      <h2 id="quiz-title">Quiz</h2>
      <p>
        An encoder gives a vector for each token, and pooling makes one vector of them. Which pooling should this encoder use? Guess, then
        have every one measured on the same texts.
      </p>
      <ModelChoice info={info} of={model} roles={false} />
      <fieldset disabled={run !== null}>
        <legend>Your guess, if you like</legend>
        <div class="guesses">
          {Object.entries(POOLINGS).map(([name, about], place) => (
            <label key={name} class="guess">
              <input
                type="radio"
                name="guess"
                aria-labelledby={`guess-${place}`}
                aria-describedby={`about-${place}`}
                checked={guess === name}
                onChange={() => setGuess(name)}
              />
              <b id={`guess-${place}`}>{name}</b>
              <small id={`about-${place}`}>{about}</small>
            </label>
          ))}
        </div>
      </fieldset>
      <fieldset disabled={run !== null}>
        <legend>Texts to measure it on</legend>
        <label class="source">
          <input type="radio" name="source" checked={source === "examples"} onChange={() => setSource("examples")} /> 100 pairs of
          sentences that come with the service
        </label>
        <label class="source">
          <input type="radio" name="source" checked={source === "own"} onChange={() => setSource("own")} /> Data of my own
        </label>
        {source === "examples" ? (
          <p class="note">
            These pairs are few, and only show how it works: expect wide intervals, and measure on data of your own before you decide.
          </p>
        ) : (
          <Own written={written} write={write} file={file} setFile={setFile} fail={(wrong) => measuring.fail(wrong)} />
        )}
      </fieldset>
      <div class="run">
        <button type="button" disabled={run !== null} onClick={begin}>
          Run
        </button>
        {run && (
          <>
            <Going run={run} />
            <button type="button" onClick={() => measuring.stop()}>
              Stop
            </button>
          </>
        )}
        <output aria-live="polite">{said}</output>
      </div>
      {error && <Problem error={error} onKey={begin} />}
      {outcome && run && <p class="note">What follows is of the run before.</p>}
      {outcome && <Answer outcome={outcome} encoder={info.models[outcome.body.model]?.encoder ?? outcome.report.model} />}
    </section>
  );
}

type File = { name: string; bytes: number; written: string };
type OwnProps = {
  written: string;
  write: (to: string) => void;
  file: File | null;
  setFile: (to: File | null) => void;
  fail: (error: Error | null) => void;
};

/** Where one pastes rows, or drops or chooses a file of them. A file is not shown, as it may be long. */
function Own({ written, write, file, setFile, fail }: OwnProps) {
  const [over, setOver] = useState(false);
  const take = async (chosen: globalThis.File | undefined) => {
    if (!chosen) return;
    const large = tooLarge(chosen.name, chosen.size);
    fail(large ? new Error(large) : null);
    if (large) return;
    try {
      setFile({ name: chosen.name, bytes: chosen.size, written: await textOf(chosen) });
    } catch (error) {
      fail(error as Error);
    }
  };
  const paste = (event: ClipboardEvent) => {
    const large = tooLarge("What you pasted", new Blob([event.clipboardData?.getData("text") ?? ""]).size);
    if (!large) return;
    event.preventDefault();
    fail(new Error(large));
  };
  return (
    <div
      class={over ? "own over" : "own"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        void take(event.dataTransfer?.files[0]);
      }}
    >
      {file ? (
        <p>
          <bdi>{file.name}</bdi>, {megabytes(file.bytes)}{" "}
          <button type="button" onClick={() => setFile(null)}>
            Take it away
          </button>
        </p>
      ) : (
        <label>
          Rows as CSV, TSV or lines of JSON: paste them, or drop a file here
          <textarea
            rows={8}
            value={written}
            dir="auto"
            spellcheck={false}
            placeholder={"sentence1,sentence2,score\nA wheel turns.,The wheel goes round.,4.5"}
            onPaste={paste}
            onInput={(event) => write(event.currentTarget.value)}
          />
        </label>
      )}
      <label>
        {file ? "Another file" : "Or choose a file"}{" "}
        <input type="file" accept=".csv,.tsv,.jsonl,.json,.txt" onChange={(event) => take(event.currentTarget.files?.[0])} />
      </label>
      <p class="note">
        The first line names the columns: <b>sentence1, sentence2, score</b> (how alike they are, on any scale); or <b>anchor, positive</b> (texts that belong
        together); or <b>text, label</b>. From 20 to {MOST_ROWS.toLocaleString("en")} rows, up to {megabytes(MOST_BYTES)}. They are sent to
        this service alone, and not kept.
      </p>
    </div>
  );
}

/** How far it is, and about how long it still takes. */
function Going({ run }: { run: Run }) {
  const done = run.step ? share(run.step, run.texts) : 0;
  const seconds = (performance.now() - run.begun) / 1000;
  const left = done > 0.02 && seconds > 2 ? Math.ceil((seconds * (1 - done)) / done / 5) * 5 : null;
  return (
    <>
      <progress aria-label="Progress of the run" max={1} value={done} />
      <span role="status">{run.step ? (STAGES[run.step.stage] ?? run.step.stage) : "Beginning"} …</span>
      {left !== null && <span class="note">about {Math.max(left, 5)} seconds left</span>}
    </>
  );
}

function Answer({ outcome: { report, guess, body }, encoder }: { outcome: Outcome; encoder: string }) {
  const data = report.data[0]!;
  const written = JSON.stringify(body);
  const named = written.length < SHELL ? undefined : "@body.json"; // longer ones no shell takes
  return (
    <>
      <h3>
        {body.data ? "The packaged pairs" : "Your data"} <small>{`${report.model}, ${report.runtime}`}</small>
      </h3>
      <div class="answer" role="group" aria-label="The answer">
        {guess && <p>{judged(report, data, guess)}</p>}
        <p>{report.advice}</p>
        <p>
          In the service's config: <code>{report.yaml}</code>
        </p>
      </div>
      {report.notes.map((note) => (
        <p class="note" key={note}>
          {note}
        </p>
      ))}
      <Heading data={data} />
      <Scores report={report} data={data} guess={guess ? (rowOf(data, guess)?.strategy ?? null) : null} />
      <p class="note">
        A line is a 95 % interval. Those of two scores may overlap and the poolings still differ: what decides is the interval of their difference on
        the same {data.items}. Where it holds zero, chance alone may explain the difference, and the two cannot be told apart on so little data. “Lost”
        is by how much the score falls when a fifth of the words is replaced or dropped, or the second half of each text is cut off.
        {data.rows.some((row) => row.information) && " “Words kept” is how many of a text's words a classifier finds in its vector alone."}
      </p>
      <Copies
        of={{
          curl: () => `${curl("evaluate", named ?? body).replace(/^curl -s/, "curl -sN").replace(/-d '"@body.json"'/, "-d @body.json")}`,
          Python: () => pythonByLine("evaluate", body, named && "body.json"),
          YAML: () => yaml(body.model, encoder, rowOf(data, report.choice)?.strategy ?? report.choice),
        }}
      />
    </>
  );
}
