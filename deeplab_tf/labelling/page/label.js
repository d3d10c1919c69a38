// The page: opens pictures, keeps the lists, and says what is saved.

import {
  buttons, cancelPolygon, choose, closePolygon, draw, endPen, hide, look, pick, pointBack, resize, undo,
} from "./drawing.js";
import "./hands.js";
import { listClasses, listPictures, listPlaces } from "./lists.js";
import { Mask } from "./mask.js";
import { readMask, readPhoto } from "./saving.js";
import { actions, app, board, byId, fail, saver, view } from "./shared.js";

actions.saved = function showSaved(kind, text) {
  byId("saved").textContent = text;
  byId("saved").className = saver.revision ? kind : `${kind} new`;
  byId("conflict").hidden = kind !== "conflict";
  if (kind === "saved" && saver.revision && app.facts) {
    app.facts.revision = saver.revision;
    const row = app.state.pictures.find((one) => one.id === app.picture);
    if (row) row.status = app.facts.done ? "done" : "begun";
    progress();
  }
};

// ---- pictures

async function update() {
  const version = app.state ? `?version=${app.state.version}` : "";
  try {
    const answer = await fetch(`/state${version}`);
    if (answer.status === 200) {
      app.state = await answer.json();
      progress();
      pictures();
    }
  } catch {
    // the server is away; saving says so
  }
}

async function refresh() {
  await update();
  const whole = app.state && app.state.seen >= app.state.pictures.length;
  setTimeout(refresh, whole ? 15000 : 2500);
}

function progress() {
  const all = app.state.pictures;
  const done = all.filter((row) => row.status === "done").length;
  const looking = app.state.seen < all.length ? `, ${app.state.seen} looked at` : "";
  byId("progress").textContent = `${done} of ${all.length} done${looking}`;
}

function pictures() {
  listPictures(byId("pictures"), byId("left-out"), app.state, app.picture, byId("filter").value, (id) => open(id));
}

async function open(id, { remember = true } = {}) {
  if (!id) return;
  endPen();
  if (!(await saver.flush())) {
    fail("This picture is not saved yet: it stays open until it is.");
    return;
  }
  const turn = ++app.opening;
  board.setAttribute("aria-busy", "true");
  try {
    const [{ facts, data }, photo] = await Promise.all([readMask(id), readPhoto(id)]);
    if (turn !== app.opening) return;
    if (remember && app.picture && app.picture !== id) app.history.push(app.picture);
    Object.assign(app, { picture: id, facts, mask: new Mask(facts.width, facts.height, data) });
    location.replace(`#${id}`);
    board.style.setProperty("--ratio", String(facts.width / facts.height));
    saver.begin(id, facts.revision);
    view.places = facts.places;
    view.show(photo, app.mask, app.state.classes, app.state.ignored);
    fail("");
  } catch (error) {
    if (turn === app.opening) fail(error instanceof TypeError ? "The server cannot be reached." : error.message);
  }
  board.removeAttribute("aria-busy");
  describe();
  pictures();
}

function describe() {
  const row = app.state.pictures.find((one) => one.id === app.picture);
  if (!row || !app.facts) return;
  byId("name").textContent = row.name;
  document.title = `${row.name} - labelling`;
  listPlaces(byId("place-list"), view.places, app.state, look);
  byId("places").hidden = !view.places.length;
  byId("undone").hidden = !app.facts.done;
  const words = { label: "Back to the label", model: "Back to the model's mask", nothing: "Clear" };
  byId("restart").textContent = words[row.suspects ? "label" : app.state.model ? "model" : "nothing"];
  byId("back").disabled = !app.history.length;
  buttons();
}

function next() {
  const left = app.state.pictures.filter((row) => row.status !== "done" && !row.error);
  const here = left.findIndex((row) => row.id === app.picture);
  const row = here < 0 ? left[0] : left[(here + 1) % left.length];
  if (!row || row.id === app.picture) fail("There is no other picture to label.");
  else open(row.id);
}

async function finish(done) {
  if (!app.mask) return;
  const place = app.state.pictures.findIndex((row) => row.id === app.picture);
  app.facts.done = done;
  saver.change(app.mask.data, done);
  if (!(await saver.flush())) return;
  describe();
  pictures();
  if (!done) return;
  const later = [...app.state.pictures.slice(place + 1), ...app.state.pictures];
  const row = later.find((one) => one.status !== "done" && !one.error);
  if (row) open(row.id);
  else fail("All pictures are done.");
}

async function restart() {
  if (!app.mask || !(await saver.flush())) return;
  try {
    const { data } = await readMask(app.picture, true);
    draw((mask) => mask.replace(data));
  } catch (error) {
    fail(error.message);
  }
}

// What the server knows of the label now; null: it does not answer.
async function revision() {
  try {
    return await (await fetch(`/revisions/${app.picture}`)).json();
  } catch {
    return null;
  }
}

// ---- buttons

function back() {
  const id = app.history.pop();
  if (id) open(id, { remember: false });
}

const CLICKS = {
  back,
  skip: next,
  done: () => finish(true),
  undone: () => finish(false),
  undo: () => undo(),
  redo: () => undo(true),
  closer: () => view.zoom(1.3),
  farther: () => view.zoom(1 / 1.3),
  whole: () => view.whole(),
  hide,
  restart,
  "close-polygon": closePolygon,
  "point-back": pointBack,
  "cancel-polygon": cancelPolygon,
  theirs: () => {
    saver.begin(app.picture, 0);
    open(app.picture);
  },
  mine: async () => {
    const now = await revision();
    if (now) saver.keepMine(now.revision);
  },
};
for (const [id, work] of Object.entries(CLICKS)) byId(id).addEventListener("click", work);
for (const button of document.querySelectorAll("button[data-tool]")) {
  button.addEventListener("click", () => pick(button.dataset.tool));
}
byId("size").addEventListener("input", () => resize(Number(byId("size").value)));
byId("opacity").addEventListener("input", () => {
  view.opacity = byId("opacity").value / 100;
  if (app.mask) view.repaint();
});
byId("filter").addEventListener("input", pictures);
window.addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (id !== app.picture) open(id);
});
window.addEventListener("beforeunload", (event) => {
  if (!saver.isClean) event.preventDefault();
});
// Another tab may have gone on with this picture.
document.addEventListener("visibilitychange", async () => {
  if (document.hidden || !app.picture || !saver.isClean) return;
  const now = await revision();
  if (now && now.revision !== saver.revision && saver.isClean && !app.mask.isChanging) open(app.picture);
});

async function start() {
  await refresh();
  if (!app.state) return fail("The server cannot be reached.");
  listClasses(byId("classes"), app.state, choose);
  const kept = Number(localStorage.getItem("label-class") ?? 1);
  choose(kept < app.state.classes.length ? kept : app.state.classes.length - 1);
  resize(Number(localStorage.getItem("label-size") ?? 45));
  pick("brush");
  const wanted = location.hash.slice(1);
  // The first picture is worth more when some have been looked at.
  byId("name").textContent = "Looking at the first pictures …";
  for (let i = 0; i < 48 && !wanted && app.state.seen < Math.min(8, app.state.pictures.length); i++) {
    await new Promise((done) => setTimeout(done, 250));
    await update();
  }
  const known = app.state.pictures.some((row) => row.id === wanted);
  const first = app.state.pictures.find((row) => row.status === "begun") ?? app.state.pictures[0];
  await open(known ? wanted : first.id);
}

Object.assign(actions, { next, back, finish });
start();
