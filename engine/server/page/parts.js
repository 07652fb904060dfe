// Small things that the page is made of: elements, numbers as words, and the two places where it speaks.

import { Refused } from "./server.js";

export const find = (id) => document.getElementById(id);
let again = null; // what "Try again" does

export function element(tag, text = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text) made.textContent = text;
  return made;
}

export function fromTemplate(id) {
  return find(id).content.firstElementChild.cloneNode(true);
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function percent(share) {
  return share >= 0.9995 || share < 0.0005 ? `${(100 * share).toFixed(0)} %` : `${(100 * share).toFixed(1)} %`;
}

export function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

export function say(text) {
  find("status").textContent = text;
}

/** Show an error, with a way on where there is one. */
export function complain(error, retry) {
  const text = error instanceof Refused ? error.message : `the page made a mistake: ${error.message}`;
  const wait = error.wait > 0 ? ` Try again in ${count(error.wait, "second")}.` : "";
  const sentence = text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
  find("problem").replaceChildren(element("p", sentence + wait));
  again = retry;
  const locked = error.status === 401;
  find("retry").hidden = locked || !(error.status === 0 || error.status === 429 || error.status >= 500);
  find("key-form").hidden = !locked;
  if (locked) find("key").focus();
}

export function calm() {
  find("problem").replaceChildren();
  find("retry").hidden = true;
  find("key-form").hidden = true;
}

/** Do again what was refused. */
export function goOn() {
  find("results").focus({ preventScroll: true });
  calm();
  again?.();
}
