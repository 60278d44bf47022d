// Land and borders from TopoJSON, as GeoJSON: for orientation where there is no base map.
// Format: TopoJSON 1.0, "arcs" are shared lines in quantised deltas.

export async function land() {
  const [world, states] = await Promise.all(
    ["vendor/countries-110m.json", "vendor/states-10m.json"].map((url) => fetch(url).then((answer) => answer.json())),
  );
  return {
    type: "FeatureCollection",
    features: [
      ...polygons(world, world.objects.land),
      { type: "Feature", properties: { kind: "country" }, geometry: shared(world, world.objects.countries) },
      { type: "Feature", properties: { kind: "state" }, geometry: shared(states, states.objects.states) },
    ],
  };
}

function decoded({ arcs, transform: { scale, translate } }) {
  return arcs.map((arc) => {
    let x = 0, y = 0;
    return arc.map(([dx, dy]) => [(x += dx) * scale[0] + translate[0], (y += dy) * scale[1] + translate[1]]);
  });
}

function polygons(topology, object) {
  const lines = decoded(topology);
  // An arc given as ~i runs backwards; where arcs meet, the point stands in both.
  const line = (i) => (i < 0 ? lines[~i].slice().reverse() : lines[i]);
  const ring = (arcs) => arcs.flatMap((i, n) => line(i).slice(n === 0 ? 0 : 1));
  return leaves(object)
    .flatMap(({ type, arcs }) => (type === "Polygon" ? [arcs] : arcs))
    .map((arcs) => ({
      type: "Feature",
      properties: { kind: "land" },
      geometry: { type: "Polygon", coordinates: arcs.map(ring).map(unrolled) },
    }));
}

// A ring across 180 degrees goes on beyond it, where the map wraps it, not back around the world;
// one around a pole cannot and stays as it is.
function unrolled(ring) {
  let [last] = ring[0], turn = 0;
  const points = ring.map(([lon, lat]) => {
    turn -= 360 * Math.round((lon - last) / 360);
    last = lon;
    return [lon + turn, lat];
  });
  return turn === 0 ? points : ring;
}

// Lines that two areas share: borders without coasts.
function shared(topology, object) {
  const uses = new Uint8Array(topology.arcs.length);
  for (const { arcs } of leaves(object)) for (const i of (arcs ?? []).flat(3)) uses[i < 0 ? ~i : i]++;
  return { type: "MultiLineString", coordinates: decoded(topology).filter((_, i) => uses[i] > 1) };
}

function leaves(object) {
  return object.type === "GeometryCollection" ? object.geometries : [object];
}
