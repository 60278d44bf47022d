// Which samples match, and how their values are spread. Pure: arrays in, arrays out.

export const BINS = 48;
const DAY_MS = 86_400_000;

// A filter that everything passes. Limits of null are open; what is unknown passes open limits only.
export function everything(store) {
  return { splits: store.splits.map(() => true), cloud: null, shift: null, sensor: store.sensors[0], from: null, to: null };
}

export function isEverything(filter) {
  return filter.splits.every(Boolean) && [filter.cloud, filter.shift, filter.from, filter.to].every((limit) => limit === null);
}

// Fills `shown` with 1 or 0 per sample; gives the number of ones.
export function match(store, filter, shown) {
  const { cloud, shift, split } = store.column;
  const days = store.column[`day ${filter.sensor}`];
  const maxCloud = filter.cloud ?? Infinity, maxShift = filter.shift ?? Infinity;
  const allClouds = filter.cloud === null, allShifts = filter.shift === null;
  const first = filter.from ?? 0, last = filter.to ?? Infinity;
  const anyDay = filter.from === null && filter.to === null;
  let matching = 0;
  for (let i = 0; i < store.count; i++) {
    const passes =
      filter.splits[split[i]] &&
      (allClouds || cloud[i] <= maxCloud) &&
      (allShifts || shift[i] <= maxShift) &&
      (anyDay || (days[i] > 0 && days[i] >= first && days[i] <= last));
    matching += shown[i] = passes ? 1 : 0;
  }
  return matching;
}

// [least, greatest] of the known values, or null where none is.
export function range(values, isKnown) {
  let least = Infinity, greatest = -Infinity;
  for (const value of values) {
    if (!isKnown(value)) continue;
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return least <= greatest ? [least, greatest] : null;
}

// Counts of known values in equal bins over [low, high]: of all, and of those shown.
export function histogram(values, [low, high], shown, isKnown) {
  const all = new Uint32Array(BINS), matching = new Uint32Array(BINS);
  const scale = BINS / (high - low || 1);
  for (let i = 0; i < values.length; i++) {
    if (!isKnown(values[i])) continue;
    const bin = Math.min(BINS - 1, Math.floor((values[i] - low) * scale));
    all[bin]++;
    matching[bin] += shown[i];
  }
  return { all, matching };
}

export const isMeasured = (value) => value === value; // NaN is not
export const isDated = (day) => day > 0;
export const dayText = (day) => new Date(day * DAY_MS).toISOString().slice(0, 10);
export const dayNumber = (text) => (text ? Math.floor(Date.parse(`${text}T00:00:00Z`) / DAY_MS) : null);
