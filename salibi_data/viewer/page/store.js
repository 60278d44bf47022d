// The store as the page knows it: what store.json says, columns of all samples, more of a few.

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
const FILES_KEPT = 16;

export async function openStore() {
  const [about, packed] = await Promise.all([
    fetch("store.json").then(answered).then((answer) => answer.json()),
    fetch("index.bin").then(answered).then((answer) => answer.arrayBuffer()),
  ]);
  return new Store(about, await unpacked(packed));
}

function answered(answer) {
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status} ${answer.statusText}`);
  return answer;
}

// Some servers decompress on the way, some do not.
async function unpacked(buffer) {
  const [first, second] = new Uint8Array(buffer, 0, 2);
  if (first !== 0x1f || second !== 0x8b) return buffer;
  const plain = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

export class Store {
  constructor(about, buffer) {
    Object.assign(this, about);
    this.column = {};
    for (const { name, type, offset } of about.columns) {
      this.column[name] = new ARRAYS[type](buffer, offset, about.count);
    }
    this.files = new Map();
  }

  // Whether any sample lies in a tile at the base zoom or below it.
  anyWithin(zoom, x, y) {
    const levels = this.baseZoom - zoom;
    const columns = this.column.x, rows = this.column.y;
    for (let i = 0; i < this.count; i++) {
      if (columns[i] >>> levels === x && rows[i] >>> levels === y) return true;
    }
    return false;
  }

  // The sample whose tile is named "zoom/x/y", or -1.
  find(tile) {
    const [zoom, x, y] = tile.split("/").map(Number);
    if (zoom !== this.baseZoom) return -1;
    const columns = this.column.x, rows = this.column.y;
    for (let i = 0; i < this.count; i++) if (columns[i] === x && rows[i] === y) return i;
    return -1;
  }

  // The shown sample whose tile's centre is nearest to a point, in tiles, if it is near enough.
  nearest(x, y, reach, shown) {
    const columns = this.column.x, rows = this.column.y;
    let best = -1, least = reach;
    for (let i = 0; i < this.count; i++) {
      if (!shown[i]) continue;
      const distance = Math.max(Math.abs(columns[i] + 0.5 - x), Math.abs(rows[i] + 0.5 - y));
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  tileName(i) {
    return `${this.baseZoom}/${this.column.x[i]}/${this.column.y[i]}`;
  }

  pictureUrl(modality, i) {
    return `tiles/${modality}/${this.tileName(i)}.webp`;
  }

  // Longitude and latitude of a tile's centre.
  lonLat(i) {
    return lonLat((this.column.x[i] + 0.5) / 2 ** this.baseZoom, (this.column.y[i] + 0.5) / 2 ** this.baseZoom);
  }

  // All that is known of a sample; neighbours come with it, the last few files are kept.
  async describe(i) {
    const number = Math.floor(i / this.samplesPerFile);
    const file = this.files.get(number) ?? fetch(`samples/${number}.json`).then(answered).then((a) => a.json());
    this.files.delete(number);
    this.files.set(number, file);
    if (this.files.size > FILES_KEPT) this.files.delete(this.files.keys().next().value);
    try {
      return (await file)[i % this.samplesPerFile];
    } catch (error) {
      this.files.delete(number);
      throw error;
    }
  }
}

// From the unit square of Web Mercator.
export function lonLat(x, y) {
  return [x * 360 - 180, (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI];
}

// To the unit square of Web Mercator.
export function mercator(lon, lat) {
  const sine = Math.sin((lat * Math.PI) / 180);
  return [lon / 360 + 0.5, 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI)];
}
