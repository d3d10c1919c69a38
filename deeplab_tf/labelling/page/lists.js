// The lists beside the picture: classes, places to look at, and pictures.

const MOST = 150; // pictures in the list

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function swatch(colour) {
  const made = element("span", "swatch");
  made.style.background = `rgb(${colour.join(" ")})`;
  return made;
}

// The classes, then what is ignored; `chosen` is called with a value.
export function listClasses(field, state, chosen) {
  const rows = [...state.classes.map((one, value) => ({ ...one, value })), { name: "ignored", ...state.ignored }];
  for (const [number, row] of rows.entries()) {
    const [label, radio] = [element("label"), document.createElement("input")];
    radio.type = "radio";
    radio.name = "class";
    radio.value = row.value;
    radio.addEventListener("change", () => chosen(row.value));
    label.append(radio, swatch(row.colour), element("span", "name", row.name));
    const key = number === rows.length - 1 ? "E" : number < 10 ? String((number + 1) % 10) : number < 20 ? `⇧${(number + 1) % 10}` : "";
    if (key) {
      const shown = element("kbd", "", key);
      shown.setAttribute("aria-hidden", "true");
      label.append(shown);
    }
    field.append(label);
  }
}

export function listPlaces(list, places, state, look) {
  list.replaceChildren(
    ...places.map(([, , , , score, labelled, predicted], number) => {
      const [item, button] = [element("li"), element("button")];
      button.type = "button";
      const name = (value) => state.classes[value]?.name ?? "ignored";
      button.append(element("span", "number", String(number + 1)));
      if (labelled === null) button.append(`${Math.round(100 * score)} % unsure`);
      else button.append(`${name(labelled)}, or ${name(predicted)}?`);
      button.addEventListener("click", () => look(number));
      item.append(button);
      return item;
    }),
  );
}

const WORDS = { done: "done", begun: "begun", new: "" };

function describe(row) {
  if (row.error) return "cannot be read";
  const words = [WORDS[row.status]];
  if (row.suspects) words.push(`${row.suspects} suspect${row.suspects > 1 ? "s" : ""}`);
  else if (row.score !== null && row.status !== "done") words.push(`unsure ${Math.round(100 * row.score)} %`);
  if (!row.seen) words.push("not looked at yet");
  return words.filter(Boolean).join(", ");
}

export function listPictures(list, note, state, current, filter, open) {
  const wanted = filter.trim().toLowerCase();
  const found = state.pictures.filter((row) => row.name.toLowerCase().includes(wanted));
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  list.replaceChildren(
    ...found.slice(0, MOST).map((row) => {
      const [item, button] = [element("li"), element("button")];
      button.type = "button";
      Object.assign(button.dataset, { status: row.status, id: row.id });
      if (row.id === current) button.setAttribute("aria-current", "true");
      const image = document.createElement("img");
      image.alt = "";
      image.loading = "lazy";
      if (row.seen && !row.error) image.src = `/thumbnails/${row.id}`;
      else image.className = "empty";
      const words = element("span", "words");
      words.append(element("span", "name", row.name), element("span", "facts", describe(row)));
      button.append(image, words);
      button.addEventListener("click", () => open(row.id));
      item.append(button);
      return item;
    }),
  );
  if (focused) list.querySelector(`[data-id="${focused}"]`)?.focus();
  const left = found.length - MOST;
  note.textContent = left > 0 ? `and ${left} more` : found.length ? "" : "None is called so.";
}
