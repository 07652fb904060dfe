// The page: what is chosen on the left becomes requests, their answers become heatmaps on the right.
//
// Whatever comes from the server is put in as text, never as HTML. A run is all methods chosen, asked one after the
// other; a newer run stops the older, whose answers are then dropped.

import {
  addTarget, chosen, chosenIds, filterMethods, query, ready, showBuiltIn, showModel, showModels, showTargets, title,
  useFiles,
} from "./choosing.js";
import { calm, complain, count, duration, find, goOn, say } from "./parts.js";
import {
  awaitClasses, clear, fill, layOut, note, pixels, repaint, showClasses, stopWaiting,
} from "./results.js";
import { Refused, ask, useKey } from "./server.js";

let run = null; // the newest; see `begin`

// ---- a run -----------------------------------------------------------------------------------------------------------

/** Stop the run there is, and make room for the answers of a new one. */
function begin(ids) {
  run?.abort.abort();
  calm();
  const same = run?.picture === chosen.picture && run?.model === chosen.model;
  run = {
    abort: new AbortController(),
    picture: chosen.picture,
    model: chosen.model,
    plans: ids.map((id) => ({ id, sent: query(id) })), // as chosen now, whatever is changed meanwhile
    seen: same ? run.seen : null, // the network's view
    groups: [], // one a target
    cards: [], // one a method and target
    failures: [],
  };
  if (!same) awaitClasses(chosen.model.classes);
  layOut(run);
  bringIntoView();
  find("cancel").disabled = false;
  find("maps").setAttribute("aria-busy", "true");
  return run;
}

/** Ask for every method that is chosen, one after the other. */
async function explain() {
  addTarget();
  if (!ready()) return;
  const now = begin(chosenIds());
  const started = performance.now();
  for (const [place, { id, sent }] of now.plans.entries()) {
    const cards = now.cards[place];
    say(`Explaining with ${title(id)}${now.plans.length > 1 ? `, ${place + 1} of ${now.plans.length}` : ""} …`);
    for (const card of cards) note(card, "running …");
    try {
      const answer = await askFor(now, sent);
      const seen = now.seen ?? (await pixels(answer));
      if (isOver(now)) return;
      now.seen = seen;
      fill(now, cards, answer);
    } catch (error) {
      if (isOver(now)) return;
      const told = now.failures.at(-1)?.message;
      now.failures.push(error);
      for (const card of cards) stopWaiting(card, error.message);
      if (error.message === told || ![400, 404, 501].includes(error.status)) break; // the next would be told the same
    }
  }
  finish(now, performance.now() - started);
}

function askFor(now, sent) {
  sent.set("picture", String(!now.seen));
  const { blob } = now.picture;
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  return ask(`explain?${sent}`, { method: "POST", body: blob, headers, signal: now.abort.signal });
}

/** Tell whether a newer run, or Cancel, has the word. */
function isOver(now) {
  return run !== now || now.abort.signal.aborted;
}

function finish(now, ms) {
  const wanted = now.plans.length;
  const made = now.cards.filter(([card]) => card.answer).length;
  settle();
  if (!now.failures.length) {
    const names = [...new Set(now.groups.map((group) => group.label))].join(", ");
    say(`Done: ${count(now.groups.length * made, "heatmap")} of ${names}, after ${duration(ms)}.`);
    return;
  }
  const [{ status, wait }] = now.failures;
  const texts = new Set(now.failures.map((error) => error.message));
  for (const card of now.cards.flat()) {
    if (!made && texts.size === 1) note(card, "no heatmap");
    else if (card.waits) note(card, "not run");
    card.waits = false;
  }
  if (!now.seen) showClasses(null);
  say(made ? `${made} of ${count(wanted, "method")} answered.` : "No heatmap was made.");
  complain(texts.size > 1 ? new Refused(status, [...texts].join("; "), wait) : now.failures[0], explain);
}

function settle() {
  const cancel = find("cancel");
  if (document.activeElement === cancel) find("explain").focus();
  cancel.disabled = true;
  find("maps").removeAttribute("aria-busy");
}

function stop() {
  if (!run) return;
  run.abort.abort();
  settle();
  for (const card of run.cards.flat()) if (card.waits) stopWaiting(card, "cancelled");
  if (!run.seen) showClasses(null);
  say("Cancelled.");
}

/** Drop all results: they belong to another model. */
function forget() {
  run?.abort.abort();
  run = null;
  settle();
  clear();
  say("Nothing explained yet.");
}

function bringIntoView() {
  const { top } = find("results").getBoundingClientRect();
  if (top < innerHeight * 0.6) return;
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  find("results").scrollIntoView({ behavior, block: "start" });
}

/** Explain one of the top classes in place of what was explained. */
function switchTo({ dataset }) {
  chosen.targets = [{ send: dataset.index, show: dataset.show }];
  find("target").value = "";
  showTargets();
  explain();
}

// ---- what people do -------------------------------------------------------------------------------------------------

/** Do something that asks the server; where it is refused, say so and offer to do it again. */
async function attempt(action) {
  try {
    calm();
    await action();
  } catch (error) {
    complain(error, () => attempt(action));
  }
}

/** Show another model or version, whose results are none of the old ones. */
function change(version) {
  attempt(async () => {
    if (await showModel(version)) forget();
  });
}

async function start() {
  const [shown] = await Promise.allSettled([showModels(), showBuiltIn()]);
  if (shown.status === "rejected") throw shown.reason;
}

function listen() {
  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    explain();
  });
  find("cancel").addEventListener("click", stop);
  find("file").addEventListener("change", () => useFiles(find("file").files));
  find("model").addEventListener("change", () => change());
  find("version").addEventListener("change", () => change(find("version").value));
  find("filter").addEventListener("input", filterMethods);
  find("filter").addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  find("add-target").addEventListener("click", () => {
    addTarget();
    find("target").focus();
  });
  find("target").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !find("target").value.trim()) return;
    event.preventDefault();
    addTarget();
  });
  find("view").addEventListener("input", repaint);
  find("top").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) switchTo(button);
  });
  find("retry").addEventListener("click", goOn);
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(find("key").value.trim());
    find("key").value = "";
    goOn();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !find("cancel").disabled) stop();
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    useFiles(files);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) find("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    if (event.dataTransfer.files.length) useFiles(event.dataTransfer.files);
    else say("What was dropped is no file.");
  });
}

listen();
repaint();
attempt(start);
