// What the parts of the page share.

import { Saver } from "./saving.js";
import { View } from "./view.js";

export const byId = (id) => document.getElementById(id);
export const board = byId("board");
export const view = new View(board);
// The picture that is open (its id, what the server says of it, its label), and the tool in hand.
export const app = {
  state: null,
  picture: null,
  facts: null,
  mask: null,
  tool: "brush",
  value: 1,
  size: 15,
  history: [],
  opening: 0,
  pen: false, // down, by keyboard
};
// What label.js does and the keys ask for: next, back, finish.
export const actions = {};
export const saver = new Saver((...told) => actions.saved(...told));

export function fail(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}
