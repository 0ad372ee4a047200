// A slider, with its value beside it, and what it does below.
import { useId } from "preact/hooks";

export type SliderProps = {
  name: string;
  value: number;
  least?: number;
  most: number;
  step: number;
  unit?: string;
  hint?: string;
  onChange: (to: number) => void;
};

export function Slider({ name, value, least = 0, most, step, unit = "", hint, onChange }: SliderProps) {
  const id = useId();
  return (
    <div class="slider">
      <label for={id}>{name}</label>
      <input
        id={id}
        type="range"
        min={least}
        max={most}
        step={step}
        value={value}
        aria-describedby={hint && `${id}-hint`}
        onInput={(event) => onChange(event.currentTarget.valueAsNumber)}
      />
      <output for={id}>
        {value}
        {unit}
      </output>
      {hint && <small id={`${id}-hint`}>{hint}</small>}
    </div>
  );
}
