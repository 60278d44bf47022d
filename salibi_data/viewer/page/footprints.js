// All tiles of the store in one WebGL layer: dots from afar, outlines close up.
//
// Each frame lists the samples in view, thinned to one per pixel where tiles are smaller, and draws
// two triangles for each: what is filtered out first, what matches over it, the chosen one on top.
// The shader fetches a tile by its place in the list: instancing a square is far slower without a GPU.

import { mercator } from "./store.js";

const DOT_PX = 3.2;
const OUTLINED_FROM_PX = 10; // smaller tiles are filled
const WIDTH = 2048; // of textures: every WebGL 2 has as much

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D tiles;    // x, and y with the split in its two highest bits, per sample
uniform usampler2D listed;   // samples in view
uniform int first;           // of the list
uniform ivec2 centre;        // tile in the middle of the map, and how far into it
uniform vec2 within;
uniform vec2 viewport;       // pixels of the screen
uniform float tile_px;
uniform float least_px;
uniform vec3 colours[4];     // of the splits, by their codes
out vec2 at;
out vec3 colour;
flat out float size;
uvec2 fetched(usampler2D table, int i) { return texelFetch(table, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0).xy; }
void main() {
  uvec2 tile = fetched(tiles, int(fetched(listed, first + gl_VertexID / 6).x));
  int corner = gl_VertexID % 6;
  at = vec2(corner == 1 || corner >= 4, corner == 2 || corner == 3 || corner == 5);
  // Whole tiles first: their difference is exact, where float coordinates would not be.
  ivec2 away = ivec2(int(tile.x), int(tile.y & 0x3fffffffu)) - centre;
  size = max(tile_px, least_px);
  vec2 pixel = (vec2(away) - within + 0.5) * tile_px + (at - 0.5) * size;
  colour = colours[tile.y >> 30];
  gl_Position = vec4(pixel / viewport * vec2(2, -2), 0, 1);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
in vec3 colour;
flat in float size;
uniform float fill;          // opacity of the inside
uniform float line;          // opacity of the outline
uniform float line_px;
uniform vec4 over;           // a colour instead of the split's, where its alpha is 1
out vec4 result;
void main() {
  vec2 edge = min(at, 1.0 - at) * size;
  float alpha = min(edge.x, edge.y) < line_px ? max(line, fill) : fill;
  result = vec4(mix(colour, over.rgb, over.a) * alpha, alpha);
}`;

export class Footprints {
  id = "footprints";
  type = "custom";
  renderingMode = "2d";

  // `looks()` gives { colours, chosenColour, shadow, background, grid, pictures, chosen } for a frame.
  constructor(store, shown, looks) {
    Object.assign(this, { store, shown, looks });
    this.list = new Uint32Array(rows(store.count + 1) * WIDTH);
  }

  onAdd(map, gl) {
    Object.assign(this, { map, gl, program: linked(gl, VERTEX, FRAGMENT), places: {} });
    const { x, y, split } = this.store.column;
    const tiles = new Uint32Array(rows(this.store.count) * WIDTH * 2);
    for (let i = 0; i < this.store.count; i++) {
      tiles[2 * i] = x[i];
      tiles[2 * i + 1] = (y[i] | (split[i] << 30)) >>> 0;
    }
    this.tiles = texture(gl, gl.RG32UI, rows(this.store.count));
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, rows(this.store.count), gl.RG_INTEGER, gl.UNSIGNED_INT, tiles);
    this.listed = texture(gl, gl.R32UI, rows(this.store.count + 1));
    this.nothing = gl.createVertexArray();
  }

  uniform(name) {
    return (this.places[name] ??= this.gl.getUniformLocation(this.program, name));
  }

  // Call after `shown` has changed.
  refresh() {
    this.map?.triggerRepaint();
  }

  render(gl) {
    const { colours, chosenColour, shadow, background, grid, pictures, chosen } = this.looks();
    const ratio = gl.drawingBufferWidth / this.map.getContainer().clientWidth;
    const tilePx = 512 * 2 ** (this.map.getZoom() - this.store.baseZoom) * ratio;
    const { lng, lat } = this.map.getCenter();
    const centre = mercator(lng, lat).map((part) => part * 2 ** this.store.baseZoom);
    const reach = [gl.drawingBufferWidth, gl.drawingBufferHeight].map((px) => px / 2 / tilePx + Math.max(1, (4 * ratio) / tilePx));
    const outlined = tilePx > OUTLINED_FROM_PX * ratio;
    const fill = pictures ? 0 : outlined ? 0.55 : 0.85;
    const hidden = pictures || grid ? this.gather(0, 0, centre, reach, tilePx) : 0;
    const visible = fill > 0 || grid ? this.gather(1, hidden, centre, reach, tilePx) : 0;
    this.list[hidden + visible] = Math.max(0, chosen);

    gl.useProgram(this.program);
    gl.bindVertexArray(this.nothing);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.tiles);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.listed);
    const used = rows(hidden + visible + 1);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 4);
    gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, false);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, used, gl.RED_INTEGER, gl.UNSIGNED_INT, this.list.subarray(0, used * WIDTH));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.STENCIL_TEST);
    gl.disable(gl.CULL_FACE);
    gl.uniform1i(this.uniform("tiles"), 0);
    gl.uniform1i(this.uniform("listed"), 1);
    gl.uniform2i(this.uniform("centre"), Math.floor(centre[0]), Math.floor(centre[1]));
    gl.uniform2f(this.uniform("within"), centre[0] % 1, centre[1] % 1);
    gl.uniform2f(this.uniform("viewport"), gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.uniform1f(this.uniform("tile_px"), tilePx);
    gl.uniform3fv(this.uniform("colours"), colours.flat());
    const draw = (first, count, { fill, line = 0, linePx = 1, over = [0, 0, 0, 0], leastPx = DOT_PX }) => {
      if (count === 0) return;
      gl.uniform1i(this.uniform("first"), first);
      gl.uniform1f(this.uniform("fill"), fill);
      gl.uniform1f(this.uniform("line"), line);
      gl.uniform1f(this.uniform("line_px"), linePx * ratio);
      gl.uniform1f(this.uniform("least_px"), leastPx * ratio);
      gl.uniform4fv(this.uniform("over"), over);
      gl.drawArrays(gl.TRIANGLES, 0, 6 * count);
    };
    // Pictures of what is filtered out are covered; without pictures it stays as a shadow.
    draw(0, hidden, pictures ? { fill: 0.82, over: [...background, 1] } : { fill: 0.3, over: [...shadow, 1] });
    draw(hidden, visible, { fill, line: grid && outlined ? 0.95 : 0, linePx: tilePx > 90 * ratio ? 1.5 : 1 });
    const small = tilePx < 3 * DOT_PX * ratio;
    draw(hidden + visible, chosen < 0 ? 0 : 1, {
      fill: small ? 1 : 0, line: 1, linePx: 3, over: [...chosenColour, 1], leastPx: 3 * DOT_PX,
    });
    gl.bindVertexArray(null);
  }

  // Lists from place `start` the samples in view that are shown (1) or not (0); gives their number.
  gather(wanted, start, [x, y], [reachX, reachY], tilePx) {
    const { shown, list, store: { count, column: { x: columns, y: rows, split } } } = this;
    const thin = Math.min(1, tilePx); // pixels per tile, if less than one
    let end = start, lastX = -1, lastY = -1, lastSplit = -1;
    for (let i = 0; i < count; i++) {
      if (shown[i] !== wanted) continue;
      if (Math.abs(columns[i] + 0.5 - x) > reachX || Math.abs(rows[i] + 0.5 - y) > reachY) continue;
      if (thin < 1) {
        // Neighbours follow each other in the store, so the last one listed is the one to compare.
        const pixelX = (columns[i] * thin) | 0, pixelY = (rows[i] * thin) | 0;
        if (pixelX === lastX && pixelY === lastY && split[i] === lastSplit) continue;
        [lastX, lastY, lastSplit] = [pixelX, pixelY, split[i]];
      }
      list[end++] = i;
    }
    return end - start;
  }

  onRemove(_map, gl) {
    gl.deleteProgram(this.program);
    gl.deleteVertexArray(this.nothing);
    gl.deleteTexture(this.tiles);
    gl.deleteTexture(this.listed);
  }
}

const rows = (count) => Math.ceil(count / WIDTH);

function texture(gl, format, height) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texStorage2D(gl.TEXTURE_2D, 1, format, WIDTH, height);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  return made;
}

function linked(gl, ...sources) {
  const program = gl.createProgram();
  [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((type, i) => {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, sources[i]);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  });
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}
