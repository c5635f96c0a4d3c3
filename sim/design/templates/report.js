"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  document.documentElement.classList.add("scripted");

  // ---- the pictures: one view (zoom and corner, as shares of the picture) for every frame ----
  const stage = byId("stage"), slider = byId("slider"), divider = byId("divider");
  const [rows, cols, tilePx, heightPx, widthPx] = stage.dataset.grid.split(" ").map(Number);
  const frames = all(".frame");
  const view = { zoom: 1, x: 0, y: 0 };
  let chosen = null; // the tile outlined in the pictures: [row, col]

  function draw() {
    const room = 1 - 1 / view.zoom;
    view.x = Math.min(room, Math.max(0, view.x));
    view.y = Math.min(room, Math.max(0, view.y));
    for (const frame of frames) {
      for (const picture of frame.querySelectorAll("img")) {
        picture.style.transform = `scale(${view.zoom}) translate(${-100 * view.x}%, ${-100 * view.y}%)`;
      }
      const pixels = byId("picture-original").naturalWidth;
      frame.classList.toggle("pixels", frame.clientWidth * view.zoom > 1.5 * pixels);
      outline(frame.querySelector(".outline"));
    }
    byId("zoom-level").textContent = `${+view.zoom.toFixed(1)}×`;
  }

  function outline(box) {
    box.hidden = chosen === null;
    if (box.hidden) return;
    const [row, col] = chosen;
    const share = (px, size, corner) => 100 * (Math.min(px, size) / size - corner) * view.zoom;
    const left = share(col * tilePx, widthPx, view.x), top = share(row * tilePx, heightPx, view.y);
    box.style.left = `${left}%`;
    box.style.top = `${top}%`;
    box.style.width = `${share((col + 1) * tilePx, widthPx, view.x) - left}%`;
    box.style.height = `${share((row + 1) * tilePx, heightPx, view.y) - top}%`;
  }

  /** Zooms so that the point (x, y) of the frame, in shares of it, stays where it is. */
  function zoomTo(zoom, x = 0.5, y = 0.5) {
    const wanted = Math.min(32, Math.max(1, zoom));
    view.x += x / view.zoom - x / wanted;
    view.y += y / view.zoom - y / wanted;
    view.zoom = wanted;
    draw();
  }

  function part(percent) {
    slider.value = percent;
    byId("right-layer").style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    divider.style.left = `${slider.value}%`;
  }

  function show(side) {
    const name = byId(side).value;
    const source = byId(`picture-${name}`);
    byId(`${side}-picture`).src = source.src;
    byId(`${side}-picture`).alt = `${source.alt}, on the ${side}`;
  }

  /** Calls move(dx, dy, event) while the pointer that went down on `element` is held. */
  function whileDragged(element, move) {
    element.addEventListener("pointerdown", (down) => {
      if (down.button !== 0) return;
      down.preventDefault();
      down.stopPropagation();
      element.setPointerCapture(down.pointerId);
      let last = down;
      const follow = (event) => {
        move(event.clientX - last.clientX, event.clientY - last.clientY, event);
        last = event;
      };
      const release = () => {
        element.removeEventListener("pointermove", follow);
        element.removeEventListener("pointerup", release);
        element.removeEventListener("pointercancel", release);
      };
      element.addEventListener("pointermove", follow);
      element.addEventListener("pointerup", release);
      element.addEventListener("pointercancel", release);
    });
  }

  function pan(frame) {
    whileDragged(frame, (dx, dy) => {
      view.x -= dx / frame.clientWidth / view.zoom;
      view.y -= dy / frame.clientHeight / view.zoom;
      draw();
    });
    frame.addEventListener("dblclick", (event) => {
      const box = frame.getBoundingClientRect();
      zoomTo(view.zoom * 2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
  }

  slider.addEventListener("input", () => part(slider.value));
  whileDragged(divider, (dx, dy, event) => {
    const box = stage.getBoundingClientRect();
    part((100 * (event.clientX - box.left)) / box.width);
  });
  frames.forEach(pan);
  for (const side of ["left", "right"]) {
    byId(side).addEventListener("change", () => show(side));
    show(side);
  }
  byId("zoom-in").addEventListener("click", () => zoomTo(view.zoom * 2));
  byId("zoom-out").addEventListener("click", () => zoomTo(view.zoom / 2));
  byId("zoom-fit").addEventListener("click", () => { chosen = null; zoomTo(1); });
  byId("zoom-one").addEventListener("click", () => zoomTo(byId("picture-original").naturalWidth / stage.clientWidth / devicePixelRatio));
  part(slider.value);

  // ---- the maps of the tiles: one cursor for all of them ----
  const tiles = new Map(JSON.parse(byId("tile-rows").textContent).map((tile) => [`${tile[0]} ${tile[1]}`, tile]));
  const maps = all(".map");
  let cursor = null;

  function tell(row, col) {
    const tile = tiles.get(`${row} ${col}`);
    if (!tile) return;
    cursor = [row, col];
    const [, , kind, received, sent, cloud, psnr, cause] = tile;
    const told = [`tile row ${row}, column ${col}`, kind];
    told.push(sent === null ? `${received} octets received` : `${received} of ${sent} octets received`);
    if (cloud !== null) told.push(`cloud ${cloud} %`);
    if (psnr !== null) told.push(`PSNR ${psnr} dB`);
    if (cause) told.push(cause);
    byId("tile-told").textContent = told.join(" · ");
    for (const mark of all(".cursor")) {
      mark.setAttribute("x", col);
      mark.setAttribute("y", row);
      mark.setAttribute("visibility", "visible");
    }
  }

  function visit(row, col) {
    chosen = [row, col];
    view.zoom = Math.max(1, Math.min(widthPx, heightPx) / tilePx / 2);
    view.x = ((col + 0.5) * tilePx) / widthPx - 0.5 / view.zoom;
    view.y = ((row + 0.5) * tilePx) / heightPx - 0.5 / view.zoom;
    draw();
  }

  function under(svg, event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [Math.min(rows - 1, Math.max(0, Math.floor(at.y))), Math.min(cols - 1, Math.max(0, Math.floor(at.x)))];
  }

  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  for (const map of maps) {
    const svg = map.querySelector("svg");
    svg.addEventListener("pointermove", (event) => tell(...under(svg, event)));
    svg.addEventListener("click", (event) => {
      tell(...under(svg, event));
      visit(...cursor);
      byId("pictures").scrollIntoView({ block: "nearest" });
    });
    map.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (step) tell(cursor ? cursor[0] + step[0] : 0, cursor ? cursor[1] + step[1] : 0);
      else if (event.key === "Enter" && cursor) visit(...cursor);
      else return;
      event.preventDefault();
    });
  }

  byId("picture-original").decode().then(draw, draw);
  addEventListener("resize", draw);
  draw();
})();
