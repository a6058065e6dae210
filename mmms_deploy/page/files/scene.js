// Draws the scene on the canvas: the layer, the masks or the confidence, outlines, clicks and the crosshair.

import { cssColour } from "./colours.js";

const POSITIVE = "#12a150";
const NEGATIVE = "#d92d35";

/**
 * Returns the function that draws everything.
 * @param {import("./state.js").State} state
 * @param {import("./painting.js").Painting} painting
 * @param {{image: CanvasImageSource | null, ground: string}} layer What is seen below the masks, and around it.
 * @param {{at: [number, number] | null}} crosshair The pixel that the keyboard is at, while it is used.
 */
export function makeScene(state, painting, layer, crosshair) {
  return (brush, view) => {
    brush.setTransform(1, 0, 0, 1, 0, 0);
    brush.fillStyle = layer.ground;
    brush.fillRect(0, 0, view.canvas.width, view.canvas.height);
    if (view.width === 0) return;
    brush.setTransform(view.scale, 0, 0, view.scale, view.left, view.top);
    // From two screen pixels on, a pixel is a square.
    brush.imageSmoothingEnabled = view.scale < 2 * view.ratio;
    brush.imageSmoothingQuality = "medium";
    if (layer.image) brush.drawImage(layer.image, 0, 0, view.width, view.height);
    if (state.picture === null) return;
    drawMasks(brush, view, state, painting);
    if (state.view.outline) drawOutlines(brush, view, state, painting);
    brush.setTransform(1, 0, 0, 1, 0, 0);
    if (state.view.markers) drawMarkers(brush, view, state);
    if (crosshair.at) drawCrosshair(brush, view, crosshair.at);
  };
}

function drawMasks(brush, view, state, painting) {
  if (state.view.confidence && painting.confidence) {
    brush.globalAlpha = Math.min(1, state.view.opacity + 0.25);
    brush.imageSmoothingEnabled = true;
    brush.drawImage(painting.confidence, 0, 0, view.width, view.height);
  } else if (!state.view.confidence) {
    brush.globalAlpha = state.view.opacity;
    // Better ones are made anew whenever the masks change.
    brush.imageSmoothingQuality = "low";
    brush.drawImage(painting.masks, 0, 0);
  }
  brush.globalAlpha = 1;
}

function drawOutlines(brush, view, state, painting) {
  const current = state.current?.label;
  const found = painting.outlines(...view.sight);
  const pixel = view.ratio / view.scale;
  brush.lineCap = "square";
  const stroke = (label, colour, width) => {
    brush.strokeStyle = colour;
    brush.lineWidth = width * pixel;
    for (const path of found.get(label)) brush.stroke(path);
  };
  for (const label of found.keys()) if (label !== current) stroke(label, cssColour(label), 1.5);
  if (!found.has(current)) return;
  stroke(current, "rgb(0 0 0 / 55%)", 3.5);
  stroke(current, cssColour(current), 2);
}

function drawMarkers(brush, view, state) {
  for (const surface of state.answer?.surfaces ?? []) {
    if (state.hidden.has(surface.label)) continue;
    const current = surface.name === state.answer.surface;
    for (const [x, y, positive] of surface.clicks)
      drawMarker(brush, view, x, y, positive === 1, current ? 1 : 0.55, false);
  }
  for (const { x, y, positive } of state.pending) drawMarker(brush, view, x, y, positive, 1, true);
}

/** A disk with a plus or a minus in it; a ring while the click is being answered. */
function drawMarker(brush, view, x, y, positive, alpha, pending) {
  const [cx, cy] = [view.left + (x + 0.5) * view.scale, view.top + (y + 0.5) * view.scale];
  const radius = 7 * view.ratio;
  const arm = 3.6 * view.ratio;
  brush.globalAlpha = alpha;
  brush.beginPath();
  brush.arc(cx, cy, radius, 0, 2 * Math.PI);
  brush.fillStyle = positive ? POSITIVE : NEGATIVE;
  if (!pending) brush.fill();
  brush.lineWidth = 3 * view.ratio;
  brush.strokeStyle = "rgb(0 0 0 / 45%)";
  brush.stroke();
  brush.lineWidth = 1.75 * view.ratio;
  brush.strokeStyle = pending ? brush.fillStyle : "#fff";
  brush.stroke();
  brush.strokeStyle = "#fff";
  brush.lineCap = "round";
  brush.beginPath();
  brush.moveTo(cx - arm, cy);
  brush.lineTo(cx + arm, cy);
  if (positive) {
    brush.moveTo(cx, cy - arm);
    brush.lineTo(cx, cy + arm);
  }
  brush.stroke();
  brush.globalAlpha = 1;
}

/** Lines that leave the pixel itself free, and its frame where it is large enough to be seen. */
function drawCrosshair(brush, view, [x, y]) {
  const [left, top] = [view.left + x * view.scale, view.top + y * view.scale];
  const [cx, cy] = [left + view.scale / 2, top + view.scale / 2];
  const [near, far] = [Math.max(view.scale / 2, 4 * view.ratio) + 2 * view.ratio, 18 * view.ratio + view.scale / 2];
  brush.beginPath();
  for (const [dx, dy] of [
    [1, 0],
    [-1, 0],
    [0, 1],
    [0, -1],
  ]) {
    brush.moveTo(cx + dx * near, cy + dy * near);
    brush.lineTo(cx + dx * far, cy + dy * far);
  }
  if (view.scale >= 4) brush.rect(left, top, view.scale, view.scale);
  brush.lineCap = "butt";
  for (const [colour, width] of [
    ["rgb(0 0 0 / 75%)", 4],
    ["#fff", 2],
  ]) {
    brush.strokeStyle = colour;
    brush.lineWidth = width * view.ratio;
    brush.stroke();
  }
}
