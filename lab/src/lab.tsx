import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask, type Info } from "./api";
import { baseOf } from "./choices";
import { Health } from "./health";
import { Laboratory } from "./laboratory";
import { useLatest } from "./latest";
import { Projection } from "./map";
import { Problem } from "./problem";
import { Quiz } from "./quiz";
import { Search } from "./search";
import { Texts } from "./texts";
import "./lab.css";

const PANELS = {
  texts: { title: "Look at texts", of: Texts },
  laboratory: { title: "Laboratory", of: Laboratory },
  search: { title: "Search", of: Search },
  quiz: { title: "Quiz", of: Quiz },
  map: { title: "Map", of: Projection },
  health: { title: "Health", of: Health },
};
type Name = keyof typeof PANELS;

function named(): Name {
  const name = location.hash.slice(1);
  return Object.hasOwn(PANELS, name) ? (name as Name) : "texts";
}

/** What is served, in a few words. */
function servedBy(info: Info): string {
  const { encoder, pooling } = info.models[info.default_model]!;
  const more = Object.keys(info.models).length - 1;
  return `${baseOf(encoder)} with ${pooling} pooling${more > 0 ? ` and ${more} more` : ""}`;
}

function Lab() {
  const [panel, setPanel] = useState<Name>(named());
  const [tries, setTries] = useState(0);
  useEffect(() => {
    const change = () => setPanel(named());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  // Asked anew on each panel, as the service may have another config since.
  const { answer, error } = useLatest({ tries, panel }, (_, signal) => ask<Info>("info", undefined, signal));
  const Panel = PANELS[panel].of;
  return (
    <>
      <header>
        <h1>Millpond lab</h1>
        <p class="about">
          See and compare how token vectors become one vector of a text{answer && `: on this service, by ${servedBy(answer)}`}.
        </p>
        <nav aria-label="Panels">
          {Object.entries(PANELS).map(([name, { title }]) => (
            <a key={name} href={`#${name}`} aria-current={name === panel ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
      </header>
      <main>
        {error && <Problem error={error} onKey={() => setTries(tries + 1)} />}
        {answer ? <Panel info={answer} /> : !error && <p class="note">Asking the service …</p>}
      </main>
    </>
  );
}

const root = document.getElementById("lab");
if (root) {
  root.replaceChildren();
  render(<Lab />, root);
}
