// What goes to the server: each change at once, again until it arrives, and never over what somebody else has saved.

const AGAIN = 2000; // milliseconds until the next try
const PATIENCE = 30000;

async function deflated(data) {
  const stream = new Blob([data]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

export class Saver {
  // told(state, text): saved, saving, failing (tries again), conflict or refused.
  constructor(told) {
    this.told = told;
    this.picture = null;
    this.waiting = null; // what is to be saved: { data, done }
    this.running = null;
    this.state = "saved";
  }

  tell(state, text) {
    this.state = state;
    this.told(state, text);
  }

  begin(picture, revision) {
    Object.assign(this, { picture, revision, waiting: null });
    this.tell("saved", revision ? "Saved" : "Not changed yet");
  }

  get isClean() {
    return !this.waiting && !this.running;
  }

  change(data, done) {
    this.waiting = { data: data.slice(), done };
    if (this.state === "conflict") return;
    this.tell("saving", "Saving …");
    if (!this.running) this.running = this.run().finally(() => (this.running = null));
  }

  // Resolves when all is saved: true; or where it cannot be: false.
  async flush() {
    while (this.running && this.state !== "failing") await Promise.race([this.running, pause(100)]);
    return this.isClean;
  }

  keepMine(revision) {
    const waiting = this.waiting;
    this.revision = revision;
    this.state = "saved";
    if (waiting) this.change(waiting.data, waiting.done);
  }

  async run() {
    while (this.waiting) {
      const sent = this.waiting;
      const answer = await this.post(sent);
      if (answer === null) {
        this.tell("failing", "Not saved: the server does not answer. Trying again …");
        await pause(AGAIN);
      } else if (answer.status === 409) {
        this.tell("conflict", "Not saved");
        return;
      } else if (!answer.ok) {
        this.tell("failing", `Not saved: ${(await reason(answer)) || answer.status}. Trying again …`);
        await pause(AGAIN);
      } else {
        this.revision = (await answer.json()).revision;
        if (this.waiting === sent) this.waiting = null;
        if (!this.waiting) this.tell("saved", "Saved");
      }
    }
  }

  async post({ data, done }) {
    const body = await deflated(data);
    const headers = { "content-type": "application/octet-stream" };
    const address = `/masks/${this.picture}?revision=${this.revision}&done=${done ? 1 : 0}`;
    try {
      return await fetch(address, { method: "POST", headers, body, signal: AbortSignal.timeout(PATIENCE) });
    } catch {
      return null;
    }
  }
}

function pause(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}

export async function reason(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return "";
  }
}

// Returns the label of a picture: { facts, data }; `start`: what it began as.
export async function readMask(picture, start = false) {
  const answer = await fetch(`/masks/${picture}${start ? "?start" : ""}`);
  if (!answer.ok) throw new Error((await reason(answer)) || `status ${answer.status}`);
  return { facts: JSON.parse(answer.headers.get("x-label")), data: new Uint8Array(await answer.arrayBuffer()) };
}

export async function readPhoto(picture) {
  const answer = await fetch(`/photographs/${picture}`);
  if (!answer.ok) throw new Error((await reason(answer)) || `status ${answer.status}`);
  return createImageBitmap(await answer.blob());
}
