// One sample: every modality side by side on the same ground, and all that is known of it.

import { lonLat } from "./store.js";

const $ = (id) => document.getElementById(id);

export class Sheet {
  constructor(store) {
    this.store = store;
    this.pictures = store.modalities.map((modality) => {
      const figure = document.createElement("figure");
      const link = Object.assign(document.createElement("a"), { target: "_blank", rel: "noopener", className: "picture" });
      link.title = "Open the picture alone";
      const image = Object.assign(document.createElement("img"), { decoding: "async", draggable: false });
      const caption = document.createElement("figcaption");
      link.append(image, Object.assign(document.createElement("i"), { className: "cross" }));
      figure.append(link, caption);
      $("panels").append(figure);
      return { modality, link, image, caption };
    });
    this.followPointer();
  }

  // The same place in every picture.
  followPointer() {
    const panels = $("panels");
    panels.addEventListener("pointermove", (event) => {
      const picture = event.target.closest(".picture");
      panels.classList.toggle("pointed", Boolean(picture));
      if (!picture) return;
      const box = picture.getBoundingClientRect();
      panels.style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
      panels.style.setProperty("--y", `${(100 * (event.clientY - box.top)) / box.height}%`);
    });
    panels.addEventListener("pointerleave", () => panels.classList.remove("pointed"));
  }

  hide() {
    $("sheet").hidden = true;
    this.sample = -1;
  }

  async show(sample, { place, matching }) {
    const { store } = this;
    const opened = $("sheet").hidden;
    const split = store.splits[store.column.split[sample]];
    $("sheet").hidden = false;
    $("sheet-number").textContent = place ? `${place.toLocaleString("en")} of ${matching.toLocaleString("en")}` : "filtered out";
    if (this.sample === sample) return;
    this.sample = sample;
    const [lon, lat] = store.lonLat(sample);
    $("sheet-title").textContent = store.tileName(sample);
    $("sheet-split").textContent = split;
    $("sheet-split").style.setProperty("--colour", `var(--${split})`);
    $("sheet-place").textContent = placeText(lon, lat);
    for (const { modality, link, image } of this.pictures) {
      image.src = link.href = store.pictureUrl(modality.name, sample);
      image.alt = `${modality.name} (${modality.sensor}) of tile ${store.tileName(sample)}`;
    }
    if (opened) $("sheet").focus({ preventScroll: true });
    this.caption(null);
    try {
      const known = await store.describe(sample);
      if (this.sample !== sample) return;
      this.caption(known);
      $("facts").replaceChildren(...facts(store, known, lon, lat));
    } catch (error) {
      if (this.sample === sample) $("facts").textContent = `What is known of it cannot be read: ${error.message}`;
    }
  }

  caption(known) {
    for (const { modality, caption } of this.pictures) {
      const parts = [modality.sensor];
      if (known) {
        parts.push(`${short(known.gsd_m * modality.gsdRatio)} m per px`, day(known[`${modality.sensor}_acquired`]));
      }
      const name = Object.assign(document.createElement("strong"), { textContent: modality.name });
      caption.replaceChildren(name, ` ${parts.filter(Boolean).join(" · ")}`);
    }
  }
}

function facts(store, known, lon, lat) {
  const left = new Map(Object.entries(known));
  const take = (name) => {
    const value = left.get(name);
    left.delete(name);
    return value;
  };
  const files = store.sensors.flatMap((sensor) => take(`${sensor}_hrefs`) ?? []);
  const columns = store.sensors.map((sensor) => sensorFacts(sensor, take, left));
  const names = [...new Set(columns.flatMap((column) => [...column.keys()]))];
  const [z, x, y] = ["z", "x", "y"].map(take);
  const split = store.splits[take("split")];
  const edges = [[x, y + 1], [x + 1, y]].flatMap((corner) => lonLat(...corner.map((part) => part / 2 ** z)));
  const modalities = store.modalities.map(({ name }) => [`${name}, native pixel`, take(`${name}_enlargement`)]);
  const shift = [take("alignment_shift_m"), take("alignment_east_m"), take("alignment_north_m"), take("alignment_peak")];
  return [
    table(["", ...store.sensors], names.map((name) => [name, ...columns.map((column) => column.get(name) ?? "–")])),
    list([
      ["Tile", `${z}/${x}/${y}`],
      ["Row in the store", take("row")],
      ["Split", split],
      ["Centre", `${lat.toFixed(5)}, ${lon.toFixed(5)}`],
      ["West, south, east, north", edges.map((edge) => edge.toFixed(4)).join(", ")],
      ["Base pixel on the ground", metres(take("gsd_m"))],
      ["Cloudy share", percent(take("cloud_fraction"))],
      ["Cloudy share, as planned", percent(take("planned_cloud_fraction"))],
      ["Shift between sensors", shiftText(shift)],
      ...modalities.map(([name, ratio]) => [name, isNumber(ratio) ? `${short(ratio)} × the stored one` : undefined]),
      ...[...left].filter(([name]) => name !== "tile_id").map(([name, value]) => [name.replaceAll("_", " "), plain(value)]),
    ]),
    list(store.modalities.map((one) => [
      one.name,
      [`${one.bands.join(", ")} (${one.units})`, one.collection, one.attribution, one.licence].filter(Boolean).join(" · "),
    ]), "wide"),
    ...(files.length ? [folded(`${files.length} files it was read from`, files)] : []),
  ];
}

// Facts of one sensor by their names for people; whatever else there is comes under its own.
function sensorFacts(sensor, take, left) {
  const shown = {
    acquired: ["Seen (UTC)", (value) => value?.slice(0, 16).replace("T", " ")],
    items: ["Items", plain],
    valid_fraction: ["Observed", percent],
    native_gsd_m: ["Native pixel", metres],
    orbit_state: ["Orbit", plain],
  };
  const found = new Map();
  for (const key of [...left.keys()].filter((name) => name.startsWith(`${sensor}_`))) {
    const rest = key.slice(sensor.length + 1);
    const [name, text] = shown[rest] ?? [rest.replaceAll("_", " "), plain];
    const value = text(take(key));
    if (value) found.set(name, value);
  }
  const order = Object.values(shown).map(([name]) => name);
  const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  return new Map([...found].sort(([a], [b]) => rank(a) - rank(b)));
}

function table(head, rows) {
  const element = document.createElement("table");
  const row = (tag, cells) => {
    const line = document.createElement("tr");
    cells.forEach((text, i) => {
      const cell = document.createElement(i === 0 || tag === "th" ? "th" : "td");
      cell.scope = tag === "th" ? "col" : "row";
      if (tag !== "th" && i > 0) cell.removeAttribute("scope");
      cell.textContent = text;
      line.append(cell);
    });
    return line;
  };
  element.createTHead().append(row("th", head));
  element.createTBody().append(...rows.map((cells) => row("td", cells)));
  return element;
}

function list(entries, className = "") {
  const element = Object.assign(document.createElement("dl"), { className });
  for (const [name, value] of entries) {
    if (value === undefined || value === null || value === "") continue;
    const pair = document.createElement("div");
    pair.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
    element.append(pair);
  }
  return element;
}

function folded(title, lines) {
  const element = document.createElement("details");
  const items = document.createElement("ul");
  items.append(...lines.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  element.append(Object.assign(document.createElement("summary"), { textContent: title }), items);
  return element;
}

const isNumber = (value) => typeof value === "number";
const short = (value) => `${+value.toPrecision(3)}`;
const metres = (value) => (isNumber(value) ? `${short(value)} m` : undefined);
const percent = (value) => (isNumber(value) ? `${+(value * 100).toFixed(1)} %` : undefined);
const day = (value) => value?.slice(0, 10);

function plain(value) {
  if (Array.isArray(value)) return value.join("\n");
  if (isNumber(value)) return short(value);
  return value ?? undefined;
}

function shiftText([shift, east, north, peak]) {
  if (!isNumber(shift)) return shift === null ? "not measurable" : undefined;
  const parts = isNumber(east) && isNumber(north) ? ` (${short(east)} m east, ${short(north)} m north)` : "";
  return `${short(shift)} m${parts}${isNumber(peak) ? `, peak ${short(peak)}` : ""}`;
}

function placeText(lon, lat) {
  return `${Math.abs(lat).toFixed(4)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(4)}° ${lon < 0 ? "W" : "E"}`;
}
