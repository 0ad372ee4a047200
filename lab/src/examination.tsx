// What the doctor finds of a model.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "./api";
import { Copies } from "./copy";
import { Problem } from "./problem";
import { curl, python } from "./snippets";
import "./examination.css";

type Finding = { name: string; severity: "ok" | "warning" | "fault"; seen: string; remedy: string };
type Report = { verdict: string; findings: Finding[] };

const MARKS = { ok: "✓", warning: "!", fault: "✗" };

/** A button that has a model examined, and what was found. */
export function Examination({ model }: { model: string }) {
  const [report, setReport] = useState<Report | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const aborter = useRef<AbortController | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => () => aborter.current?.abort(), []);
  const path = `doctor?model=${encodeURIComponent(model)}`;
  const examine = async () => {
    const { signal } = (aborter.current = new AbortController());
    setBusy(true);
    setError(null);
    try {
      const { models } = await ask<{ models: Record<string, Report> }>(path, undefined, signal);
      setReport(models[model] ?? null);
    } catch (problem) {
      if (signal.aborted) return;
      setError(problem as Error);
    }
    setBusy(false);
  };
  return (
    <div class="examination" aria-busy={busy}>
      {!report && (
        <p>
          <button type="button" onClick={examine} disabled={busy} aria-label={`Examine ${model}`}>
            {busy ? "Examining …" : "Examine"}
          </button>{" "}
          <small>
            {busy
              ? "It embeds some texts by this service and by sentence-transformers, and compares: some ten seconds."
              : "Is it served as its checkpoint declares? The doctor looks."}
          </small>
        </p>
      )}
      {error && <Problem error={error} onKey={examine} />}
      {report && (
        <>
          <p aria-live="polite">
            <b>{report.verdict}</b>
          </p>
          <div class="scrolled" tabIndex={0} role="region" aria-label={`What the doctor found of ${model}`}>
            <table>
              <thead>
                <tr>
                  <th scope="col">looked at</th>
                  <th scope="col">found</th>
                  <th scope="col">what was seen</th>
                </tr>
              </thead>
              <tbody>
                {report.findings.map((finding) => (
                  <tr key={finding.name} class={finding.severity}>
                    <th scope="row">{finding.name}</th>
                    <td>
                      <span aria-hidden="true">{MARKS[finding.severity]}</span> {finding.severity}
                    </td>
                    <td>
                      {finding.seen}
                      {finding.remedy && <p>{finding.remedy}</p>}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <Copies of={{ curl: () => curl(path), Python: () => python(path) }} />
        </>
      )}
    </div>
  );
}
