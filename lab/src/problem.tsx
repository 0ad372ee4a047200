import { Refused, useKey } from "./api";

/** What went wrong, in the service's words, and what to do where a key is missing or is of another scope. */
export function Problem({ error, onKey }: { error: Error; onKey: () => void }) {
  const status = error instanceof Refused ? error.status : 0;
  return (
    <div role="alert" class="problem">
      <p>{error.message}</p>
      {(status === 401 || status === 403) && <KeyForm onKey={onKey} />}
      {status === 503 && <p>The service has more work than it takes. Change something to try again.</p>}
    </div>
  );
}

function KeyForm({ onKey }: { onKey: () => void }) {
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        useKey(String(new FormData(event.currentTarget).get("key") ?? ""));
        onKey();
      }}
    >
      <label>
        API key <input name="key" type="password" autocomplete="off" spellcheck={false} required />
      </label>
      <button type="submit">Use this key</button>
      <small>It stays in the memory of this page, and is gone when you close it.</small>
    </form>
  );
}
