// The emotion: a pad for pointers, and three sliders for every input.

const NAMES = ["valence", "arousal", "intensity"];
const find = id => document.getElementById(id);

/** Calls `changed([valence, arousal, intensity])` now and at every change. */
export function emotionControls(changed) {
  const sliders = NAMES.map(find), outputs = NAMES.map(name => document.querySelector(`output[for=${name}]`));
  const pad = find("pad"), dot = find("dot");
  const show = () => {
    const values = sliders.map(slider => Number(slider.value));
    outputs.forEach((output, at) => { output.value = values[at].toFixed(2); });
    dot.style.left = `${50 + 50 * values[0]}%`;
    dot.style.top = `${50 - 50 * values[1]}%`;
    changed(values);
  };
  const point = event => {
    const box = pad.getBoundingClientRect();
    sliders[0].value = 2 * (event.clientX - box.left) / box.width - 1;
    sliders[1].value = 1 - 2 * (event.clientY - box.top) / box.height;
    show();
  };
  sliders.forEach(slider => slider.addEventListener("input", show));
  pad.addEventListener("pointerdown", event => {
    pad.setPointerCapture(event.pointerId);
    point(event);
  });
  pad.addEventListener("pointermove", event => {
    if (event.buttons & 1) point(event);
  });
  show();
}

const COLOURS = ["#6ea8ff", "#9ad0ff", "#b39dff", "#ffd166", "#ff9a5c", "#7be0a4", "#5fd3c4", "#ff7b7b", "#f6a6ff",
  "#a8e6ff", "#ffe08a", "#8ea2ff", "#c3f584", "#e8b67c", "#d0d0d0", "#9fb4c7", "#aeb4c2"];
const BEFORE = 4, AFTER = 5; // seconds to the left and right of the line

/** Draws notes around `now`, in seconds of the piece. */
export function drawRoll(canvas, notes, now) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d"), scale = width / (BEFORE + AFTER), line = BEFORE * scale;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = "#1b1e2b";
  for (let pitch = 24; pitch <= 96; pitch += 12) pen.fillRect(0, y(pitch, height), width, 1);
  for (let at = notes.length - 1; at >= 0; at--) {
    const { onset, seconds, pitch, family, drum, velocity } = notes[at];
    if (onset < now - BEFORE - 12) break;
    const left = line + (onset - now) * scale, wide = Math.max(2 * ratio, (drum ? 0.06 : seconds) * scale - ratio);
    if (left > width || left + wide < 0) continue;
    const sounding = onset <= now && onset + seconds > now;
    pen.globalAlpha = sounding ? 1 : (onset > now ? 0.45 : 0.75) * (0.5 + velocity / 254);
    pen.fillStyle = sounding ? "#ffffff" : COLOURS[family % COLOURS.length];
    pen.fillRect(left, y(pitch, height) - height / 180, wide, Math.max(2 * ratio, height / 90));
  }
  pen.globalAlpha = 1;
  pen.fillStyle = "#ffffff";
  pen.fillRect(line, 0, ratio, height);
}

const y = (pitch, height) => height * (1 - (Math.min(108, Math.max(20, pitch)) - 18) / 92);
