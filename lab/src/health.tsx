// What an operator looks at first.
import { useEffect, useState } from "preact/hooks";
import type { Info } from "./api";

export function Health({ info }: { info: Info }) {
  const [ready, setReady] = useState<string>("asking …");
  useEffect(() => {
    const look = async () => {
      try {
        const answer = await fetch("ready");
        setReady(answer.ok ? "able to serve" : "not able to serve now");
      } catch {
        setReady("no answer");
      }
    };
    void look();
    const again = window.setInterval(look, 5_000);
    return () => window.clearInterval(again);
  }, []);
  return (
    <section aria-labelledby="health-title">
      <h2 id="health-title">Health</h2>
      <p>
        Millpond {info.version} on {info.cores} cores: <output aria-live="polite">{ready}</output>.
      </p>
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
              name="speed lately"
              value={model.tokens_per_second ? `${Math.round(model.tokens_per_second)} tokens/s` : "not measured yet"}
            />
          </dl>
          {model.warnings.map((warning) => (
            <p class="problem" key={warning}>
              {warning}
            </p>
          ))}
        </article>
      ))}
    </section>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </>
  );
}
