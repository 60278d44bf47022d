// The address keeps what is seen: map, modality, opacity, grid, filters, sample.

import { dayNumber, dayText, everything } from "./filters.js";

export function written(state, store) {
  const parts = [];
  const put = (key, value) => parts.push(`${key}=${encodeURIComponent(value).replace(/%2F/g, "/").replace(/%2C/g, ",")}`);
  if (state.at) put("at", state.at.join("/"));
  put("show", state.modality);
  if (state.opacity !== 1) put("opacity", Math.round(state.opacity * 100));
  if (!state.grid) put("grid", 0);
  const { splits, cloud, shift, sensor, from, to } = state.filter;
  if (!splits.every(Boolean)) put("split", store.splits.filter((_, code) => splits[code]).join(","));
  if (cloud !== null) put("cloud", +cloud.toFixed(4));
  if (shift !== null) put("shift", +shift.toFixed(3));
  if (sensor !== store.sensors[0]) put("sensor", sensor);
  if (from !== null) put("from", dayText(from));
  if (to !== null) put("to", dayText(to));
  if (state.sample >= 0) put("sample", store.tileName(state.sample));
  return `#${parts.join("&")}`;
}

// The state an address describes; whatever is missing or wrong in it is as at first.
export function read(hash, store) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (key, low, high) => {
    const value = said.has(key) && said.get(key) !== "" ? Number(said.get(key)) : NaN;
    return value >= low && value <= high ? value : null;
  };
  const filter = everything(store);
  if (said.has("split")) {
    const named = said.get("split").split(",");
    filter.splits = store.splits.map((split) => named.includes(split));
  }
  filter.cloud = number("cloud", 0, 1);
  filter.shift = number("shift", 0, Infinity);
  if (store.sensors.includes(said.get("sensor"))) filter.sensor = said.get("sensor");
  for (const end of ["from", "to"]) {
    const day = dayNumber(said.get(end));
    if (Number.isFinite(day)) filter[end] = day;
  }
  const at = (said.get("at") ?? "").split("/").map(Number);
  const names = store.modalities.map((modality) => modality.name);
  const optical = store.modalities.find((modality) => modality.units !== "dB");
  return {
    at: at.length === 3 && at.every(Number.isFinite) && Math.abs(at[1]) <= 90 ? at : null,
    modality: names.includes(said.get("show")) ? said.get("show") : (optical?.name ?? names[0]),
    opacity: (number("opacity", 0, 100) ?? 100) / 100,
    grid: said.get("grid") !== "0",
    filter,
    sample: said.has("sample") ? store.find(said.get("sample")) : -1,
  };
}
