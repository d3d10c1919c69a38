// Mouse, fingers and keys.

import {
  cancelPen, cancelPolygon, choose, closePolygon, endPen, hide, look, lower, pick, pointBack, resize, stroke, take,
  under, undo, use,
} from "./drawing.js";
import { actions, app, board, byId, view } from "./shared.js";

const FASTER = 10; // pixels of the screen that Shift moves the cursor by
const pointers = new Map(); // fingers and mouse that are down
let pinch = null;

function where(event) {
  const box = board.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

board.addEventListener("pointerdown", (event) => {
  if (!app.mask) return;
  board.focus();
  board.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, where(event));
  if (pointers.size > 1) {
    cancelPen();
    pinch = null;
    return;
  }
  view.cursor = view.at(...where(event));
  if (event.button === 1 || app.tool === "move") return;
  if (event.altKey || event.button === 2) return take();
  event.preventDefault();
  if (app.tool === "brush" || app.tool === "eraser") {
    lower();
  }
});

board.addEventListener("pointermove", (event) => {
  if (!app.mask) return;
  const before = pointers.get(event.pointerId);
  if (before) pointers.set(event.pointerId, where(event));
  if (pointers.size > 1) return pinched();
  if (before && (app.tool === "move" || event.buttons === 4)) {
    const [x, y] = where(event);
    return view.move(x - before[0], y - before[1]);
  }
  for (const one of event.getCoalescedEvents?.() ?? [event]) {
    view.cursor = view.at(...where(one));
    if (app.mask.isChanging) stroke(view.cursor);
  }
  under();
  view.draw();
});

function pinched() {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  const now = { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.hypot(ax - bx, ay - by) };
  if (pinch) {
    view.move(now.x - pinch.x, now.y - pinch.y);
    view.zoom(now.apart / Math.max(1, pinch.apart), now.x, now.y);
  }
  pinch = now;
}

function lift(event) {
  const alone = pointers.size === 1 && pointers.delete(event.pointerId);
  pointers.delete(event.pointerId);
  if (!app.mask) return;
  if (event.type === "pointercancel") cancelPen();
  else if (alone && !pinch && event.button === 0 && !event.altKey && !app.mask.isChanging) use(view.cursor);
  if (app.mask.isChanging) endPen();
  if (!pointers.size) pinch = null;
  if (event.pointerType === "touch") view.cursor = null;
  view.draw();
}

board.addEventListener("pointerup", lift);
board.addEventListener("pointercancel", lift);
board.addEventListener("pointerleave", () => {
  if (!pointers.size && document.activeElement !== board) view.cursor = null;
  view.draw();
});
board.addEventListener("contextmenu", (event) => event.preventDefault());
board.addEventListener("dblclick", () => view.points.length > 2 && closePolygon());
board.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...where(event));
  },
  { passive: false },
);

// ---- keys

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { b: "brush", p: "polygon", f: "fill", e: "eraser", v: "move" };
const ACTIONS = {
  c: take,
  m: hide,
  a: () => view.whole(),
  u: () => look(view.place + 1),
  "+": () => view.zoom(1.3, ...(view.cursor ? view.onScreen(view.cursor) : [])),
  "=": () => view.zoom(1.3),
  "-": () => view.zoom(1 / 1.3),
  "[": () => resize(Math.max(0, Number(byId("size").value) - 5)),
  "]": () => resize(Math.min(100, Number(byId("size").value) + 5)),
  PageDown: () => actions.next(),
  PageUp: () => actions.back(),
};

function arrow([dx, dy], fast) {
  const step = Math.max(1, (fast ? FASTER : 1) / view.scale) * (fast ? 2 : 1);
  const from = view.cursor || [app.mask.width / 2, app.mask.height / 2];
  const x = Math.min(app.mask.width - 0.5, Math.max(0.5, Math.floor(from[0] + dx * step) + 0.5));
  const y = Math.min(app.mask.height - 0.5, Math.max(0.5, Math.floor(from[1] + dy * step) + 0.5));
  if (app.tool === "move") return view.move(-dx * 40, -dy * 40);
  view.cursor = [x, y];
  if (app.pen) stroke(view.cursor);
  view.reveal(x, y);
  under();
  view.draw();
}

function act() {
  view.cursor = view.cursor || [app.mask.width / 2, app.mask.height / 2];
  if (app.tool !== "brush" && app.tool !== "eraser") return use(view.cursor);
  if (app.pen) endPen();
  else {
    lower();
    app.pen = true;
  }
  under();
}

function inPicture(event) {
  if (ARROWS[event.key]) arrow(ARROWS[event.key], event.shiftKey);
  else if (event.key === " ") act();
  else if (event.key === "Enter") view.points.length ? closePolygon() : actions.finish(true);
  else if (event.key === "Escape") view.points.length ? cancelPolygon() : cancelPen();
  else if (event.key === "Backspace" && view.points.length) pointBack();
  else return false;
  return true;
}

function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") undo(event.shiftKey);
    else if (key === "y") undo(true);
    else return false;
    return true;
  }
  if (event.altKey || !app.mask) return false;
  if (document.activeElement === board && inPicture(event)) return true;
  const digit = /^Digit([0-9])$/.exec(event.code);
  if (digit) choose(((Number(digit[1]) + 9) % 10) + (event.shiftKey ? 10 : 0));
  else if (key === "z") undo(event.shiftKey);
  else if (TOOLS[key]) pick(TOOLS[key]);
  else if (ACTIONS[key]) ACTIONS[key]();
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search]")) return;
  if (event.target.matches("input") && event.key.startsWith("Page")) return;
  if (pressed(event)) event.preventDefault();
});
