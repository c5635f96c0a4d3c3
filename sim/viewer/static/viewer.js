import * as maplibregl from "./maplibre-gl.mjs";

const byId = (id) => document.getElementById(id);
const scenes = await (await fetch("scenes.json")).json();
const origin = location.href.replace(/[^/]*$/, "").replace(/\/$/, "");
const OVERLAYS = { holes: "provenance/holes", provenance: "provenance/state", layers: "provenance/layers", cloud: "cloud/classes" };
let scene = scenes[0];

function blank() {
  return { version: 8, sources: {}, layers: [{ id: "ground", type: "background", paint: { "background-color": "#30343a" } }] };
}

const options = { style: blank(), attributionControl: false, fadeDuration: 0, dragRotate: false, pitchWithRotate: false, maxZoom: 18 };
const left = new maplibregl.Map({ container: "left", ...options });
const right = new maplibregl.Map({ container: "right", ...options });
right.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
let moving = false;
for (const [from, to] of [[left, right], [right, left]]) {
  from.on("move", () => {
    if (moving) return;
    moving = true;
    to.jumpTo({ center: from.getCenter(), zoom: from.getZoom() });
    moving = false;
  });
}
await Promise.all([left, right].map((map) => new Promise((done) => (map.isStyleLoaded() ? done() : map.once("load", done)))));

function raster(map, id, path, opacity = 1) {
  map.addSource(id, { type: "raster", tiles: [`${origin}/tiles/${scene.key}/${path}/{z}/{x}/{y}.png`], tileSize: 256, bounds: scene.bbox });
  map.addLayer({ id, type: "raster", source: id, paint: { "raster-opacity": opacity } });
}

function clear(map) {
  for (const layer of map.getStyle().layers) if (layer.id !== "ground") map.removeLayer(layer.id);
  for (const source of Object.keys(map.getStyle().sources)) map.removeSource(source);
}

function outlines(map) {
  if (!byId("footprints").checked) return;
  const shown = scenes.filter((entry) => entry.footprint && inTime(entry)).flatMap((entry) => entry.footprint.features);
  map.addSource("footprints", { type: "geojson", data: { type: "FeatureCollection", features: shown } });
  const colour = ["coalesce", ["get", "colour"], "#ffffff"];
  map.addLayer({ id: "footprints", type: "line", source: "footprints", paint: { "line-color": colour, "line-width": 1.5 } });
}

function draw() {
  const style = byId("style").value;
  for (const [map, layer] of [[left, "original"], [right, "received"]]) {
    clear(map);
    if (scene.layers.includes(layer)) raster(map, "picture", `${layer}/${style}`);
    for (const [id, path] of Object.entries(OVERLAYS)) {
      if (byId(id).checked && scene.layers.includes(path.split("/")[0])) raster(map, id, path, 0.75);
    }
    outlines(map);
  }
  const both = scene.layers.includes("original");
  byId("swipe-row").hidden = !both;
  byId("divider").hidden = !both;
  part(both ? byId("swipe").value : 0);
  byId("report").hidden = !scene.report;
  if (scene.report) byId("report").href = scene.report.slice(1);
}

function part(percent) {
  byId("right").style.clipPath = `inset(0 0 0 ${percent}%)`;
  byId("divider").style.left = `${percent}%`;
}

function choose(key) {
  scene = scenes.find((entry) => entry.key === key);
  const [west, south, east, north] = scene.bbox;
  right.fitBounds([[west, south], [east, north]], { padding: 30, animate: false });
  draw();
}

let asked = 0;
export async function look(longitude, latitude) {
  const number = ++asked;
  const answer = await (await fetch(`value/${scene.key}?lon=${longitude}&lat=${latitude}`)).json();
  if (number !== asked) return;
  const rows = scene.bands.map((band, index) => {
    const row = document.createElement("tr");
    const cells = [band, answer?.original?.[index], answer?.received?.[index]];
    cells.forEach((text, place) => row.append(Object.assign(document.createElement(place ? "td" : "th"), { textContent: text ?? "–" })));
    return row;
  });
  byId("values").tBodies[0].replaceChildren(...rows);
  byId("told").textContent = answer ? `row ${answer.row}, column ${answer.col}` : "outside the scene";
}
window.look = look;
for (const map of [left, right]) {
  for (const event of ["mousemove", "click"]) map.on(event, ({ lngLat }) => look(lngLat.lng, lngLat.lat));
}

// ---- time: scenes up to the chosen one ----
const times = [...new Set(scenes.map((entry) => entry.sensed_at).filter(Boolean))].sort();
const inTime = (entry) => !entry.sensed_at || !times.length || entry.sensed_at <= times[byId("time").value];
function offer() {
  const shown = scenes.filter(inTime);
  byId("scene").replaceChildren(...shown.map((entry) => new Option(`${entry.name}${entry.sensed_at ? ` · ${entry.sensed_at}` : ""}`, entry.key)));
  byId("time-told").textContent = times[byId("time").value] ?? "";
  const kept = shown.includes(scene) ? scene : shown.at(-1);
  byId("scene").value = kept.key;
  choose(kept.key);
}
byId("time").max = Math.max(0, times.length - 1);
byId("time").value = byId("time").max;
byId("time-row").hidden = times.length < 2;
byId("time").addEventListener("input", offer);
byId("scene").addEventListener("change", () => choose(byId("scene").value));
byId("swipe").addEventListener("input", () => part(byId("swipe").value));
for (const id of ["style", "footprints", ...Object.keys(OVERLAYS)]) byId(id).addEventListener("change", draw);
byId("wmts").textContent = `${origin}/wmts/1.0.0/WMTSCapabilities.xml`;
offer();
window.viewer = { left, right };
document.documentElement.dataset.ready = "yes";
