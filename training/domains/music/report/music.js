"use strict";

{ // a block scope, because scripts of other domains run in the same page
  // -- pieces: the playhead, seeking by a click into the roll, one piece plays at a time -----------------------------

  for (const piece of document.querySelectorAll(".piece")) {
    const audio = piece.querySelector("audio"), roll = piece.querySelector(".roll"), head = piece.querySelector(".playhead");
    if (!audio) continue;
    const seconds = Number(roll.dataset.seconds);
    const show = () => {
      head.hidden = audio.paused && audio.currentTime === 0;
      head.style.left = `${Math.min(100, (100 * audio.currentTime) / seconds)}%`;
      if (!audio.paused) requestAnimationFrame(show);
    };
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
      show();
    });
    for (const event of ["seeked", "pause", "ended"]) audio.addEventListener(event, show);
    roll.addEventListener("click", (event) => {
      const box = roll.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * seconds;
      audio.currentTime = Math.max(0, Math.min(at, (audio.duration || seconds) - 0.05));
      audio.play();
    });
  }

  // -- clouds --------------------------------------------------------------------------------------------------------

  const data = document.getElementById("cloud-data");
  if (data) turnable(JSON.parse(data.textContent));

  function turnable(clouds) {
    const HOME = { yaw: -28, tilt: 16, away: 3.5 };
    const view = { ...HOME };
    const canvases = [...document.querySelectorAll("#viewer canvas")];
    const status = document.getElementById("cloud-status");
    const opened = new Map();
    let chosen = 0, due = false;

    /** 13 bytes per particle (see samples.py): positions, scaled to a centred box of 1.9 x 1.15 x 1, colours, properties. */
    function unpack(text, cloud) {
      const raw = atob(text), count = raw.length / 13, bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0));
      const words = new DataView(bytes.buffer), place = new Float32Array(3 * count), box = [1.9, 1.15, 1];
      for (let i = 0; i < 3 * count; i++) place[i] = (words.getUint16(2 * i, true) / 65535 - 0.5) * box[i % 3];
      return { count, place, colour: bytes.subarray(6 * count, 10 * count), more: bytes.subarray(10 * count), cloud };
    }

    function points(side) {
      const key = `${chosen} ${side}`;
      if (!opened.has(key)) opened.set(key, unpack(clouds[chosen][side], clouds[chosen]));
      return opened.get(key);
    }

    const sprites = new Map();
    function sprite(r, g, b) {
      const key = ((r >> 3) << 10) | ((g >> 3) << 5) | (b >> 3);
      if (!sprites.has(key)) {
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 48;
        const ink = canvas.getContext("2d"), fade = ink.createRadialGradient(24, 24, 0, 24, 24, 24);
        for (const [at, alpha] of [[0, 1], [0.3, 0.95], [0.42, 0.35], [0.7, 0.09], [1, 0]])
          fade.addColorStop(at, `rgba(${r},${g},${b},${alpha})`);
        ink.fillStyle = fade;
        ink.fillRect(0, 0, 48, 48);
        sprites.set(key, canvas);
      }
      return sprites.get(key);
    }

    /** Pixels per unit of space at the centre of the box. */
    const unit = (width, height) => Math.min(width / 2.7, height / 1.95);

    function camera(width, height) {
      const yaw = (view.yaw * Math.PI) / 180, tilt = (view.tilt * Math.PI) / 180;
      const [cy, sy, ct, st] = [Math.cos(yaw), Math.sin(yaw), Math.cos(tilt), Math.sin(tilt)];
      const focus = unit(width, height) * HOME.away;
      return (x, y, z) => {
        const right = x * cy - z * sy, deep = x * sy + z * cy;
        const up = y * ct + deep * st, depth = view.away + deep * ct - y * st;
        const scale = focus / Math.max(0.4, depth);
        return [width / 2 + right * scale, height / 2 - up * scale, scale, depth];
      };
    }

    function draw() {
      due = false;
      for (const canvas of canvases) {
        const ratio = Math.min(2, devicePixelRatio || 1), box = canvas.getBoundingClientRect();
        const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
        if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
        const ink = canvas.getContext("2d"), see = camera(width, height), set = points(canvas.dataset.side);
        ink.globalCompositeOperation = "source-over";
        ink.globalAlpha = 1;
        ink.fillStyle = "#090c14";
        ink.fillRect(0, 0, width, height);
        frame(ink, see, set.cloud, ratio);
        const seen = [];
        for (let i = 0; i < set.count; i++) seen.push([i, ...see(set.place[3 * i], set.place[3 * i + 1], set.place[3 * i + 2])]);
        seen.sort((a, b) => b[4] - a[4]);
        for (const glowing of [true, false]) {
          ink.globalCompositeOperation = glowing ? "lighter" : "source-over";
          for (const [i, x, y, scale] of seen) {
            const [r, g, b, a] = set.colour.subarray(4 * i, 4 * i + 4);
            const size = set.more[3 * i] / 255, glow = set.more[3 * i + 1] / 255, solid = set.more[3 * i + 2] / 255;
            const alpha = (a / 255) ** 0.8, core = scale * (0.012 + 0.026 * size), radius = glowing ? core * (2 + 2.5 * glow) : core;
            ink.globalAlpha = glowing ? 0.13 * alpha * glow : alpha * (0.45 + 0.55 * solid);
            if (ink.globalAlpha > 0.01) ink.drawImage(sprite(r, g, b), x - radius, y - radius, 2 * radius, 2 * radius);
          }
        }
      }
    }

    function frame(ink, see, cloud, ratio) {
      const X = 0.95, Y = 0.575, Z = 0.5;
      ink.strokeStyle = "#333d57";
      ink.lineWidth = ratio;
      ink.beginPath();
      for (const [a, b] of [[[-X, -Y, -Z], [X, -Y, -Z]], [[-X, -Y, Z], [X, -Y, Z]], [[-X, Y, Z], [X, Y, Z]], [[-X, -Y, -Z], [-X, -Y, Z]],
        [[X, -Y, -Z], [X, -Y, Z]], [[-X, -Y, Z], [-X, Y, Z]], [[X, -Y, Z], [X, Y, Z]]]) {
        ink.moveTo(...see(...a).slice(0, 2));
        ink.lineTo(...see(...b).slice(0, 2));
      }
      ink.stroke();
      ink.fillStyle = "#aeb9cf";
      ink.font = `${12 * ratio}px system-ui, sans-serif`;
      ink.textAlign = "center";
      for (const [word, ...at] of [["time →", 0, -Y - 0.1, -Z], ["pitch ↑", -X - 0.12, 0.1, Z], ["energy", X + 0.1, -Y - 0.06, 0]])
        ink.fillText(word, ...see(...at).slice(0, 2));
    }

    function ask() {
      if (!due) {
        due = true;
        requestAnimationFrame(draw);
      }
    }

    function turn(by) {
      view.yaw = ((view.yaw + (by.yaw || 0) + 540) % 360) - 180;
      view.tilt = Math.max(-89, Math.min(89, view.tilt + (by.tilt || 0)));
      view.away = Math.max(1.6, Math.min(8, view.away * (by.away || 1)));
      ask();
    }

    const TURNS = {
      left: { yaw: 10 }, right: { yaw: -10 }, up: { tilt: 8 }, down: { tilt: -8 }, nearer: { away: 0.87 }, farther: { away: 1.15 },
    };
    const KEYS = {
      ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "nearer", "=": "nearer", "-": "farther",
      Home: "home",
    };

    function act(name) {
      if (name === "home") {
        Object.assign(view, HOME);
        ask();
      } else turn(TURNS[name]);
      status.textContent = `View: rotated by ${Math.round(view.yaw)}°, ${Math.round(view.tilt)}° above.`;
    }

    for (const canvas of canvases) {
      let held = null;
      canvas.addEventListener("pointerdown", (event) => {
        held = [event.clientX, event.clientY];
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!held) return;
        turn({ yaw: (held[0] - event.clientX) * 0.5, tilt: (event.clientY - held[1]) * 0.4 });
        held = [event.clientX, event.clientY];
      });
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = null));
      canvas.addEventListener("wheel", (event) => {
        if (document.activeElement !== canvas) return; // the wheel scrolls the page, unless a cloud has the focus
        event.preventDefault();
        turn({ away: event.deltaY > 0 ? 1.08 : 0.93 });
      }, { passive: false });
      canvas.addEventListener("keydown", (event) => {
        if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        act(KEYS[event.key]);
      });
    }
    for (const button of document.querySelectorAll("[data-turn]")) button.addEventListener("click", () => act(button.dataset.turn));

    function choose(index) {
      chosen = index;
      const { song, start, emotion, apart } = clouds[index];
      const [valence, arousal, intensity] = emotion.map((x) => x.toFixed(1));
      status.textContent = `${song} at ${start.toFixed(1)} s; valence ${valence}, arousal ${arousal}, intensity ${intensity}. ` +
        `Mean distance between a particle and the nearest one of the other cloud: ${(100 * apart).toFixed(1)} % of the window.`;
      for (const canvas of canvases)
        canvas.setAttribute("aria-label", `${canvas.dataset.side === "target" ? "Target" : "Predicted"} cloud of ${song}`);
      ask();
    }
    for (const input of document.querySelectorAll('input[name="cloud"]'))
      input.addEventListener("change", () => choose(Number(input.value)));
    new ResizeObserver(ask).observe(document.getElementById("viewer"));
    const checked = document.querySelector('input[name="cloud"]:checked');
    choose(checked ? Number(checked.value) : 0);
  }
}
