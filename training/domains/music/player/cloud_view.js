// Draws a cloud with WebGL 2: time to the right, pitch up, the composite of loudness and tension towards the viewer.

const VERTEX = `#version 300 es
in vec3 place, before; in vec4 colour; in vec3 kind;
uniform vec2 turn; uniform float aspect, mixed, scale;
out vec4 ink; out float halo;
void main() {
  vec3 p = mix(before, place, mixed) - vec3(0.5, 0.5, 0.4);
  float c = cos(turn.x), s = sin(turn.x);
  p = vec3(c * p.x + s * p.z, p.y, c * p.z - s * p.x);
  c = cos(turn.y); s = sin(turn.y);
  p = vec3(p.x, c * p.y - s * p.z, s * p.y + c * p.z);
  float far = 2.2 - p.z;
  gl_Position = vec4(2.6 * p.x / aspect, 2.6 * p.y, 0.0, far);
  gl_PointSize = scale * (0.012 + 0.03 * kind.x) * (0.7 + 0.6 * kind.z) / far * 2.0;
  ink = colour;
  halo = kind.y;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 ink; in float halo; out vec4 result;
void main() {
  float r = 2.0 * length(gl_PointCoord - 0.5);
  float body = smoothstep(1.0, 0.35 - 0.3 * halo, r) * ink.a;
  result = vec4(mix(ink.rgb, vec3(1.0), 0.5 * halo * (1.0 - r)) * body, body);
}`;

export class CloudView {
  /** Throws an Error if the browser has no WebGL 2. */
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This browser has no WebGL 2, so clouds cannot be drawn.");
    this.gl = gl;
    this.program = program(gl);
    gl.useProgram(this.program);
    this.uniforms = Object.fromEntries(
      ["turn", "aspect", "mixed", "scale"].map(name => [name, gl.getUniformLocation(this.program, name)]));
    this.buffers = Object.fromEntries([["place", 3], ["before", 3], ["colour", 4], ["kind", 3]].map(([name, size]) => {
      const buffer = gl.createBuffer(), at = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, gl.FLOAT, false, 0, 0);
      return [name, buffer];
    }));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.turn = [-0.5, 0.25];
    this.count = 0;
    this.changed = 0; // when the last cloud came, in milliseconds
    this.every = 100; // milliseconds between the last two
    this.#listen();
  }

  /** `positions`, `colors`, `properties`: Float32Arrays of one cloud. */
  set({ positions, colors, properties }) {
    const now = performance.now();
    this.#fill("before", this.last ?? positions);
    this.#fill("place", positions);
    this.#fill("colour", colors);
    this.#fill("kind", properties);
    this.last = positions;
    this.count = positions.length / 3;
    this.every = Math.min(400, Math.max(16, now - this.changed));
    this.changed = now;
  }

  draw(now) {
    const gl = this.gl, ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.035, 0.04, 0.07, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(this.uniforms.turn, ...this.turn);
    gl.uniform1f(this.uniforms.aspect, width / height);
    gl.uniform1f(this.uniforms.scale, height);
    gl.uniform1f(this.uniforms.mixed, Math.min(1, (now - this.changed) / this.every));
    if (this.count) gl.drawArrays(gl.POINTS, 0, this.count);
  }

  #fill(name, data) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[name]);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, data, this.gl.DYNAMIC_DRAW);
  }

  #listen() {
    const turn = (x, y) => {
      this.turn = [this.turn[0] + x, Math.max(-1.5, Math.min(1.5, this.turn[1] + y))];
    };
    this.canvas.addEventListener("pointerdown", event => this.canvas.setPointerCapture(event.pointerId));
    this.canvas.addEventListener("pointermove", event => {
      if (event.buttons & 1) turn(event.movementX * 0.01, event.movementY * 0.01);
    });
    const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    this.canvas.addEventListener("keydown", event => {
      if (!(event.key in steps)) return;
      turn(...steps[event.key]);
      event.preventDefault();
    });
  }
}

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}
