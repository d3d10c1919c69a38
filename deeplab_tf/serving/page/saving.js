"use strict";

// What one takes along: the command that sends the picture from a shell, and files.

// ---- the REST interface

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// The file goes through a pipe: as an argument a photograph would be too long.
function command() {
  const token = state.info.needs_token ? "-H 'authorization: Bearer YOUR_TOKEN' " : "";
  const address = quoted(`${location.origin}/v1/models/${state.info.name}:predict`);
  const [start, end] = [quoted('{"instances": [{"b64": "'), quoted('"}]}')];
  const content = `printf ${start}; base64 < ${quoted(state.file)} | tr -d '\\n'; printf ${end}`;
  return `(${content}) | curl ${token}-d @- ${address}`;
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(command());
    say("Copied.");
  } catch { // a browser gives its clipboard to https and to this machine alone
    getSelection().selectAllChildren(byId("command"));
    say("This browser does not let the page copy; the command is selected.");
  }
}

// ---- downloads

function save(blob, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${state.name}_${kind}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function saveCanvas(canvas, kind) {
  canvas.toBlob((blob) => save(blob, kind), "image/png");
}

function saveOverlay() {
  const canvas = document.createElement("canvas");
  canvas.width = state.found.width;
  canvas.height = state.found.height;
  const context = canvas.getContext("2d");
  context.drawImage(byId("photo"), 0, 0);
  context.globalAlpha = byId("opacity").value / 100;
  context.drawImage(byId("mask"), 0, 0);
  saveCanvas(canvas, "overlay");
}

function saveMask() {
  const canvas = document.createElement("canvas");
  canvas.width = state.found.width;
  canvas.height = state.found.height;
  canvas.getContext("2d").putImageData(coloured(() => true), 0, 0);
  saveCanvas(canvas, "mask");
}

function saveRaw() {
  const bytes = Uint8Array.from(atob(state.found.raw_png), (character) => character.charCodeAt(0));
  save(new Blob([bytes], { type: "image/png" }), "raw");
}
