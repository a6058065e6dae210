// Where the picture lies on the screen, and drawing it there. Screen positions are in the canvas' own pixels (device
// pixels); picture positions are in pixel edges, so that pixel 0 lies between 0 and 1 and its centre at 0.5 of the
// canvas is the integer 0 of a click.

const LARGEST = 64;
/** How far a click's disk and an outline reach, in CSS pixels. */
const ROOM = 12;

/** The view of one picture. */
export class Viewport {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(brush: CanvasRenderingContext2D, view: Viewport) => void} paint Draws everything, in screen pixels.
   */
  constructor(canvas, paint) {
    this.canvas = canvas;
    this.brush = canvas.getContext("2d", { alpha: false });
    this.paint = paint;
    /** Screen pixels a picture pixel. */
    this.scale = 1;
    /** Where the picture's corner is, in screen pixels. */
    this.left = 0;
    this.top = 0;
    this.width = 0;
    this.height = 0;
    this.fitted = true;
    this.planned = 0;
    this.onchange = () => {};
    /** What lies over the canvas' edges and should not lie over the whole picture, in CSS pixels. */
    this.insets = () => ({ left: 20, top: 20, right: 20, bottom: 20 });
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  /** Device pixels a CSS pixel. */
  get ratio() {
    return window.devicePixelRatio || 1;
  }

  /** Zoom as people count it: 1 is one picture pixel a CSS pixel. */
  get zoom() {
    return this.scale / this.ratio;
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    const [width, height] = [
      Math.max(1, Math.round(box.width * this.ratio)),
      Math.max(1, Math.round(box.height * this.ratio)),
    ];
    const [dx, dy] = [(width - this.canvas.width) / 2, (height - this.canvas.height) / 2];
    if (dx === 0 && dy === 0) return;
    this.canvas.width = width;
    this.canvas.height = height;
    if (this.fitted) this.fit();
    else this.moveBy(dx, dy);
    this.draw();
  }

  /** Shows a picture of this size, all of it. @param {number} width @param {number} height */
  show(width, height) {
    this.width = width;
    this.height = height;
    this.fit();
  }

  fit() {
    this.fitted = true;
    if (this.width === 0) return;
    const { left, top, right, bottom } = this.insets();
    const across = Math.max(1, this.canvas.width - (left + right) * this.ratio);
    const down = Math.max(1, this.canvas.height - (top + bottom) * this.ratio);
    this.scale = Math.max(0.01, Math.min(across / this.width, down / this.height, LARGEST * this.ratio));
    this.left = Math.round(left * this.ratio + (across - this.width * this.scale) / 2);
    this.top = Math.round(top * this.ratio + (down - this.height * this.scale) / 2);
    this.changed();
  }

  /**
   * Zooms so that what lies under a point stays under it.
   * @param {number} scale Screen pixels a picture pixel.
   * @param {number} [x] In screen pixels; the middle where it is left out.
   * @param {number} [y]
   */
  zoomTo(scale, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    if (this.width === 0) return;
    const smallest = Math.min(0.05, this.canvas.width / this.width / 4);
    const wanted = Math.max(smallest * this.ratio, Math.min(scale, LARGEST * this.ratio));
    const factor = wanted / this.scale;
    this.left = x - (x - this.left) * factor;
    this.top = y - (y - this.top) * factor;
    this.scale = wanted;
    this.fitted = false;
    this.keepIn();
    this.changed();
  }

  /** @param {number} dx In screen pixels. @param {number} dy */
  moveBy(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.keepIn();
    this.changed();
  }

  /** A part of the picture always stays in sight. */
  keepIn() {
    const rest = 48 * this.ratio;
    this.left = Math.min(this.canvas.width - rest, Math.max(rest - this.width * this.scale, this.left));
    this.top = Math.min(this.canvas.height - rest, Math.max(rest - this.height * this.scale, this.top));
    // Where a picture pixel is so many screen pixels, its edges are those of screen pixels, and nothing is blurred.
    if (Number.isInteger(this.scale)) [this.left, this.top] = [Math.round(this.left), Math.round(this.top)];
  }

  /** Moves the picture so that a pixel of it is in sight. @param {number} x @param {number} y */
  reveal(x, y) {
    const margin = Math.min(40 * this.ratio, this.canvas.width / 4, this.canvas.height / 4);
    const [sx, sy] = [this.left + (x + 0.5) * this.scale, this.top + (y + 0.5) * this.scale];
    const over = (place, side) => Math.max(margin - place, 0) + Math.min(side - margin - place, 0);
    const [dx, dy] = [over(sx, this.canvas.width), over(sy, this.canvas.height)];
    if (dx !== 0 || dy !== 0) this.moveBy(dx, dy);
  }

  /**
   * The place of a pointer on the canvas, in screen pixels.
   * @param {{clientX: number, clientY: number}} event
   * @returns {[number, number]}
   */
  screen(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      (event.clientX - box.left) * (this.canvas.width / box.width),
      (event.clientY - box.top) * (this.canvas.height / box.height),
    ];
  }

  /**
   * The picture's pixel under a place on the canvas, or null beside the picture.
   * @param {number} x In screen pixels.
   * @param {number} y
   * @returns {[number, number] | null}
   */
  pixel(x, y) {
    const [px, py] = [Math.floor((x - this.left) / this.scale), Math.floor((y - this.top) / this.scale)];
    return px >= 0 && py >= 0 && px < this.width && py < this.height ? [px, py] : null;
  }

  /** The middle of a pixel on the page, for those who drive it. @returns {[number, number]} clientX, clientY */
  client(x, y) {
    const box = this.canvas.getBoundingClientRect();
    return [
      box.left + ((this.left + (x + 0.5) * this.scale) * box.width) / this.canvas.width,
      box.top + ((this.top + (y + 0.5) * this.scale) * box.height) / this.canvas.height,
    ];
  }

  /** The part of the picture in sight, in picture pixels: x0, y0, x1, y1. */
  get sight() {
    const at = (place, corner) => (place - corner) / this.scale;
    return [at(0, this.left), at(0, this.top), at(this.canvas.width, this.left), at(this.canvas.height, this.top)];
  }

  changed() {
    this.onchange();
    this.plan();
  }

  /** Draws with the screen's next picture. */
  plan() {
    if (this.planned) return;
    this.planned = requestAnimationFrame(() => this.draw());
  }

  /**
   * Draws now: everything, or a part of the picture with room around it for what is drawn at a fixed size.
   * @param {{x: number, y: number, width: number, height: number} | null} [part] In picture pixels. What is planned is
   *   still drawn, whole, with the screen's next picture.
   */
  draw(part = null) {
    if (part === null) {
      cancelAnimationFrame(this.planned);
      this.planned = 0;
      this.paint(this.brush, this);
      return;
    }
    const room = ROOM * this.ratio;
    const [left, top] = [
      Math.floor(this.left + part.x * this.scale - room),
      Math.floor(this.top + part.y * this.scale - room),
    ];
    this.brush.save();
    this.brush.setTransform(1, 0, 0, 1, 0, 0);
    this.brush.beginPath();
    this.brush.rect(
      left,
      top,
      Math.ceil(part.width * this.scale + 2 * room) + 1,
      Math.ceil(part.height * this.scale + 2 * room) + 1,
    );
    this.brush.clip();
    this.paint(this.brush, this);
    this.brush.restore();
  }
}
