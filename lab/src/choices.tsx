// What several panels let one choose: a model, what texts are for, and poolings.
import { useMemo, useState } from "preact/hooks";
import { ask, type Info, type Model } from "./api";
import { useKept } from "./kept";
import { Problem } from "./problem";

const OWN = ""; // the model's own pooling, whichever model is chosen
const FIRST = ["mean", "cls", "max", "last", "weighted_mean", "gem(p=3)"];

export type Role = "document" | "query";

export type Choice = {
  name: string;
  model: Model;
  setName: (name: string) => void;
  role: Role;
  setRole: (role: Role) => void;
  /** Fields of a request that say which model it is for, and what its texts are where that matters. */
  fields: { model: string; input_type?: Role };
};

/** The model that is chosen on all panels, and what texts are for. */
export function useModel(info: Info): Choice {
  const [chosen, setName] = useKept("model", info.default_model);
  const [role, setRole] = useKept<Role>("role", "document");
  const name = chosen in info.models ? chosen : info.default_model;
  const model = info.models[name]!;
  return { name, model, setName, role, setRole, fields: { model: name, ...(model.routes ? { input_type: role } : {}) } };
}

/** Which model, where there are several, and what texts are for, where a model tells them apart. */
export function ModelChoice({ info, of, roles = true }: { info: Info; of: Choice; roles?: boolean }) {
  return (
    <>
      {Object.keys(info.models).length > 1 && (
        <label>
          Model{" "}
          <select value={of.name} onChange={(event) => of.setName(event.currentTarget.value)}>
            {Object.entries(info.models).map(([name, { encoder, pooling }]) => (
              <option key={name} value={name}>
                {name}: {pooling} of {baseOf(encoder)}
              </option>
            ))}
          </select>
        </label>
      )}
      {roles && of.model.routes && (
        <label>
          Texts are{" "}
          <select value={of.role} onChange={(event) => of.setRole(event.currentTarget.value as Role)}>
            <option value="document">documents</option>
            <option value="query">queries</option>
          </select>
        </label>
      )}
    </>
  );
}

/** The last part of where a checkpoint is. */
export function baseOf(encoder: string): string {
  return encoder.replace(/\/+$/, "").split("/").at(-1) ?? encoder;
}

export type Poolings = {
  offered: string[];
  chosen: string[];
  choose: (names: string[]) => void;
  add: (name: string) => void;
  /** Offer one no more that was added. */
  remove: (name: string) => void;
  added: string[];
  own: string;
};

/** Poolings that are chosen on a panel, in the order in which they are offered: the model's own first. */
export function usePoolings(panel: string, own: string, first: string[]): Poolings {
  const [more, setMore] = useKept<string[]>(`${panel}.more`, []);
  const [kept, keep] = useKept<string[]>(`${panel}.poolings`, [OWN, ...first]);
  const offered = useMemo(() => [own, ...FIRST, ...first, ...more].filter((name, place, all) => all.findIndex((one) => same(one, name)) === place), [own, more]);
  const chosen = offered.filter((name) => kept.some((one) => same(one === OWN ? own : one, name)));
  const choose = (names: string[]) => keep(names.map((name) => (same(name, own) ? OWN : name)));
  const add = (name: string) => {
    if (!offered.some((one) => same(one, name))) setMore([...more, name]);
    choose([...chosen, name]);
  };
  const remove = (name: string) => {
    setMore(more.filter((one) => !same(one, name)));
    choose(chosen.filter((one) => !same(one, name)));
  };
  return { offered, chosen, choose, add, remove, added: more, own };
}

/** Whether two names are of one pooling: `gem(p=3)` is `gem(p=3.0)`. */
function same(one: string, other: string): boolean {
  const plain = (name: string) => name.replace(/\s+/g, "").replace(/(\d)\.0+(?=\D)/g, "$1");
  return plain(one) === plain(other);
}

type Offer = { info: Info; of: Poolings; model: Choice };

/** Boxes to choose poolings by, and a field for any other, which the service tries before it is offered. */
export function PoolingChoice({ info, of, model }: Offer) {
  const { offered, chosen, choose, add, remove, added, own } = of;
  const [refused, refuse] = useState<Error | null>(null);
  const attempt = async (field: HTMLInputElement) => {
    const name = field.value.trim();
    if (!name) return;
    try {
      await ask("compare", { texts: ["a wheel"], pooling: [name], numbers: 1, ...model.fields });
    } catch (error) {
      return refuse(error as Error);
    }
    add(name);
    refuse(null);
    field.value = "";
  };
  return (
    <fieldset>
      <legend>Poolings</legend>
      {offered.map((name) => (
        <div key={name} class="choice">
          <label>
            <input
              type="checkbox"
              checked={chosen.includes(name)}
              onChange={() => choose(chosen.includes(name) ? chosen.filter((one) => !same(one, name)) : [...chosen, name])}
            />
            {name}
            {name === own && <small> (this model's)</small>}
          </label>
          {added.includes(name) && (
            <button type="button" aria-label={`Remove ${name}`} onClick={() => remove(name)}>
              ×
            </button>
          )}
        </div>
      ))}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void attempt(event.currentTarget.elements.namedItem("another") as HTMLInputElement);
        }}
      >
        <label>
          Another <input name="another" placeholder="kmax(k=3)" list="strategies" spellcheck={false} onInput={() => refuse(null)} />
        </label>
        <datalist id="strategies">
          {info.poolings.map((name) => (
            <option key={name} value={name} />
          ))}
        </datalist>
        <button type="submit">Add</button>
      </form>
      {refused && <Problem error={refused} onKey={() => refuse(null)} />}
    </fieldset>
  );
}
