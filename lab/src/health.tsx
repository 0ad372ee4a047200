// What an operator looks at first.
import { useEffect, useState } from "preact/hooks";
import { ask, type Info, type Load, Offline, Refused } from "./api";
import { Copies } from "./copy";
import { Examination } from "./examination";
import { useKept } from "./kept";
import { Problem } from "./problem";
import { curl, python } from "./snippets";
import { Spark } from "./spark";
import "./health.css";

const EVERY = 2_000; // milliseconds
const KEPT = 60; // moments: two minutes

type Moment = { load: Load; at: number };

export function Health({ info: first }: { info: Info }) {
  const [info, setInfo] = useState(first);
  const [moments, setMoments] = useKept<Moment[]>("health.moments", []);
  const [ready, setReady] = useState("asking …");
  const [error, setError] = useState<Error | null>(null);
  const [tries, setTries] = useState(0);
  useEffect(() => {
    const aborter = new AbortController();
    let timer = 0;
    const look = async () => {
      try {
        const now = await ask<Info>("info", undefined, aborter.signal);
        setInfo(now);
        setMoments((before) => [...before, { load: now.load, at: performance.now() }].slice(-KEPT));
        setError(null);
        await ask("ready", undefined, aborter.signal);
        setReady("able to serve");
      } catch (problem) {
        if (aborter.signal.aborted) return;
        if (problem instanceof Refused && problem.status === 503) setReady(`not able to serve now: ${problem.message}`);
        else setError(problem as Error);
        if (problem instanceof Offline) setReady("no answer");
      }
      timer = window.setTimeout(look, EVERY);
    };
    void look();
    return () => {
      aborter.abort();
      window.clearTimeout(timer);
    };
  }, [tries]);
  return (
    <section aria-labelledby="health-title">
      <h2 id="health-title">Health</h2>
      <p>
        Millpond {info.version} on {info.cores} cores: <output aria-live="polite">{ready}</output>
      </p>
      {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
      <div class={error ? "stale" : undefined}>
        <Figures info={info} moments={moments} />
      </div>
      <Copies of={{ curl: () => curl("info"), Python: () => python("info") }} />
      <div class="models">
        {Object.entries(info.models).map(([name, model]) => (
          <article key={name}>
            <h3>
              {name} {name === info.default_model && <small>used where a request names no model</small>}
            </h3>
            <dl>
              <Fact name="encoder" value={model.encoder} />
              <Fact name="pooling declared" value={model.declared_pooling ?? "none"} />
              <Fact name="pooling served" value={model.pooling} />
              <Fact name="dimensions" value={`${model.dimension}${model.normalize ? ", normalised" : ""}`} />
              <Fact name="longest text" value={`${model.max_tokens} tokens`} />
              <Fact name="fingerprint" value={model.fingerprint} />
              <Fact name="runs on" value={`${model.backend} ${model.precision}, ${model.streams} streams`} />
              <Fact
                name="speed when busy"
                value={model.tokens_per_second ? `${count(Math.round(model.tokens_per_second))} tokens/s` : "not measured yet"}
              />
              <Fact name="vectors made" value={count(info.load.models[name]?.vectors ?? 0)} />
            </dl>
            {model.warnings.map((warning) => (
              <p class="warning" key={warning}>
                <b>Note:</b> {warning}
              </p>
            ))}
            <Examination model={name} />
          </article>
        ))}
      </div>
    </section>
  );
}

/** What the service is at, and how that went since this panel was first opened. */
function Figures({ info, moments }: { info: Info; moments: Moment[] }) {
  const { load, limits } = info;
  const vectors = between(moments, (of) => Object.values(of.models).reduce((sum, model) => sum + model.vectors, 0));
  const cores = between(moments, (of) => of.cpu_seconds);
  const every = (of: (load: Load) => number) => moments.map((moment) => of(moment.load));
  // Models of one encoder wait in one queue, and each tells of it.
  const queued = (of: Load) => Math.max(0, ...Object.values(of.models).map((model) => model.queued_tokens));
  const failed = (of: Load) => of.answers.failed;
  const within = quantile(0.95, moments[0]?.load, load);
  const megabytes = (of: Load) => (of.resident_bytes ?? 0) / 1e6;
  return (
    <div class="sparks">
      <Spark name="Vectors a second" value={count(Math.round(vectors.at(-1) ?? 0))} values={vectors} />
      <Spark name="Cores busy" value={(cores.at(-1) ?? 0).toFixed(1)} values={cores} most={info.cores} note={`of ${info.cores}`} />
      <Spark
        name="Tokens that wait"
        value={count(queued(load))}
        values={every(queued)}
        note={`refused beyond ${count(limits.max_queued_tokens)}`}
      />
      <Spark name="Requests under way" value={count(load.requests)} values={every((of) => of.requests)} note={`this page among them; of ${count(limits.max_requests)}`} />
      <Spark
        name="95 % answered within"
        value={within === null ? "no answer yet" : within === Infinity ? "over 60 s" : `${1_000 * within} ms`}
        values={[]}
        note="requests that do work, last two minutes"
      />
      <Spark
        name="Failed"
        value={count(failed(load) - failed(moments[0]?.load ?? load))}
        values={between(moments, failed)}
        note={`answers 5xx since you look; ${count(failed(load))} since the start`}
      />
      <Spark
        name="Memory"
        value={load.resident_bytes === null ? "not known" : `${count(Math.round(megabytes(load)))} MB`}
        values={every(megabytes)}
        note="resident"
      />
      <Spark name="Up for" value={duration(load.uptime_seconds)} values={[]} />
    </div>
  );
}

/** The bound in seconds that a share of the answers between two moments, or since the start where there was none, kept. */
function quantile(share: number, before: Load | undefined, now: Load): number | null {
  const total = now.answers.total - (before?.answers.total ?? 0);
  if (total <= 0) return before ? quantile(share, undefined, now) : null;
  const found = now.answers.seconds.find(([, count], place) => count - (before?.answers.seconds[place]?.[1] ?? 0) >= share * total);
  return found?.[0] ?? Infinity;
}

/** How fast something that only grows did so between each two moments, by the second. */
function between(moments: Moment[], of: (load: Load) => number): number[] {
  return moments.slice(1).map(({ load, at }, place) => {
    const before = moments[place]!;
    return Math.max(0, of(load) - of(before.load)) / ((at - before.at) / 1_000); // less where the service has restarted
  });
}

function count(number: number): string {
  return number.toLocaleString("en");
}

function duration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2_880 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1_440)} days`;
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </>
  );
}
