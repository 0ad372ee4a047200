// Why a document matched: the tokens that made it similar to the query, and the words that both have.
import { useState } from "preact/hooks";
import { ask, type Info } from "./api";
import type { Collection, Explained, ExplainedToken, Hit, Part } from "./collections";
import { useLatest } from "./latest";
import { Problem } from "./problem";

const MOST_PAIRS = 5;

type Props = { hit: Hit; collection: Collection; query: string; mode: string; info: Info };

export function Why({ hit, collection, query, mode, info }: Props) {
  const served = collection.model === null ? undefined : info.models[collection.model];
  const other = hit.span ? hit.span.text : hit.text;
  const own = served && served.pooling === collection.pooling && !collection.layers; // learned ones have no name that gives them again
  const body = {
    text: query,
    other,
    model: collection.model,
    ...(own ? {} : { pooling: collection.pooling, ...(collection.layers ? { layers: collection.layers } : {}) }),
    input_type: "query",
    other_input_type: "document",
    truncate: true,
  };
  const byMeaning = mode !== "keyword" && collection.model !== null;
  const [tries, setTries] = useState(0);
  const { answer, error } = useLatest(byMeaning ? { body, tries } : null, (input, signal) => ask<Explained>("explain", input.body, signal));
  const found = answer?.explanations[0];
  const most = found ? Math.max(...[...found.tokens, ...found.other].map((token) => Math.abs(token.contribution))) : 0;
  return (
    <div class="why" role="group" aria-label={`Why ${hit.id} matched`}>
      {hit.parts && <Parts parts={hit.parts} />}
      {mode !== "dense" && <Words query={query} text={hit.text} />}
      {collection.model === null && <p class="note">Its vectors were made elsewhere, so its tokens are not known here.</p>}
      {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
      {byMeaning && !answer && !error && <p class="note">Asking …</p>}
      {found && answer && (
        <>
          <p class="note">
            {collection.similarity === "cosine" ? "Cosine" : "Cosine of the vectors"} {found.served_similarity.toFixed(4)}
            {answer.head && `, and ${found.similarity.toFixed(4)} before ${answer.head}, which is what tokens add up to`}. Each number is what a token adds.
            {found.attribution === "by share" && " This pooling is no sum over tokens: it is divided by their shares."}
          </p>
          <Added title="Query" tokens={found.tokens} most={most} />
          <Added title={hit.span ? "Chunk" : "Document"} tokens={found.other} most={most} />
          <h4>Strongest pairs</h4>
          <ol class="pairs">
            {found.pairs.slice(0, MOST_PAIRS).map((pair) => (
              <li key={`${pair.index},${pair.other_index}`}>
                <bdi>{pair.token}</bdi> ~ <bdi>{pair.other_token}</bdi> {signed(pair.contribution)}
              </li>
            ))}
          </ol>
          {collection.chunking?.mode === "late" && (
            <p class="note">Here the chunk is read by itself. It was stored as read within its document, so its score differs.</p>
          )}
          {answer.truncated && <p class="note">It is longer than the model reads; what is beyond was not read.</p>}
        </>
      )}
    </div>
  );
}

/** Tokens of a text, shaded by what each adds; what takes away has a dashed border and a minus. */
function Added({ title, tokens, most }: { title: string; tokens: ExplainedToken[]; most: number }) {
  return (
    <>
      <h4>{title}</h4>
      <ol class="tokens" aria-label={`Tokens of the ${title.toLowerCase()}`}>
        {tokens.map((token, place) => (
          <li
            key={place}
            class={`${token.start === null ? "special" : ""}${token.contribution < 0 ? " less" : ""}`}
            style={{ "--share": String(Math.abs(token.contribution) / (most || 1)) }}
          >
            <bdi>{token.token}</bdi> <small>{signed(token.contribution)}</small>
          </li>
        ))}
      </ol>
    </>
  );
}

function Parts({ parts }: { parts: Record<string, Part> }) {
  const names: Record<string, string> = { dense: "by meaning", keyword: "by words", hybrid: "by both" };
  return (
    <p>
      {Object.entries(parts).map(([name, { rank, score }]) => `Rank ${rank} ${names[name] ?? name}, score ${score.toFixed(4)}. `)}
    </p>
  );
}

/** Words of the query that stand in the text as they are. */
function Words({ query, text }: { query: string; text: string }) {
  const wordsOf = (written: string) => written.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const there = new Set(wordsOf(text));
  const both = [...new Set(wordsOf(query))].filter((word) => there.has(word));
  return (
    <p>
      {both.length ? "Words of the query in the text: " : "No word of the query stands in the text as it is written."}
      {both.map((word) => (
        <mark key={word}>{word}</mark>
      ))}
    </p>
  );
}

function signed(number: number): string {
  return `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(4)}`;
}
