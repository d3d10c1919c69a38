"use strict";

// A clip, or a camera: its frames go to the server one after the other, each when the answer to the last has come, and
// what was found in a frame is shown over that frame. While it plays, the frames that the server has no time for are
// skipped.

const RATED = 10; // the answers that the frames per second are taken over
const CLIPS = /\.(mp4|m4v|mov|mkv|webm|avi|mpg|mpeg|ts|m2ts|mts|wmv|flv)$/i;

let live = null; // what is open: { video, canvas, name, url or stream, frames, times, shown, runs, failed }

function isClip(file) {
  return file.type.startsWith("video/") || (!file.type && CLIPS.test(file.name));
}

// ---- opening and closing

async function openClip(file, name) {
  if (state.info.photographs) {
    say(`The model reads ${state.info.photographs}, which clips do not hold.`, "bad");
    return;
  }
  const url = URL.createObjectURL(file);
  const reason = `This browser cannot decode ${name}. From a shell: deeplab-tf predict --input=${quoted(name)}`;
  await openLive({ name: name.replace(/\.[^.]*$/, ""), url, reason }, (video) => (video.src = url));
}

// What a browser says when it gives no camera.
const REFUSED = {
  NotAllowedError: "The camera was refused; the browser's settings of this page can allow it.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera cannot be read; another program may be using it.",
};

async function openCamera() {
  closeLive();
  if (!navigator.mediaDevices) {
    say("A browser gives its camera to https and to this machine alone; serve with --tls_certificate.", "bad");
    return;
  }
  const turn = ++state.turn;
  say("Asking for the camera …", "busy");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    if (turn === state.turn) say(REFUSED[error.name] || `The camera cannot be opened: ${error.message}`, "bad");
    return;
  }
  if (turn !== state.turn) {
    release(stream); // something else was chosen in between
    return;
  }
  const reason = "The camera has gone.";
  stream.getVideoTracks()[0].addEventListener("ended", () => live?.stream === stream && closeLive(reason));
  await openLive({ name: "camera", stream, reason }, (video) => (video.srcObject = stream));
}

function release(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function stopCamera(text) {
  closeLive();
  say(text);
}

// Plays a source and segments what it shows; `source.reason` is told where it does not play.
async function openLive(source, attach) {
  closeLive();
  state.turn++;
  const [video, canvas] = [document.createElement("video"), document.createElement("canvas")];
  const opened = { ...source, video, canvas, frames: 0, times: [], shown: -1, runs: false, failed: false };
  live = opened;
  showSource();
  video.muted = true; // else a browser would not let it play unasked
  video.playsInline = true;
  video.preload = "auto";
  video.addEventListener("error", () => live === opened && closeLive(opened.reason));
  const loaded = new Promise((done) => video.addEventListener("loadedmetadata", done));
  attach(video);
  await loaded;
  if (live !== opened) return; // something else was chosen in between
  if (!video.videoWidth) {
    closeLive(opened.reason); // only its sound can be decoded
    return;
  }
  say("");
  video.addEventListener("seeking", () => (opened.painted = painted(video)));
  for (const kind of ["play", "pause", "seeked", "ended"]) {
    video.addEventListener(kind, () => live === opened && changed(opened));
  }
  play(opened);
  changed(opened);
}

// Ends what is open; its last frame stays. A reason is told.
function closeLive(reason = "") {
  if (!live) return;
  const { video, url, stream } = live;
  live = null;
  video.pause();
  video.srcObject = null;
  video.removeAttribute("src");
  video.load();
  if (url) URL.revokeObjectURL(url);
  if (stream) release(stream);
  if (byId("player").contains(document.activeElement)) byId(stream ? "camera" : "file").focus({ preventScroll: true });
  byId("player").hidden = byId("rate").hidden = true;
  showSource();
  if (reason) say(reason, "bad");
}

// ---- segmenting its frames

function plays(video) {
  return !video.paused && !video.ended;
}

function play(opened) {
  opened.video.play().catch(() => {}); // it stays paused, or its error is told
}

function changed(opened) {
  byId("play").textContent = plays(opened.video) ? "Pause" : "Play";
  follow(opened);
}

// Waits for the frame of a place that was sought: right after `seeked` a busy browser may still draw the one before.
function painted(video) {
  return new Promise((done) => {
    video.requestVideoFrameCallback?.(done);
    setTimeout(done, 250); // it may have been the frame that was shown already
  });
}

// Segments the frames that are shown until it stops, the one at which it stops too.
async function follow(opened) {
  if (opened.runs) return;
  const { video } = opened;
  const goesOn = () => live === opened && !opened.failed && !document.hidden;
  opened.runs = true;
  opened.times = [];
  try {
    while (goesOn() && (plays(video) || video.currentTime !== opened.shown)) {
      await opened.painted;
      const isReady = video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && !video.seeking;
      if (isReady && video.currentTime !== opened.shown) await segmentFrame(opened);
      else await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    if (live === opened) fail(opened, error);
  } finally {
    opened.runs = false;
  }
}

// Stops after a request that failed, so that the server is not asked again and again.
function fail(opened, error) {
  [opened.failed, opened.shown] = [true, -1];
  opened.video.pause();
  if (opened.stream) closeLive();
  complain(error);
}

// Goes on after a failure, because somebody asks for it.
function resume(opened) {
  if (opened.failed) say("");
  opened.failed = false;
}

async function segmentFrame(opened) {
  const { video, canvas } = opened;
  const [time, start] = [video.currentTime, performance.now()];
  const ratio = Math.min(1, LARGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.max(1, Math.round(video.videoWidth * ratio));
  canvas.height = Math.max(1, Math.round(video.videoHeight * ratio));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  opened.shown = time;
  const answer = await ask(await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92)), "The frame");
  if (live !== opened) return;
  if (!opened.frames) forget();
  opened.frames++;
  opened.times = [...opened.times, performance.now()].slice(-RATED);
  state.name = `${opened.name}_${time.toFixed(2)}s`;
  showFound(canvas, answer, performance.now() - start, `The frame at ${clock(time)}`);
  byId("shell").hidden = true; // its command sends a picture
  showPlace(opened, time);
  showRate(opened);
}

// ---- the player

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Offers what there is to press for what is open.
function showSource() {
  const isCamera = Boolean(live?.stream);
  byId("play").hidden = isCamera;
  byId("stop").hidden = !isCamera;
  byId("camera").lastElementChild.textContent = isCamera ? "Stop camera" : "Camera";
}

// Tells the place of the frame that is shown.
function showPlace(opened, time) {
  const { duration, seeking } = opened.video;
  const isKnown = !opened.stream && Number.isFinite(duration); // not of a recording that was cut off
  byId("player").hidden = false;
  byId("seek").hidden = !isKnown;
  if (isKnown) byId("seek").max = duration;
  if (!seeking) byId("seek").value = time; // else it is under somebody's finger
  const place = isKnown ? [clock(time), clock(duration)] : [clock(time)];
  byId("seek").setAttribute("aria-valuetext", place.join(" of "));
  byId("time").textContent = place.join(" / ");
}

function showRate({ frames, times }) {
  const seconds = (times.at(-1) - times[0]) / 1000;
  const rate = seconds ? `, ${((times.length - 1) / seconds).toFixed(1)} frames/s` : "";
  byId("rate").textContent = `Segmented ${frames} ${frames === 1 ? "frame" : "frames"}${rate}`;
  byId("rate").hidden = false;
}

function listenToPlayer() {
  const off = () => stopCamera("The camera is off.");
  byId("camera").hidden = Boolean(state.info.photographs); // of which a camera gives none
  byId("camera").addEventListener("click", () => (live?.stream ? off() : openCamera()));
  byId("stop").addEventListener("click", off);
  byId("play").addEventListener("click", () => {
    resume(live);
    if (plays(live.video)) live.video.pause();
    else play(live);
  });
  byId("seek").addEventListener("input", () => {
    resume(live);
    live.video.currentTime = Number(byId("seek").value);
  });
  document.addEventListener("visibilitychange", () => {
    if (!live) return;
    if (!document.hidden) follow(live);
    else if (live.stream) stopCamera("The camera was stopped, because the page was hidden.");
    else live.video.pause();
  });
}
