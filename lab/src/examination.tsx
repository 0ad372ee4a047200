// What the doctor finds of a model.
import { ask } from "./api";
import { Copies } from "./copy";
import { Problem } from "./problem";
import { Shared, useShared } from "./shared";
import { curl, python } from "./snippets";
import "./examination.css";

type Finding = { name: string; severity: "ok" | "warning" | "fault"; seen: string; remedy: string };
type Report = { verdict: string; findings: Finding[] };

const MARKS = { ok: "✓", warning: "!", fault: "✗" };

type State = { report?: Report | null; error?: Error | null; busy?: boolean };

/** What was found of each model; an examination goes on while one looks at other panels. */
class Examinations extends Shared {
  private readonly states = new Map<string, State>();

  of(model: string): State {
    return this.states.get(model) ?? {};
  }

  async begin(model: string): Promise<void> {
    this.change(model, { busy: true });
    try {
      const { models } = await ask<{ models: Record<string, Report> }>(pathOf(model));
      this.change(model, { report: models[model] ?? null });
    } catch (problem) {
      this.change(model, { error: problem as Error });
    }
  }

  private change(model: string, to: State): void {
    this.states.set(model, to);
    this.tell();
  }
}

const all = new Examinations();

function pathOf(model: string): string {
  return `doctor?model=${encodeURIComponent(model)}`;
}

/** A button that has a model examined, and what was found. */
export function Examination({ model }: { model: string }) {
  const examinations = useShared(all);
  const { report = null, error = null, busy = false } = examinations.of(model);
  const path = pathOf(model);
  const examine = () => void examinations.begin(model);
  return (
    <div class="examination" aria-busy={busy}>
      {!report && (
        <p>
          <button type="button" onClick={examine} disabled={busy} aria-label={`Examine ${model}`}>
            {busy ? "Examining …" : "Examine"}
          </button>{" "}
          <small>
            {busy
              ? "It embeds some texts by this service and by sentence-transformers, and compares: ten seconds, or a minute beside other work."
              : "Is it served as its checkpoint declares? Compares it with sentence-transformers."}
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
