// The filters and what the map shows: inputs to state and back, histograms with what matches.

import { dayNumber, dayText, everything, histogram, isDated, isEverything, isMeasured, range } from "./filters.js";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

export class Controls {
  // `change(part)` merges a part into the state.
  constructor(store, state, change) {
    Object.assign(this, { store, state, change });
    this.about();
    this.buildSplits();
    this.buildModalities();
    this.buildLimits();
    this.buildDates();
    $("opacity").addEventListener("input", (event) => change({ opacity: event.target.value / 100 }));
    $("grid").addEventListener("change", (event) => change({ grid: event.target.checked }));
    $("reset").addEventListener("click", () => this.filter(everything(store)));
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("fold").addEventListener("click", () => this.fold(!$("side").classList.contains("folded")));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe($("filters"));
  }

  about() {
    const { name, variant, catalog, sensors, modalities } = this.store;
    document.title = `${name} · Salibi`;
    $("name").textContent = name;
    $("variant").textContent = `${variant} · ${catalog}`;
    const sources = sensors.flatMap((sensor) => {
      const one = modalities.find((modality) => modality.sensor === sensor);
      const said = [one?.attribution || one?.collection, one?.licence].filter(Boolean).join(", ");
      return said ? `${sensor}: ${said}` : [];
    });
    $("sources").textContent = sources.join(" · ");
  }

  filter(part) {
    this.change({ filter: { ...this.state.filter, ...part } });
  }

  fold(folded) {
    $("side").classList.toggle("folded", folded);
    $("fold").setAttribute("aria-expanded", String(!folded));
    this.draw();
  }

  focus() {
    this.fold(false);
    $("splits").querySelector("input").focus();
  }

  buildSplits() {
    this.splitCounts = this.store.splits.map((split, code) => {
      const label = document.createElement("label");
      label.className = "split";
      label.style.setProperty("--colour", `var(--${split})`);
      const box = Object.assign(document.createElement("input"), { type: "checkbox", name: split });
      box.addEventListener("change", () => {
        this.filter({ splits: this.state.filter.splits.map((on, other) => (other === code ? box.checked : on)) });
      });
      const count = Object.assign(document.createElement("span"), { className: "count" });
      label.append(box, Object.assign(document.createElement("span"), { textContent: split }), count);
      // Few stores have a guard: what a store has no sample of is not offered.
      if (this.store.column.split.includes(code)) $("splits").append(label);
      return { box, count };
    });
  }

  buildModalities() {
    this.radios = this.store.modalities.map(({ name, sensor }, i) => {
      const label = document.createElement("label");
      label.title = `${sensor} (${i + 1})`;
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "modality", value: name });
      radio.addEventListener("change", () => this.change({ modality: name }));
      label.append(radio, Object.assign(document.createElement("span"), { textContent: name }));
      $("modalities").append(label);
      return radio;
    });
  }

  // Sliders for the largest cloudy share and shift; at their right end they let everything pass.
  buildLimits() {
    const measured = { cloud: range(this.store.column.cloud, isMeasured), shift: range(this.store.column.shift, isMeasured) };
    this.limits = Object.entries(measured).filter(([name, found]) => {
      $(`${name}-field`).hidden = !found;
      return found;
    }).map(([name, found]) => {
      const step = name === "cloud" ? 0.01 : 0.1;
      const high = name === "cloud" ? 1 : Math.max(step, Math.ceil(found[1] / step) * step);
      const slider = Object.assign($(name), { min: 0, max: high, step });
      slider.addEventListener("input", () => {
        this.filter({ [name]: slider.value >= high - step / 2 ? null : Number(slider.value) });
      });
      return { name, high, slider };
    });
  }

  buildDates() {
    for (const sensor of this.store.sensors) $("sensor").append(new Option(sensor, sensor));
    $("sensor").addEventListener("change", (event) => this.filter({ sensor: event.target.value, from: null, to: null }));
    for (const end of ["from", "to"]) {
      $(end).addEventListener("change", (event) => this.filter({ [end]: dayNumber(event.target.value) }));
    }
  }

  // Shows the state: every input, the counts, the histograms.
  show(shown, matching) {
    const { filter, modality, opacity, grid } = this.state;
    const { count, ofSamples } = this.store;
    Object.assign(this, { shown });
    const of = isEverything(filter) ? number.format(count) : `${number.format(matching)} of ${number.format(count)}`;
    $("counted").textContent = `${of} samples${ofSamples > count ? `, out of ${number.format(ofSamples)}` : ""}`;
    const bySplit = new Uint32Array(this.store.splits.length);
    shown.forEach((one, i) => (bySplit[this.store.column.split[i]] += one));
    this.splitCounts.forEach(({ box, count: label }, code) => {
      box.checked = filter.splits[code];
      label.textContent = number.format(bySplit[code]);
    });
    for (const { name, high, slider } of this.limits) {
      const value = filter[name] ?? high;
      slider.value = value;
      const text = name === "cloud" ? `${Math.round(value * 100)} %` : `${(+value).toFixed(1)} m`;
      $(`${name}-said`).textContent = filter[name] === null ? "any" : `≤ ${text}`;
      slider.setAttribute("aria-valuetext", $(`${name}-said`).textContent);
    }
    $("sensor").value = filter.sensor;
    const days = (this.days = range(this.store.column[`day ${filter.sensor}`], isDated));
    $("date-field").classList.toggle("unknown", !days);
    for (const end of ["from", "to"]) {
      const input = $(end);
      Object.assign(input, days ? { min: dayText(days[0]), max: dayText(days[1]) } : {});
      const value = filter[end] ?? (days ? days[end === "from" ? 0 : 1] : null);
      if (document.activeElement !== input) input.value = value === null ? "" : dayText(value);
    }
    this.radios.forEach((radio) => (radio.checked = radio.value === modality));
    $("opacity").value = Math.round(opacity * 100);
    $("grid").checked = grid;
    $("reset").disabled = isEverything(filter);
    $("browse").disabled = matching === 0;
    this.draw();
  }

  draw() {
    if (!this.shown || !$("filters").clientHeight) return;
    const { column } = this.store;
    for (const { name, high } of this.limits) bars($(`${name}-histogram`), histogram(column[name], [0, high], this.shown, isMeasured));
    if (this.days) {
      bars($("date-histogram"), histogram(column[`day ${this.state.filter.sensor}`], this.days, this.shown, isDated));
    }
  }
}

// Bars of all samples in grey and of those that match over them; heights grow with the root, so
// that few among many are seen.
function bars(canvas, { all, matching }) {
  const ratio = devicePixelRatio;
  const width = (canvas.width = canvas.clientWidth * ratio);
  const height = (canvas.height = canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const most = Math.sqrt(Math.max(1, ...all));
  for (const [counts, colour] of [[all, "--bar"], [matching, "--accent"]]) {
    context.fillStyle = style.getPropertyValue(colour);
    counts.forEach((count, i) => {
      const tall = count ? Math.max(ratio, (Math.sqrt(count) / most) * height) : 0;
      const left = Math.round((i * width) / counts.length);
      context.fillRect(left, height - tall, Math.round(((i + 1) * width) / counts.length) - left - ratio, tall);
    });
  }
}
