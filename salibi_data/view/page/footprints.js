// All tiles of the store in one WebGL layer: dots from afar, outlines close up.
//
// A sample is an instance of one square. Filtering changes a byte per sample on the GPU, and a frame
// is a few draw calls however many samples there are.

import { mercator } from "./store.js";

const DOT_PX = 3.2;
const OUTLINED_FROM_PX = 10; // smaller tiles are filled

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
in vec2 corner;
in uint x;
in uint y;
in uint split;
in uint shown;
uniform ivec2 centre;        // tile in the middle of the map, and how far into it
uniform vec2 within;
uniform vec2 viewport;       // pixels of the screen
uniform float tile_px;
uniform float dot_px;
uniform uint pass;           // 0 draws what is filtered out, 1 what is shown, 2 the chosen one
uniform int chosen;
uniform vec3 colours[4];
out vec2 at;
out vec3 colour;
flat out float size;
void main() {
  bool drawn = pass == 2u ? gl_InstanceID == chosen : shown == pass;
  // Whole tiles first: their difference is exact, where float coordinates would not be.
  vec2 middle = (vec2(ivec2(int(x), int(y)) - centre) - within + 0.5) * tile_px;
  size = max(tile_px, pass == 2u ? 3.0 * dot_px : dot_px);
  vec2 pixel = middle + (corner - 0.5) * size;
  at = corner;
  colour = pass == 2u ? colours[3] : colours[min(split, 2u)];
  gl_Position = drawn ? vec4(pixel / viewport * vec2(2, -2), 0, 1) : vec4(2, 2, 2, 1);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
in vec2 at;
in vec3 colour;
flat in float size;
uniform float fill;          // opacity of the inside
uniform float line;          // opacity of the outline
uniform float line_px;
uniform vec4 veil;           // covers pictures of what is filtered out
uniform uint pass;
out vec4 result;
void main() {
  vec2 edge = min(at, 1.0 - at) * size;
  float alpha = min(edge.x, edge.y) < line_px ? max(line, fill) : fill;
  vec3 shade = colour;
  if (pass == 0u && veil.a > 0.0) { shade = veil.rgb; alpha = veil.a; }
  if (alpha == 0.0) discard;
  result = vec4(shade * alpha, alpha);
}`;

export class Footprints {
  id = "footprints";
  type = "custom";
  renderingMode = "2d";

  // `looks()` gives { colours: [[r, g, b] x 4], background, grid, pictures, chosen } for a frame.
  constructor(store, shown, looks) {
    Object.assign(this, { store, shown, looks });
  }

  onAdd(map, gl) {
    this.map = map;
    this.program = linked(gl, VERTEX, FRAGMENT);
    this.uniform = (name) => (this.places[name] ??= gl.getUniformLocation(this.program, name));
    this.places = {};
    this.vertices = gl.createVertexArray();
    gl.bindVertexArray(this.vertices);
    const attribute = (name, values, usage, perInstance) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, usage);
      const place = gl.getAttribLocation(this.program, name);
      gl.enableVertexAttribArray(place);
      if (values instanceof Float32Array) gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
      else {
        const type = values instanceof Uint8Array ? gl.UNSIGNED_BYTE : gl.UNSIGNED_INT;
        gl.vertexAttribIPointer(place, 1, type, 0, 0);
      }
      gl.vertexAttribDivisor(place, perInstance);
      return buffer;
    };
    attribute("corner", new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW, 0);
    attribute("x", this.store.column.x, gl.STATIC_DRAW, 1);
    attribute("y", this.store.column.y, gl.STATIC_DRAW, 1);
    attribute("split", this.store.column.split, gl.STATIC_DRAW, 1);
    this.shownBuffer = attribute("shown", this.shown, gl.DYNAMIC_DRAW, 1);
    gl.bindVertexArray(null);
    this.gl = gl;
  }

  // Call after `shown` has changed.
  refresh() {
    if (!this.gl) return;
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.shownBuffer);
    this.gl.bufferSubData(this.gl.ARRAY_BUFFER, 0, this.shown);
    this.map.triggerRepaint();
  }

  render(gl) {
    const { colours, background, grid, pictures, chosen } = this.looks();
    const ratio = gl.drawingBufferWidth / this.map.getContainer().clientWidth;
    const tilePx = 512 * 2 ** (this.map.getZoom() - this.store.baseZoom) * ratio;
    const { lng, lat } = this.map.getCenter();
    const [x, y] = mercator(lng, lat).map((part) => part * 2 ** this.store.baseZoom);
    const outlined = tilePx > OUTLINED_FROM_PX * ratio;
    gl.useProgram(this.program);
    gl.bindVertexArray(this.vertices);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.STENCIL_TEST);
    gl.disable(gl.CULL_FACE);
    gl.uniform2i(this.uniform("centre"), Math.floor(x), Math.floor(y));
    gl.uniform2f(this.uniform("within"), x - Math.floor(x), y - Math.floor(y));
    gl.uniform2f(this.uniform("viewport"), gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.uniform1f(this.uniform("tile_px"), tilePx);
    gl.uniform1f(this.uniform("dot_px"), DOT_PX * ratio);
    gl.uniform1i(this.uniform("chosen"), chosen);
    gl.uniform3fv(this.uniform("colours"), colours.flat());
    gl.uniform4f(this.uniform("veil"), ...background, pictures ? 0.82 : 0);
    const draw = (pass, fill, line, linePx) => {
      gl.uniform1ui(this.uniform("pass"), pass);
      gl.uniform1f(this.uniform("fill"), fill);
      gl.uniform1f(this.uniform("line"), line);
      gl.uniform1f(this.uniform("line_px"), linePx * ratio);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.store.count);
    };
    const fill = pictures ? 0 : outlined ? 0.55 : 0.8;
    draw(0, pictures || grid ? 0.16 : 0, 0, 1);
    if (fill > 0 || grid) draw(1, fill, grid && outlined ? 0.95 : 0, tilePx > 90 * ratio ? 1.5 : 1);
    if (chosen >= 0) draw(2, tilePx < DOT_PX * 3 * ratio ? 1 : 0, 1, 3.5);
    gl.bindVertexArray(null);
  }

  onRemove(_map, gl) {
    gl.deleteProgram(this.program);
    gl.deleteVertexArray(this.vertices);
  }
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
