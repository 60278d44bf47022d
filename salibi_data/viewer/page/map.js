// The map: land or a base map below, the samples' pictures, their footprints on top.

import { Footprints } from "./footprints.js";
import { land } from "./land.js";
import { mercator } from "./store.js";

const { maplibregl } = window;
const NEAR_PX = 10; // how far beside a dot a click may be
// A transparent pixel: tiles without samples need not be asked for.
const NOTHING = Uint8Array.from(
  atob("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR4nGNgAAIAAAUAAXpeqz8AAAAASUVORK5CYII="),
  (letter) => letter.charCodeAt(0),
);

export class SampleMap {
  // `events`: moved(at), chose(sample or -1).
  constructor(container, store, shown, state, events) {
    Object.assign(this, { store, state, events });
    maplibregl.addProtocol("pictures", (request, abort) => this.picture(request.url, abort));
    this.footprints = new Footprints(store, shown, () => this.looks());
    const view = state.at
      ? { zoom: state.at[0], center: [state.at[2], state.at[1]] }
      : { bounds: store.boundsLonLat, fitBoundsOptions: { padding: 48, maxZoom: store.baseZoom - 1 } };
    this.map = new maplibregl.Map({
      container,
      style: { version: 8, sources: {}, layers: [{ id: "ground", type: "background" }] },
      ...view,
      maxZoom: store.baseZoom + 3,
      renderWorldCopies: false,
      dragRotate: false,
      touchPitch: false,
      pitchWithRotate: false,
      attributionControl: false,
      fadeDuration: 120,
      maxTileCacheSize: 48,
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
    this.map.addControl(new maplibregl.ScaleControl({ maxWidth: 110 }), "bottom-left");
    this.map.addControl(new maplibregl.AttributionControl({ compact: false, customAttribution: credits(store) }));
    this.map.on("error", ({ error }) => error?.status === 404 || console.warn(error?.message));
    this.map.on("moveend", () => events.moved(this.at()));
    this.map.on("click", (event) => events.chose(this.under(event)));
    this.map.on("mousemove", (event) => {
      this.map.getCanvas().style.cursor = this.under(event) >= 0 ? "pointer" : "";
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    this.ready = new Promise((resolve) => this.map.once("style.load", () => resolve(this.build())));
  }

  build() {
    const { basemap } = this.store;
    if (basemap) {
      this.map.addSource("basemap", {
        type: "raster",
        tiles: [new URL(basemap.tiles, document.baseURI).href.replace(/%7B/g, "{").replace(/%7D/g, "}")],
        tileSize: basemap.tilePx,
        maxzoom: basemap.maxZoom,
        attribution: escaped(basemap.attribution),
      });
      this.map.addLayer({ id: "basemap", type: "raster", source: "basemap", paint: { "raster-opacity": 0.75 } });
    } else {
      this.addLand();
    }
    this.map.addLayer(this.footprints);
    this.paint();
    this.show();
  }

  // When the samples have been drawn once more.
  drawn() {
    return new Promise((resolve) => {
      this.map.once("render", resolve);
      this.map.triggerRepaint();
    });
  }

  async addLand() {
    const data = await land();
    this.map.addSource("land", { type: "geojson", data, maxzoom: 8, tolerance: 0.2 });
    const layer = (id, type, kind, paint) =>
      this.map.addLayer({ id, type, source: "land", filter: ["==", ["get", "kind"], kind], paint }, this.lowest());
    const thin = (from, to) => ["interpolate", ["linear"], ["zoom"], 2, from, 8, to];
    layer("land", "fill", "land", {});
    layer("states", "line", "state", { "line-width": thin(0.4, 1) });
    layer("countries", "line", "country", { "line-width": thin(0.6, 1.6) });
    this.paint();
  }

  lowest() {
    return this.map.getLayer("pictures") ? "pictures" : "footprints";
  }

  // Brings the map in line with the state: which pictures, how opaque.
  show() {
    if (!this.map.getLayer("footprints")) return;
    const { modality, opacity } = this.state;
    if (this.pictured !== modality) {
      this.pictured = modality;
      // One source at a time: what another modality took of the GPU is given back.
      if (this.map.getLayer("pictures")) this.map.removeLayer("pictures");
      if (this.map.getSource("pictures")) this.map.removeSource("pictures");
      this.map.addSource("pictures", {
        type: "raster",
        tiles: [`pictures://${encodeURIComponent(modality)}/{z}/{x}/{y}`],
        tileSize: this.described().sizePx,
        minzoom: this.store.lowestZoom,
        maxzoom: this.store.baseZoom,
      });
      this.map.addLayer(
        { id: "pictures", type: "raster", source: "pictures", paint: { "raster-fade-duration": 120 } },
        "footprints",
      );
    }
    this.map.setPaintProperty("pictures", "raster-opacity", opacity);
    this.map.triggerRepaint();
  }

  described() {
    return this.store.modalities.find((modality) => modality.name === this.state.modality);
  }

  // Whether the map is close enough for pictures of the modality.
  pictures() {
    const tileZoom = this.map.getZoom() + Math.log2(512 / this.described().sizePx);
    return Math.round(tileZoom) >= this.store.lowestZoom && this.state.opacity > 0;
  }

  async picture(url, abort) {
    const [, name, ...place] = url.match(/^pictures:\/\/([^/]+)\/(\d+)\/(\d+)\/(\d+)$/);
    const [zoom, x, y] = place.map(Number);
    if (!this.store.anyWithin(zoom, x, y)) return { data: NOTHING.buffer.slice(0) };
    const answer = await fetch(`tiles/${name}/${zoom}/${x}/${y}.webp`, { signal: abort.signal });
    if (!answer.ok) throw new Error(`no picture of ${name} at ${zoom}/${x}/${y}: ${answer.status}`);
    return { data: await answer.arrayBuffer() };
  }

  looks() {
    return {
      colours: this.colours,
      chosenColour: this.chosenColour,
      shadow: this.shadow,
      background: this.background,
      grid: this.state.grid,
      pictures: this.pictures(),
      chosen: this.state.sample,
    };
  }

  // Takes the colours of the page's style, light or dark.
  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const parts = (name) => colour(name).match(/\w\w/g).map((part) => parseInt(part, 16) / 255);
    this.colours = ["--train", "--validation", "--test", "--guard"].map(parts);
    this.chosenColour = parts("--chosen");
    this.shadow = parts("--border-line");
    this.background = parts("--land");
    const set = (layer, property, name) => {
      if (this.map.getLayer(layer)) this.map.setPaintProperty(layer, property, colour(name));
    };
    set("ground", "background-color", this.store.basemap ? "--land" : "--sea");
    set("land", "fill-color", "--land");
    set("states", "line-color", "--border-line");
    set("countries", "line-color", "--border-line");
    this.map.triggerRepaint();
  }

  at() {
    const { lng, lat } = this.map.getCenter();
    return [+this.map.getZoom().toFixed(2), +lat.toFixed(5), +lng.toFixed(5)];
  }

  // The sample under the pointer, or near it where tiles are dots.
  under({ lngLat }) {
    const [x, y] = mercator(lngLat.lng, lngLat.lat).map((part) => part * 2 ** this.store.baseZoom);
    const tilePx = 512 * 2 ** (this.map.getZoom() - this.store.baseZoom);
    return this.store.nearest(x, y, Math.max(0.5, NEAR_PX / tilePx), this.footprints.shown);
  }

  // Brings a sample into view, close enough to see its picture.
  goTo(sample) {
    this.map.resize(); // the sheet may have just taken its part of the page
    const center = this.store.lonLat(sample);
    const zoom = Math.max(this.map.getZoom(), this.store.baseZoom - 2);
    const { x, y } = this.map.project(center);
    const { clientWidth, clientHeight } = this.map.getContainer();
    const near = Math.abs(x - clientWidth / 2) < 2 * clientWidth && Math.abs(y - clientHeight / 2) < 2 * clientHeight;
    if (near) this.map.easeTo({ center, zoom, duration: 350 });
    else this.map.jumpTo({ center, zoom });
  }

  goToAll() {
    this.map.fitBounds(this.store.boundsLonLat, { padding: 48, maxZoom: this.store.baseZoom - 1, duration: 500 });
  }

  jump([zoom, lat, lon]) {
    this.map.jumpTo({ zoom, center: [lon, lat] });
  }
}

export function credits(store) {
  const sources = new Set(store.modalities.map((one) => one.attribution || one.collection).filter(Boolean));
  if (!store.basemap) sources.add("Land: Natural Earth, U.S. Census Bureau");
  return [...sources].map(escaped);
}

function escaped(text) {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
