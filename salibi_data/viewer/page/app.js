// The page: one state, changed through `change`, shown by the map, the controls, the sheet and the address.

import { Controls } from "./controls.js";
import { match } from "./filters.js";
import { listen } from "./keys.js";
import { SampleMap } from "./map.js";
import { read, written } from "./permalink.js";
import { Sheet } from "./sheet.js";
import { openStore } from "./store.js";

const $ = (id) => document.getElementById(id);
const ADDRESS_DELAY_MS = 150;

async function start() {
  const store = await openStore();
  const state = read(location.hash, store);
  const shown = new Uint8Array(store.count);
  let matching = match(store, state.filter, shown);

  const controls = new Controls(store, state, change);
  const sheet = new Sheet(store);
  const map = new SampleMap($("map"), store, shown, state, {
    moved: (at) => change({ at }),
    chose: (sample) => change({ sample }),
  });

  // Merges a part into the state and shows what it touches.
  function change(part) {
    Object.assign(state, part);
    if ("filter" in part) {
      const began = performance.now();
      matching = match(store, state.filter, shown);
      map.footprints.refresh();
      controls.show(shown, matching);
      performance.clearMeasures("filter");
      performance.measure("filter", { start: began });
    } else if (!("at" in part)) {
      controls.show(shown, matching);
    }
    if ("filter" in part || "sample" in part) showSample();
    if (!("at" in part)) map.show();
    keepAddress();
  }

  function showSample() {
    const open = state.sample >= 0;
    document.body.classList.toggle("with-sample", open);
    if (!open) return sheet.hide();
    let place = 0;
    if (shown[state.sample]) for (let i = 0; i <= state.sample; i++) place += shown[i];
    sheet.show(state.sample, { place, matching });
  }

  // The next matching sample in the store's order, which keeps neighbours together.
  function step(by) {
    if (matching === 0) return;
    let sample = state.sample < 0 && by < 0 ? 0 : state.sample;
    do sample = (sample + by + store.count) % store.count;
    while (!shown[sample]);
    change({ sample });
    map.goTo(sample);
  }

  let waiting = 0;
  function keepAddress() {
    clearTimeout(waiting);
    waiting = setTimeout(() => history.replaceState(null, "", written(state, store)), ADDRESS_DELAY_MS);
  }

  addEventListener("hashchange", () => {
    const wanted = read(location.hash, store);
    const { at } = wanted;
    change(wanted);
    if (at) map.jump(at);
  });

  const close = () => {
    if ($("help").open) $("help").close();
    else if (state.sample >= 0) change({ sample: -1 });
    else document.activeElement?.blur();
  };
  listen({
    j: () => step(1),
    k: () => step(-1),
    // Without a sample the arrows move the map.
    ArrowRight: () => (state.sample < 0 ? false : step(1)),
    ArrowLeft: () => (state.sample < 0 ? false : step(-1)),
    modality: (i) => store.modalities[i] && change({ modality: store.modalities[i].name }),
    g: () => change({ grid: !state.grid }),
    o: () => change({ opacity: state.opacity > 0 ? 0 : 1 }),
    z: () => (state.sample < 0 ? map.goToAll() : map.goTo(state.sample)),
    "/": () => controls.focus(),
    "?": () => $("help").showModal(),
    Escape: close,
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("browse").addEventListener("click", () => step(1));
  $("close").addEventListener("click", close);
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("share").addEventListener("click", async () => {
    history.replaceState(null, "", written(state, store));
    await navigator.clipboard.writeText(location.href).then(() => say("Link copied"), () => say("The address bar has the link"));
  });

  controls.fold(matchMedia("(max-width: 720px)").matches);
  controls.show(shown, matching);
  showSample();
  await map.ready;
  await map.drawn();
  if (state.sample >= 0 && !state.at) map.goTo(state.sample);
  document.documentElement.dataset.ready = "";
  performance.mark("ready");
  if (new URLSearchParams(location.search).has("inspect")) Object.assign(window, { salibi: { store, state, map, change } });
}

function say(text) {
  $("toast").textContent = text;
  setTimeout(() => ($("toast").textContent = ""), 2500);
}

start().catch((error) => {
  document.body.classList.add("failed");
  $("counted").textContent = `This page cannot be shown: ${error.message}`;
  console.error(error);
});
