"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const scene = JSON.parse(byId("scene").textContent);
  const canvas = byId("canvas"), brush = canvas.getContext("2d");
  const scale = Math.min(1, 1600 / Math.max(scene.width_px, scene.height_px));
  canvas.width = Math.ceil(scene.width_px * scale);
  canvas.height = Math.ceil(scene.height_px * scale);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const figure = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });

  const events = [], tiles = new Map(); // tiles: "row/col" -> the last event up to the clock
  let samples = [], end = 0, over = !scene.live, clock = 0, playing = true, used = 0, newest = -1, last = performance.now();

  // ---- tiles ----
  const pictures = new Map(), wanted = new Map(); // "row/col/layers" -> bitmap; "row/col" -> key to fetch
  let fetching = 0;

  function rect(row, col) {
    const at = (k, size) => Math.round(Math.min(k * scene.tile_px, size) * scale);
    const x = at(col, scene.width_px), y = at(row, scene.height_px);
    return [x, y, at(col + 1, scene.width_px) - x, at(row + 1, scene.height_px) - y];
  }

  function hatch(box, ground, lines) {
    const [x, y, width, height] = box;
    brush.fillStyle = ground;
    brush.fillRect(x, y, width, height);
    if (!lines) return;
    brush.save();
    brush.beginPath();
    brush.rect(x, y, width, height);
    brush.clip();
    brush.strokeStyle = lines;
    brush.lineWidth = 2;
    for (let k = -height; k < width; k += 10) {
      brush.moveTo(x + k, y + height);
      brush.lineTo(x + k + height, y);
    }
    brush.stroke();
    brush.restore();
  }

  /** What a tile is at the clock: waiting, hole, refused, a declared kind, coarse or whole. */
  function stateOf(row, col) {
    const event = tiles.get(`${row}/${col}`);
    if (!event) return (over && clock >= end) || row * scene.cols + col < newest ? "hole" : "waiting";
    const [, , , kind, layers, sent] = event;
    if (kind !== "coded" && kind !== "fallback") return kind;
    return layers === 0 ? "refused" : layers < sent ? "coarse" : "whole";
  }

  function draw(row, col) {
    const state = stateOf(row, col), box = rect(row, col), event = tiles.get(`${row}/${col}`);
    if (state !== "coarse" && state !== "whole") {
      const [ground, lines] = {
        waiting: ["faint"], hole: ["failed-paper", "lost"], refused: ["amber-paper", "refused"],
        withheld: ["withheld"], omitted: ["omitted"], empty: ["panel"],
      }[state] || ["faint"];
      hatch(box, colour(ground), lines && colour(lines));
      return;
    }
    const key = `${row}/${col}/${event[4]}`;
    let layers = event[4];
    while (layers > 0 && !pictures.has(`${row}/${col}/${layers}`)) layers -= 1;
    hatch(box, colour("faint"));
    if (layers < event[4]) {
      wanted.set(`${row}/${col}`, key);
      fetchNext();
    }
    if (!layers) return; // it is on its way from the decoder
    const picture = pictures.get(`${row}/${col}/${layers}`);
    const tile = scene.tile_px * scale;
    brush.save();
    brush.beginPath();
    brush.rect(...box);
    brush.clip();
    brush.drawImage(picture, box[0], box[1], tile, tile);
    brush.restore();
    if (state === "coarse" && (row * scene.cols + col < newest || (over && clock >= end))) {
      brush.strokeStyle = colour("incomplete");
      brush.lineWidth = 3;
      brush.strokeRect(box[0] + 1.5, box[1] + 1.5, box[2] - 3, box[3] - 3);
    }
  }

  async function fetchNext() {
    if (fetching >= 4 || !wanted.size) return;
    const [tile, key] = wanted.entries().next().value;
    wanted.delete(tile);
    fetching += 1;
    try {
      const answer = await fetch(`/tile/${key}`);
      if (answer.ok) {
        if (pictures.size > 4000) pictures.delete(pictures.keys().next().value);
        pictures.set(key, await createImageBitmap(await answer.blob()));
        draw(...tile.split("/").map(Number));
      }
    } catch (error) {
      trouble(error);
    }
    fetching -= 1;
    fetchNext();
  }

  function drawAll() {
    for (let row = 0; row < scene.rows; row += 1) for (let col = 0; col < scene.cols; col += 1) draw(row, col);
  }

  // ---- the clock ----
  /** Goes to a time: forwards by the events in between, backwards from the beginning. */
  function goTo(time) {
    const back = time < clock;
    const wasOver = clock >= end;
    if (back) {
      tiles.clear();
      used = 0;
      newest = -1;
    }
    clock = Math.min(time, end);
    const from = newest, changed = new Map();
    while (used < events.length && events[used][0] <= clock) {
      const event = events[used];
      used += 1;
      tiles.set(`${event[1]}/${event[2]}`, event);
      newest = Math.max(newest, event[1] * scene.cols + event[2]);
      changed.set(`${event[1]}/${event[2]}`, [event[1], event[2]]);
    }
    for (let k = Math.max(0, from); k < newest; k += 1) changed.set(`${k}`, [Math.floor(k / scene.cols), k % scene.cols]);
    if (back || (over && clock >= end && !wasOver)) drawAll();
    else for (const [row, col] of changed.values()) draw(row, col);
    tell();
  }

  function sampleAt(time) {
    let low = 0, high = samples.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (samples[middle][0] <= time) low = middle + 1;
      else high = middle;
    }
    return samples[low - 1] || [0, 0, 0, 0];
  }

  function tell() {
    const [, sent, arrived, octets] = sampleAt(clock), counts = { whole: 0, coarse: 0, hole: 0, refused: 0 };
    for (let row = 0; row < scene.rows; row += 1)
      for (let col = 0; col < scene.cols; col += 1) counts[stateOf(row, col)] = (counts[stateOf(row, col)] || 0) + 1;
    const shown = {
      clock: `${clock.toFixed(clock < 10 ? 3 : 1)} s`, packets: `${figure.format(arrived)} / ${figure.format(sent)}`,
      lost: figure.format(sent - arrived), octets: figure.format(octets), whole: `${counts.whole} / ${scene.rows * scene.cols}`,
      coarse: counts.coarse, holes: counts.hole + counts.refused,
    };
    for (const [id, text] of Object.entries(shown)) byId(id).textContent = text;
    byId("box-lost").classList.toggle("warn", sent > arrived);
    byId("box-holes").classList.toggle("bad", counts.hole + counts.refused > 0);
    byId("time").value = end ? Math.round((1000 * clock) / end) : 0;
    byId("play").textContent = playing ? "Pause" : clock >= end && over ? "Replay" : "Play";
    canvas.setAttribute("aria-label", `The scene: ${counts.whole} tiles whole, ${counts.coarse} coarse, ${shown.holes} holes`);
  }

  function step(now) {
    const passed = (now - last) / 1000;
    last = now;
    if (playing && over) {
      goTo(clock + passed * (Number(byId("speed").value) || 1));
      if (clock >= end) {
        playing = false;
        tell();
      }
    }
    requestAnimationFrame(step);
  }

  // ---- what comes from the server ----
  function trouble(error) {
    byId("trouble").hidden = false;
    byId("trouble-told").textContent = `The run's server does not answer (${error.message || error}). What is shown is what was here.`;
  }

  async function follow() {
    try {
      const answer = await fetch(`/state?after=${events.length}`);
      const told = await answer.json();
      byId("trouble").hidden = true;
      events.push(...told.events);
      samples = told.samples;
      const unit = told.unit === "frames" ? "Frames" : "Packets";
      byId("name-packets").textContent = `${unit} on the ground`;
      byId("name-lost").textContent = `${unit} lost`;
      end = told.now_s;
      if (scene.live && !over) {
        over = told.over;
        goTo(end);
        if (over) {
          playing = false;
          byId("state").textContent = "run over: replay";
          drawAll();
          tell();
        } else setTimeout(follow, 200);
      } else tell();
    } catch (error) {
      trouble(error);
      if (!over) setTimeout(follow, 2000);
    }
  }

  byId("play").addEventListener("click", () => {
    if (!playing && clock >= end && over) goTo(0);
    playing = !playing;
    tell();
  });
  byId("time").addEventListener("input", () => {
    if (!over) return tell();
    playing = false;
    goTo((byId("time").value / 1000) * end);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  document.documentElement.classList.add("scripted");
  drawAll();
  follow().then(() => requestAnimationFrame((now) => { last = now; step(now); }));
})();
