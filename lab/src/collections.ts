// Collections, searches and explanations, as the API gives them.
import { ask, type Info, send } from "./api";
import { baseOf } from "./choices";

export type Chunking = { by: string; mode?: "late" | "early" };
export type Collection = {
  name: string;
  model: string | null;
  pooling: string | null;
  layers?: unknown;
  dimension: number;
  similarity: string;
  keyword?: unknown;
  count: number;
  chunking?: Chunking;
  chunks?: number;
  idle_timeout?: number;
};

export type Part = { rank: number; score: number };
export type Hit = {
  id: string;
  score: number;
  text: string;
  metadata: Record<string, unknown>;
  span?: { start: number; end: number; text: string };
  parts?: Record<string, Part>;
};
export type Hits = { hits: Hit[]; warnings?: string[] };

export type ExplainedToken = { token: string; start: number | null; end: number | null; share: number; contribution: number };
export type Pair = { index: number; token: string; other_index: number; other_token: string; contribution: number };
export type Explained = {
  head: string | null;
  truncated?: string[];
  explanations: {
    pooling: string;
    tokens: ExplainedToken[];
    other: ExplainedToken[];
    similarity: number;
    served_similarity: number;
    attribution: "exact" | "by share";
    pairs: Pair[];
  }[];
};

/** The path of a collection, or of something below it. */
export function pathOf(name: string, below = ""): string {
  return `collections/${encodeURIComponent(name)}${below}`;
}

export async function listed(signal?: AbortSignal): Promise<Collection[]> {
  return (await ask<{ collections: Collection[] }>("collections", undefined, signal)).collections;
}

/** What a collection's vectors are made with, in a few words. */
export function madeWith({ model, pooling, chunking }: Collection, info: Info): string {
  const cut = chunking ? `, ${chunking.mode ?? "late"} chunks` : "";
  if (model === null) return "vectors made elsewhere";
  const encoders = new Set(Object.values(info.models).map((one) => one.encoder));
  const own = info.models[model];
  return `${pooling}${cut}${encoders.size > 1 || !own ? `, of ${own ? baseOf(own.encoder) : model}` : ""}`;
}

export async function drop(name: string, options: RequestInit = {}): Promise<void> {
  await send("DELETE", pathOf(name), undefined, options);
}
