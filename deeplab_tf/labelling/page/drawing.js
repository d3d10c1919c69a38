// The tools: what they change in the label, and how that is undone.

import { IGNORED } from "./mask.js";
import { app, board, byId, saver, view } from "./shared.js";

let last = null; // where the pen was

export function lower() {
  app.mask.begin();
  last = null;
  stroke(view.cursor);
}

export function buttons() {
  byId("undo").disabled = !app.mask?.past.length;
  byId("redo").disabled = !app.mask?.future.length;
  byId("pending").hidden = !view.points.length;
}

export function changed(box) {
  if (box) view.repaint(box);
  saver.change(app.mask.data, app.facts.done);
  buttons();
}

export function draw(work) {
  if (!app.mask) return;
  app.mask.begin();
  const box = work(app.mask);
  if (app.mask.commit()) changed(box);
}

export function undo(again = false) {
  if (!app.mask || app.mask.isChanging) return;
  if (view.points.length && !again) return pointBack();
  const box = again ? app.mask.redo() : app.mask.undo();
  if (box) changed(box);
}

const painted = () => (app.tool === "eraser" ? IGNORED : app.value);

export function stroke([x, y]) {
  const [fx, fy] = last || [x, y];
  last = [x, y];
  view.repaint(app.mask.line(fx, fy, x, y, view.brush, painted()));
}

export function endPen() {
  app.pen = false;
  last = null;
  if (app.mask?.isChanging && app.mask.commit()) changed(null);
}

export function cancelPen() {
  app.pen = false;
  last = null;
  const box = app.mask?.cancel();
  if (box) view.repaint(box);
}

function addPoint(point) {
  const [x, y] = view.onScreen(point);
  const first = view.points.length > 2 && view.onScreen(view.points[0]);
  if (first && Math.hypot(first[0] - x, first[1] - y) < 10) return closePolygon();
  view.points.push(point);
  view.draw();
  buttons();
}

export function pointBack() {
  view.points.pop();
  view.draw();
  buttons();
}

export function cancelPolygon() {
  view.points = [];
  view.draw();
  buttons();
}

export function closePolygon() {
  const points = view.points;
  cancelPolygon();
  if (points.length > 2) draw((mask) => mask.polygon(points, app.value));
}

export function use(point) {
  const [x, y] = point.map(Math.floor);
  if (app.tool === "polygon") addPoint(point);
  else if (app.tool === "fill") draw((mask) => mask.fill(x, y, app.value));
}

export function choose(value) {
  if (value !== IGNORED && value >= app.state.classes.length) return;
  app.value = value;
  const radio = document.querySelector(`#classes input[value="${value}"]`);
  radio.checked = true;
  localStorage.setItem("label-class", value);
  if (app.tool === "eraser" && value !== IGNORED) pick("brush");
}

export function pick(tool) {
  if (tool !== app.tool) endPen();
  if (tool !== "polygon" && tool !== "move") cancelPolygon();
  app.tool = tool;
  view.brush = tool === "brush" || tool === "eraser" ? app.size : null;
  board.dataset.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]:not(canvas)")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
  view.draw();
}

// The slider is logarithmic: 1 to 400 pixels of the picture.
export function resize(value) {
  byId("size").value = value;
  app.size = Math.round(400 ** (value / 100));
  byId("size-now").textContent = `${app.size} px`;
  localStorage.setItem("label-size", value);
  if (view.brush) view.brush = app.size;
  view.draw();
}

export function under() {
  const [x, y] = (view.cursor || [-1, -1]).map(Math.floor);
  const value = app.mask?.at(x, y) ?? null;
  const name = value === IGNORED ? "ignored" : app.state.classes[value]?.name;
  byId("under").textContent = value === null ? "\u00a0" : `${name} at ${x}, ${y}${app.pen ? ", pen down" : ""}`;
}

export function take() {
  const value = view.cursor && app.mask?.at(...view.cursor.map(Math.floor));
  if (value !== null && value !== undefined) choose(value);
}

export function look(number) {
  if (view.places.length) view.look(number % view.places.length);
}

export function hide() {
  view.hidden = !view.hidden;
  byId("hide").setAttribute("aria-pressed", String(view.hidden));
  view.draw();
}

