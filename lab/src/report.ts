// What /evaluate answers, and what a report says of a guess.

export type Step = { stage: string; done: number; total: number };
export type Score = { value: number; low: number; high: number };
export type Perturbed = { level: number; score: number; lost: number; cosine: number };
export type Scored = {
  strategy: string;
  scores: Record<string, Score>;
  difference: Score | null;
  verdict: "better" | "worse" | "within noise" | null;
  robustness: Record<string, Perturbed[]>;
  information: { words_recovered: number } | null;
};
export type DataSet = {
  name: string;
  kind: string;
  items: string;
  size: number;
  texts: number;
  metrics: string[];
  reference: string;
  rows: Scored[];
  sample: number;
};
export type Report = {
  model: string;
  declared: string | null;
  runtime: string;
  strategies: { name: string; dim: number }[];
  data: DataSet[];
  choice: string;
  advice: string;
  yaml: string;
  notes: string[];
};
export type Line = { progress?: Step; report?: Report; error?: { status: number; detail: string } };

/** A number from 0 to 1 as tables show it. */
export function hundredfold(value: number): string {
  return (100 * value).toFixed(1);
}

/** The row of a pooling that is named without its parameters. */
export function rowOf(data: DataSet, guess: string): Scored | undefined {
  return data.rows.find((row) => row.strategy === guess) ?? data.rows.find((row) => row.strategy.split("(")[0] === guess);
}

/** Say how a guess has fared. */
export function judged(report: Report, data: DataSet, guess: string): string {
  const row = rowOf(data, guess);
  const chosen = rowOf(data, report.choice);
  if (!row || !chosen) return `Your guess, ${guess}, was not compared: it does not fit this model.`;
  const [own, best] = [row, chosen].map((each) => hundredfold(each.scores[data.metrics[0]!]!.value));
  if (row === chosen) return `Your guess, ${row.strategy}, is right: it is the pooling to use.`;
  const same = `Your guess, ${row.strategy}, cannot be told apart from ${report.choice}: ${own} against ${best} may be chance.`;
  const worse = `Your guess, ${row.strategy}, is worse than ${report.choice}, beyond noise: ${own} against ${best}.`;
  if (report.choice === data.reference) return row.verdict === "worse" ? worse : same;
  if (row.strategy === data.reference || row.verdict === "worse") return worse;
  const against = row.verdict === "better" ? "better than" : "not to be told apart from";
  return `Your guess, ${row.strategy}, is ${against} ${data.reference}, and ${report.choice} is the better choice: ${own} against ${best}.`;
}

// How much work each stage is, in texts that are embedded: known once it begins, until then as it mostly is.
const USUAL: Record<string, (texts: number) => number> = {
  embedding: (texts) => texts,
  scoring: () => 150,
  information: () => 300,
  robustness: (texts) => 16 + 9 * Math.min(texts, 200),
  speed: () => 1_000,
};

/** Which share of the whole work is done, from 0 to 1. */
export function share(step: Step, texts: number): number {
  const stages = Object.keys(USUAL);
  const works = stages.map((stage) => USUAL[stage]!(texts));
  const at = stages.indexOf(step.stage);
  if (at < 0) return 0;
  const before = works.slice(0, at).reduce((sum, work) => sum + work, 0);
  const all = works.reduce((sum, work) => sum + work, 0);
  return (before + works[at]! * (step.total ? step.done / step.total : 0)) / all;
}
