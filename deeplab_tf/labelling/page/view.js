// What is seen: the picture and its mask at any zoom, the cursor, the polygon that is drawn, places to look at.

import { IGNORED } from "./mask.js";

const CLOSEST = 40; // screen pixels for one of the picture

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas");
    Object.assign(this, { photo: null, mask: null, table: null, opacity: 0.55, hidden: false });
    Object.assign(this, { scale: 1, left: 0, top: 0, points: [], cursor: null, brush: null, places: [], place: -1 });
    this.asked = false;
    new ResizeObserver(() => this.resized()).observe(canvas);
  }

  get size() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  resized() {
    const density = window.devicePixelRatio || 1;
    const [width, height] = this.size;
    if (!width || !height) return;
    const middle = this.at(width / 2, height / 2);
    this.canvas.width = Math.round(width * density);
    this.canvas.height = Math.round(height * density);
    if (this.isWhole !== false) this.whole();
    else this.centre(...middle);
    this.draw();
  }

  show(photo, mask, classes, ignored) {
    Object.assign(this, { photo, mask, points: [], cursor: null, place: -1 });
    this.layer.width = mask.width;
    this.layer.height = mask.height;
    this.colours = [...classes.map((one) => one.colour)];
    this.void = ignored;
    this.repaint();
    this.whole();
  }

  // ---- where

  at(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  whole() {
    if (!this.mask) return;
    const [width, height] = this.size;
    this.scale = Math.min(width / this.mask.width, height / this.mask.height);
    this.left = (width - this.scale * this.mask.width) / 2;
    this.top = (height - this.scale * this.mask.height) / 2;
    this.isWhole = true;
    this.draw();
  }

  zoom(factor, x = this.size[0] / 2, y = this.size[1] / 2) {
    if (!this.mask) return;
    const least = 0.5 * Math.min(this.size[0] / this.mask.width, this.size[1] / this.mask.height);
    const scale = Math.min(CLOSEST, Math.max(least, this.scale * factor));
    const [px, py] = this.at(x, y);
    this.scale = scale;
    this.move(x - (px * scale + this.left), y - (py * scale + this.top));
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.isWhole = false;
    this.keepInside();
    this.draw();
  }

  // Some of the picture stays in sight.
  keepInside() {
    const [width, height] = this.size;
    const [wide, high] = [this.scale * this.mask.width, this.scale * this.mask.height];
    this.left = Math.min(width - 40, Math.max(40 - wide, this.left));
    this.top = Math.min(height - 40, Math.max(40 - high, this.top));
  }

  centre(px, py) {
    if (!this.mask) return;
    this.move(this.size[0] / 2 - (px * this.scale + this.left), this.size[1] / 2 - (py * this.scale + this.top));
  }

  // Moves the picture so that a point of it is in sight.
  reveal(px, py) {
    const [x, y] = [px * this.scale + this.left, py * this.scale + this.top];
    const [width, height] = this.size;
    const dx = x < 20 ? 20 - x : x > width - 20 ? width - 20 - x : 0;
    const dy = y < 20 ? 20 - y : y > height - 20 ? height - 20 - y : 0;
    if (dx || dy) this.move(dx, dy);
  }

  // Shows a place, with what is around it.
  look(number) {
    this.place = number;
    const [left, top, wide, high] = this.places[number];
    const [width, height] = this.size;
    const scale = 0.45 * Math.min(width / (wide * this.mask.width), height / (high * this.mask.height));
    const whole = Math.min(width / this.mask.width, height / this.mask.height);
    this.scale = Math.min(CLOSEST / 2, Math.max(whole, scale));
    this.centre((left + wide / 2) * this.mask.width, (top + high / 2) * this.mask.height);
  }

  // ---- the mask in colours, with a line between classes

  repaint(box = { left: 0, top: 0, right: this.mask.width, bottom: this.mask.height }) {
    const { width, height, data } = this.mask;
    const left = Math.max(0, box.left - 1), top = Math.max(0, box.top - 1);
    const right = Math.min(width, box.right + 1), bottom = Math.min(height, box.bottom + 1);
    if (right <= left || bottom <= top) return;
    const image = new ImageData(right - left, bottom - top);
    const words = new Uint32Array(image.data.buffer);
    const word = (rgb, alpha) => new Uint32Array(new Uint8Array([...rgb, Math.round(alpha)]).buffer)[0];
    const table = new Uint32Array(256).fill(word([255, 255, 255], 255 * this.opacity));
    this.colours.forEach((rgb, i) => (table[i] = word(rgb, 255 * this.opacity)));
    const [grey, line] = [word(this.void.colour, 255 * this.opacity), word([255, 255, 255], 255 * Math.min(1, this.opacity + 0.3))];
    for (let y = top, i = 0; y < bottom; y++) {
      for (let x = left; x < right; x++, i++) {
        const place = y * width + x;
        const own = data[place];
        const edge = (x + 1 < width && data[place + 1] !== own) || (y + 1 < height && data[place + width] !== own);
        words[i] = edge ? line : own === IGNORED ? ((x + y) >> 2) & 1 ? grey : 0 : table[own];
      }
    }
    this.layer.getContext("2d").putImageData(image, left, top);
    this.draw();
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { context, canvas, mask } = this;
    const density = canvas.width / Math.max(1, this.size[0]);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!mask) return;
    const scale = this.scale * density;
    context.setTransform(scale, 0, 0, scale, this.left * density, this.top * density);
    context.imageSmoothingEnabled = this.scale < 3;
    if (this.photo) context.drawImage(this.photo, 0, 0, mask.width, mask.height);
    if (!this.hidden && this.opacity > 0) context.drawImage(this.layer, 0, 0);
    context.setTransform(density, 0, 0, density, 0, 0);
    this.drawPlaces();
    this.drawPolygon();
    this.drawCursor();
  }

  // A line that is seen on every ground.
  stroke(path, dash = []) {
    const { context } = this;
    context.setLineDash(dash);
    for (const [colour, width] of [["#000000", 3.5], ["#ffffff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke(path);
    }
    context.setLineDash([]);
  }

  onScreen([px, py]) {
    return [px * this.scale + this.left, py * this.scale + this.top];
  }

  drawPlaces() {
    this.places.forEach(([left, top, wide, high], number) => {
      const [x, y] = this.onScreen([left * this.mask.width, top * this.mask.height]);
      const path = new Path2D();
      path.rect(x, y, wide * this.mask.width * this.scale, high * this.mask.height * this.scale);
      this.stroke(path, number === this.place ? [] : [6, 5]);
      const { context } = this;
      context.font = "600 13px system-ui, sans-serif";
      const text = String(number + 1);
      context.fillStyle = "#101214d9";
      context.fillRect(x, y, context.measureText(text).width + 8, 18);
      context.fillStyle = "#ffffff";
      context.fillText(text, x + 4, y + 14);
    });
  }

  drawPolygon() {
    if (!this.points.length) return;
    const path = new Path2D();
    const all = this.cursor ? [...this.points, this.cursor] : this.points;
    all.forEach((point, i) => path[i ? "lineTo" : "moveTo"](...this.onScreen(point)));
    this.stroke(path);
    this.points.forEach((point, i) => {
      const dot = new Path2D();
      dot.arc(...this.onScreen(point), i ? 3.5 : 6, 0, 2 * Math.PI);
      this.context.fillStyle = i ? "#ffffff" : "#ffd400";
      this.context.fill(dot);
      this.stroke(dot);
    });
  }

  drawCursor() {
    if (!this.cursor) return;
    const [x, y] = this.onScreen(this.cursor);
    const path = new Path2D();
    if (this.brush) path.arc(x, y, Math.max(1, (this.brush / 2) * this.scale), 0, 2 * Math.PI);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(x + 4 * dx, y + 4 * dy);
      path.lineTo(x + 10 * dx, y + 10 * dy);
    }
    this.stroke(path);
  }
}
