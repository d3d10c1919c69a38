"use strict";

// Photographs larger than this are shrunk here: the network sees less than that, and phones have slow uplinks.
const LARGEST_SIDE = 2048;
const SENT = ["image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif"]; // others the browser may read: AVIF, HEIC

const byId = (id) => document.getElementById(id);
const state = { info: null, found: null, labels: null, visible: new Set(), file: "photo.jpg", name: "photo", turn: 0 };
state.rows = new Map(); // the legend: what tells a class its share, by the index of the class
state.newVisible = null; // whether a class that a later frame shows is coloured; null: unless it is the background

function say(text, kind = "") {
  const message = byId("message");
  message.textContent = text;
  message.className = kind;
}

function percent(share) {
  return share > 0 && share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function colourOf(index) {
  return index < state.info.classes.length ? state.info.classes[index].colour : [255, 255, 255];
}

// ---- sending a photograph

async function shrunk(blob) {
  if (state.info.photographs) return { blob, bitmap: null }; // of more bits or bands than a browser keeps
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    return { blob, bitmap: null }; // the server says what is wrong with it
  }
  const ratio = Math.min(1, LARGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  if (ratio === 1 && SENT.includes(blob.type)) return { blob, bitmap };
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * ratio));
  canvas.height = Math.max(1, Math.round(bitmap.height * ratio));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const smaller = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return { blob: smaller, bitmap: await createImageBitmap(smaller) };
}

function jpeg(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });
}

// Returns what the server finds in an encoded picture.
async function ask(blob, name) {
  if (blob.size > state.info.max_body_bytes) {
    throw new Error(`The file is larger than ${Math.floor(state.info.max_body_bytes / 1e6)} MB.`);
  }
  const headers = { "content-type": blob.type || "application/octet-stream" };
  const response = await fetch("/segment", { method: "POST", headers, body: blob });
  const answer = await response.json().catch(() => ({})); // what stands between may answer in a language of its own
  if (response.ok) return answer;
  throw new Error((answer.error || `The server answers ${response.status}.`).replace(/^the picture:/, `${name}:`));
}

function complain(error) {
  say(error instanceof TypeError ? "The server cannot be reached." : error.message, "bad");
}

async function segment(blob, name) {
  closeLive();
  const turn = ++state.turn;
  say("Looking at it …", "busy");
  try {
    const photo = await shrunk(blob);
    const start = performance.now();
    const answer = await ask(photo.blob, name || "The picture");
    if (turn !== state.turn) return; // another photograph was chosen in between
    const bitmap = answer.shown_jpeg ? await createImageBitmap(jpeg(answer.shown_jpeg)) : photo.bitmap;
    if (!bitmap) throw new Error("This browser cannot show the picture.");
    state.file = name || "photo.jpg";
    state.name = (name || "photo").replace(/\.[^.]*$/, "");
    show(bitmap, answer, performance.now() - start);
    for (const note of answer.notes || []) say(note, "bad");
  } catch (error) {
    if (turn === state.turn) complain(error);
  }
}

// ---- showing what was found

// Shows a photograph, and forgets what was chosen for the one before.
function show(bitmap, found, milliseconds) {
  forget();
  const objects = found.classes.filter((entry) => entry.name !== "background");
  state.newVisible = objects.length ? null : true;
  showFound(bitmap, found, milliseconds, "The photograph");
  byId("shell").hidden = false;
  byId("command").textContent = command();
  say(`Found ${found.classes.length} ${found.classes.length === 1 ? "class" : "classes"}.`);
}

function forget() {
  state.visible.clear();
  state.rows.clear();
  state.newVisible = null;
  byId("legend").replaceChildren();
}

// Shows a photograph, or a frame of a clip, in which the legend and what is chosen in it go on.
function showFound(bitmap, found, milliseconds, title) {
  state.found = found;
  state.labels = new Uint16Array(found.width * found.height);
  let place = 0;
  for (let i = 0; i < found.runs.length; i += 2) {
    state.labels.fill(found.runs[i], place, (place += found.runs[i + 1]));
  }
  for (const canvas of [byId("photo"), byId("mask")]) {
    canvas.width = found.width;
    canvas.height = found.height;
  }
  byId("stage").style.width = `calc(72vh * ${found.width / found.height})`; // and no wider than the page
  byId("photo").getContext("2d").drawImage(bitmap, 0, 0, found.width, found.height);
  const names = found.classes.map((entry) => `${entry.name} ${percent(entry.share)}`).join(", ");
  byId("photo").setAttribute("aria-label", `${title}, in which were found: ${names}`);
  list(found.classes);
  byId("timing").textContent =
    `${found.width} × ${found.height} pixels; network ${found.network_ms.toFixed(0)} ms, ` +
    `with sending and decoding ${milliseconds.toFixed(0)} ms`;
  byId("save-raw").hidden = !found.raw_png;
  byId("result").hidden = false;
  paint();
}

// Writes the shares into the legend, whose rows stay where they are: one may be under somebody's finger.
function list(classes) {
  for (const entry of classes) {
    if (state.rows.has(entry.index)) continue;
    if (state.newVisible ?? entry.name !== "background") state.visible.add(entry.index);
    byId("legend").append(legendEntry(entry));
  }
  for (const [index, tell] of state.rows) tell(classes.find((entry) => entry.index === index)?.share ?? 0);
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function legendEntry(entry) {
  const [label, box] = [document.createElement("label"), document.createElement("input")];
  box.type = "checkbox";
  box.value = entry.index;
  box.checked = state.visible.has(entry.index);
  box.addEventListener("change", () => {
    state.visible[box.checked ? "add" : "delete"](entry.index);
    paint();
  });
  const swatch = element("span", "swatch");
  swatch.style.background = `rgb(${colourOf(entry.index).join(" ")})`;
  const bar = element("span", "bar");
  bar.append(document.createElement("i"));
  const number = element("span", "share");
  label.append(box, swatch, element("span", "name", entry.name), number, bar);
  state.rows.set(entry.index, (share) => {
    bar.firstChild.style.width = `${100 * share}%`;
    number.textContent = percent(share);
  });
  const item = document.createElement("li");
  item.append(label);
  return item;
}

// Returns the colours of the classes, those that `shown` leaves out transparent.
function coloured(shown) {
  const { width, height } = state.found;
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  const most = Math.max(state.info.classes.length, ...state.found.classes.map((entry) => entry.index + 1));
  const table = new Uint32Array(most);
  for (let index = 0; index < most; index++) {
    const [red, green, blue] = colourOf(index);
    const bytes = new Uint8Array([red, green, blue, 255]);
    table[index] = shown(index) ? new Uint32Array(bytes.buffer)[0] : 0;
  }
  for (let i = 0; i < words.length; i++) words[i] = table[state.labels[i]];
  return image;
}

// Draws a white line around each visible class, so that one is seen whose colour is like the photograph's.
function outlined(image) {
  const { width, height } = state.found;
  const [labels, words, white] = [state.labels, new Uint32Array(image.data.buffer), 0xffffffff];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      for (const other of [x + 1 < width ? i + 1 : i, y + 1 < height ? i + width : i]) {
        if (labels[i] === labels[other]) continue;
        if (state.visible.has(labels[i]) || state.visible.has(labels[other])) words[i] = white;
      }
    }
  }
  return image;
}

function paint() {
  if (!state.found) return;
  byId("mask").getContext("2d").putImageData(outlined(coloured((index) => state.visible.has(index))), 0, 0);
  fade();
}

// Shows the photograph alone left of the place that the slider says.
function divide() {
  const share = Number(byId("divide").value);
  byId("mask").style.clipPath = `inset(0 0 0 ${share}%)`;
  byId("line").style.left = `${share}%`;
  byId("line").hidden = share === 0 || share === 100;
}

function fade() {
  byId("mask").style.opacity = byId("opacity").value / 100;
}

function chooseAll(checked) {
  state.newVisible = checked;
  for (const box of byId("legend").querySelectorAll("input")) {
    box.checked = checked;
    state.visible[checked ? "add" : "delete"](Number(box.value));
  }
  paint();
}

function point(event) {
  const box = byId("mask").getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * state.found.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * state.found.height);
  const index = state.labels[y * state.found.width + x];
  const entry = state.found.classes.find((known) => known.index === index);
  byId("pointed").hidden = !entry;
  byId("pointed").textContent = entry ? entry.name : "";
}

// ---- the page

function take(files) {
  const file = [...files].find((each) => each.type.startsWith("image/") || isClip(each)) || files[0];
  if (file) (isClip(file) ? openClip : segment)(file, file.name);
}

function offerExamples() {
  state.info.examples.forEach((name, number) => {
    const [button, image] = [document.createElement("button"), document.createElement("img")];
    button.type = "button";
    button.title = `Try the example: ${name}`;
    image.src = `/examples/${number}`;
    image.alt = `Example: ${name}`;
    button.append(image);
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(image.src);
        const blob = await response.blob();
        segment(blob, `${name.replaceAll(" ", "_")}.${blob.type === "image/png" ? "png" : "jpg"}`);
      } catch {
        say("The server cannot be reached.", "bad");
      }
    });
    byId("examples").append(button);
  });
}

function listen() {
  byId("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser would leave the page for the picture
      byId("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  byId("opacity").addEventListener("input", fade);
  byId("divide").addEventListener("input", divide);
  byId("curl").addEventListener("click", copyCommand);
  byId("all").addEventListener("click", () => chooseAll(true));
  byId("none").addEventListener("click", () => chooseAll(false));
  byId("stage").addEventListener("pointermove", point);
  byId("stage").addEventListener("pointerleave", () => (byId("pointed").hidden = true));
  byId("save-overlay").addEventListener("click", saveOverlay);
  byId("save-mask").addEventListener("click", saveMask);
  byId("save-raw").addEventListener("click", saveRaw);
  listenToPlayer();
}

async function begin() {
  try {
    state.info = await (await fetch("/info")).json();
  } catch {
    say("The server cannot be reached.", "bad");
    return;
  }
  const { name, network, dataset, runtime, photographs } = state.info;
  const reads = photographs && `reads ${photographs}`;
  const facts = [name, network, dataset && `classes of ${dataset}`, runtime, reads];
  byId("model").textContent = facts.filter(Boolean).join(" · ");
  offerExamples();
  listen();
}

begin();
