// The label of a picture: a byte a pixel, what draws in it, and what undoes that.

export const IGNORED = 255;
const MOST_KEPT = 256e6; // bytes that can be undone

export class Mask {
  constructor(width, height, data) {
    Object.assign(this, { width, height, data });
    this.past = [];
    this.future = [];
    this.before = null;
    this.dirty = null;
  }

  at(x, y) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height ? this.data[y * this.width + x] : null;
  }

  // ---- a change: begin, draw, commit or cancel

  begin() {
    this.before = this.data.slice();
    this.dirty = null;
  }

  get isChanging() {
    return this.before !== null;
  }

  touch(left, top, right, bottom) {
    const found = this.dirty || { left: this.width, top: this.height, right: 0, bottom: 0 };
    found.left = Math.min(found.left, Math.max(0, left));
    found.top = Math.min(found.top, Math.max(0, top));
    found.right = Math.max(found.right, Math.min(this.width, right));
    found.bottom = Math.max(found.bottom, Math.min(this.height, bottom));
    this.dirty = found;
    return found;
  }

  cut(data, box) {
    const wide = box.right - box.left;
    const part = new Uint8Array(wide * (box.bottom - box.top));
    for (let y = box.top, to = 0; y < box.bottom; y++, to += wide) {
      part.set(data.subarray(y * this.width + box.left, y * this.width + box.right), to);
    }
    return part;
  }

  paste(part, box) {
    const wide = box.right - box.left;
    for (let y = box.top, from = 0; y < box.bottom; y++, from += wide) {
      this.data.set(part.subarray(from, from + wide), y * this.width + box.left);
    }
    return box;
  }

  // Ends the change; returns whether there was one.
  commit() {
    const { before, dirty } = this;
    this.before = null;
    if (!dirty || dirty.right <= dirty.left || dirty.bottom <= dirty.top) return false;
    const box = { ...dirty };
    const step = { box, before: this.cut(before, box), after: this.cut(this.data, box) };
    if (step.before.every((value, i) => value === step.after[i])) return false;
    this.past.push(step);
    this.future = [];
    let kept = 0;
    for (let i = this.past.length - 1; i >= 0; i--) {
      kept += 2 * this.past[i].before.length;
      if (kept > MOST_KEPT && i < this.past.length - 1) {
        this.past.splice(0, i + 1);
        break;
      }
    }
    return true;
  }

  cancel() {
    const box = this.dirty;
    if (this.before) this.data.set(this.before);
    this.before = null;
    return box;
  }

  undo() {
    const step = this.past.pop();
    if (!step) return null;
    this.future.push(step);
    return this.paste(step.before, step.box);
  }

  redo() {
    const step = this.future.pop();
    if (!step) return null;
    this.past.push(step);
    return this.paste(step.after, step.box);
  }

  // ---- drawing; each returns the box that it touched

  // A line of a round brush, whose ends are points of the picture; a pixel belongs to it where its middle does.
  line(x0, y0, x1, y1, diameter, value) {
    const radius = Math.max(diameter / 2, 0.5);
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
    const right = Math.min(this.width, Math.ceil(Math.max(x0, x1) + radius) + 1);
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
    const bottom = Math.min(this.height, Math.ceil(Math.max(y0, y1) + radius) + 1);
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const [ex, ey] = [px - along * dx, py - along * dy];
        if (ex * ex + ey * ey <= radius * radius) this.data[y * this.width + x] = value;
      }
    }
    if (this.at(Math.floor(x1), Math.floor(y1)) !== null) this.data[Math.floor(y1) * this.width + Math.floor(x1)] = value;
    this.touch(left, top, right, bottom);
    return { left, top, right, bottom };
  }

  polygon(points, value) {
    const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
    const top = Math.max(0, Math.floor(Math.min(...ys)));
    const bottom = Math.min(this.height, Math.ceil(Math.max(...ys)));
    for (let y = top; y < bottom; y++) {
      const cuts = [];
      for (let i = 0; i < points.length; i++) {
        const [[ax, ay], [bx, by]] = [points[i], points[(i + 1) % points.length]];
        if ((ay <= y + 0.5) !== (by <= y + 0.5)) cuts.push(ax + ((y + 0.5 - ay) / (by - ay)) * (bx - ax));
      }
      cuts.sort((a, b) => a - b);
      for (let i = 0; i + 1 < cuts.length; i += 2) {
        const from = Math.max(0, Math.ceil(cuts[i] - 0.5));
        const to = Math.min(this.width, Math.ceil(cuts[i + 1] - 0.5));
        if (to > from) this.data.fill(value, y * this.width + from, y * this.width + to);
      }
    }
    const box = { left: Math.floor(Math.min(...xs)), top, right: Math.ceil(Math.max(...xs)), bottom };
    return { ...this.touch(box.left, box.top, box.right, box.bottom) };
  }

  // The region of one class around a pixel.
  fill(x, y, value) {
    const old = this.at(x, y);
    if (old === null || old === value) return null;
    const { data, width, height } = this;
    const stack = [[x, y]];
    let [left, top, right, bottom] = [x, y, x + 1, y + 1];
    while (stack.length) {
      const [column, row] = stack.pop();
      const start = row * width;
      if (data[start + column] !== old) continue;
      let [from, to] = [column, column];
      while (from > 0 && data[start + from - 1] === old) from--;
      while (to + 1 < width && data[start + to + 1] === old) to++;
      data.fill(value, start + from, start + to + 1);
      [left, right] = [Math.min(left, from), Math.max(right, to + 1)];
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
      for (const next of [row - 1, row + 1]) {
        if (next < 0 || next >= height) continue;
        for (let i = from; i <= to; i++) {
          if (data[next * width + i] === old && (i === from || data[next * width + i - 1] !== old)) stack.push([i, next]);
        }
      }
    }
    return { ...this.touch(left, top, right, bottom) };
  }

  replace(data) {
    this.data.set(data);
    return { ...this.touch(0, 0, this.width, this.height) };
  }
}
