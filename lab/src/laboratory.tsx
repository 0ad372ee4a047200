// The laboratory: what disturbs pooled vectors, of a text through a model, or of token states that one writes.
import type { Info } from "./api";
import { Disturb } from "./disturb";
import { useKept } from "./kept";
import { Lesson } from "./lesson";
import { Tabs } from "./tabs";

const TABS = { text: "A text of yours", lesson: "Numbers of your own" };
type Tab = keyof typeof TABS;

export function Laboratory({ info }: { info: Info }) {
  const [tab, setTab] = useKept<Tab>("laboratory.tab", "text");
  return (
    <>
      <h2>Laboratory</h2>
      <Tabs name="laboratory" of={TABS} chosen={tab} onChoose={setTab} label="What is disturbed" />
      {tab === "text" ? <Disturb info={info} tab="laboratory-text" /> : <Lesson tab="laboratory-lesson" />}
    </>
  );
}
