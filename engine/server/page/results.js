// Answers as heatmaps: a card for each method and target, drawn on a canvas, described in words, saved as files.

import { chosen, layerName, title } from "./choosing.js";
import { COLORMAPS, blend, levels } from "./colours.js";
import { fileName, floats, json, npy, save } from "./files.js";
import { duration, element, find, fromTemplate, percent } from "./parts.js";
import { Refused } from "./server.js";

const FLAGS = {
  unstable: "Two components are nearly as strong as each other: a small change of the picture may swap them.",
  signed_activations: "This layer has negative activations, which the method was not made for.",
};
const CONSTANT = "Constant map: it says nothing here.";
const beginning = [...find("maps").children]; // what stands there before the first heatmap
let shown = null; // the run whose cards stand there

/** The network's view, as RGBA pixels. */
export async function pixels({ picture, size: [height, width] }) {
  if (!String(picture).startsWith("data:image/png;base64,")) throw new Refused(500, "the answer holds no picture", 0);
  const image = new Image();
  image.src = picture;
  await image.decode();
  if (image.width !== width || image.height !== height) throw new Refused(500, "the answer's picture has another size", 0);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

// ---- cards -----------------------------------------------------------------------------------------------------------

/** Make room for every heatmap that will come. */
export function layOut(now) {
  const ids = now.plans.map(({ id }) => id);
  const targets = chosen.targets.length ? chosen.targets : [{ show: "Predicted class" }];
  now.groups = targets.map(({ show }, t) => {
    const group = element("section", "", { className: "group" });
    const head = element("h3", show, { id: `target-${t}` });
    const grid = element("div", "", { className: "grid" });
    grid.classList.toggle("several", ids.length > 1);
    group.setAttribute("aria-labelledby", head.id);
    group.append(head, grid);
    return { group, head, grid, label: show };
  });
  const [height, width] = chosen.model.size;
  now.cards = ids.map((id) =>
    now.groups.map(({ grid }) => {
      const figure = fromTemplate("map-card");
      const card = { figure, id, waits: true, canvas: figure.querySelector("canvas") };
      Object.assign(card.canvas, { width: now.seen?.width ?? width, height: now.seen?.height ?? height });
      card.canvas.setAttribute("aria-label", `${title(id)}: no heatmap yet`);
      figure.querySelector(".name").textContent = title(id);
      for (const button of figure.querySelectorAll("button")) {
        button.disabled = true;
        button.addEventListener("click", () => saveCard(card, button.dataset.kind));
      }
      if (now.seen) paint(card, now.seen);
      note(card, "waiting");
      grid.append(figure);
      return card;
    }),
  );
  find("maps").replaceChildren(...now.groups.map(({ group }) => group));
  shown = now;
}

/** Put away all cards and classes. */
export function clear() {
  shown = null;
  find("maps").replaceChildren(...beginning);
  showClasses(null);
}

export function note(card, text) {
  card.figure.querySelector(".note").textContent = text;
}

export function stopWaiting(card, text) {
  card.waits = false;
  note(card, text);
}

/** Put one method's answer into its cards. */
export function fill(now, cards, answer) {
  const { seen } = now;
  if (answer.targets.length !== cards.length) throw new Refused(500, "the answer has another number of targets", 0);
  const heats = answer.targets.map((target) => floats(target.heatmap));
  if (heats.some((heat) => heat.length !== seen.width * seen.height)) {
    throw new Refused(500, "the answer's heatmap has another size than its picture", 0);
  }
  answer.targets.forEach((target, t) => {
    const card = cards[t];
    const { figure, canvas } = card;
    const label = target.label ?? `class ${target.class}`;
    const probable = Number.isFinite(target.probability) ? `, ${percent(target.probability)}` : "";
    now.groups[t].label = label;
    now.groups[t].head.textContent = label + probable;
    card.waits = false;
    card.heat = heats[t];
    card.level = levels(heats[t]);
    card.answer = { ...answer, target, targets: undefined, picture: undefined };
    Object.assign(canvas, { width: seen.width, height: seen.height });
    canvas.setAttribute("aria-label", describe(title(card.id), label, target, card, seen));
    note(card, target.degenerate ? CONSTANT : "");
    const how = `${answer.variant} · ${answer.layers.map(layerName).join(", ")}`;
    figure.querySelector(".how").textContent = figure.querySelector(".how").title = how;
    figure.querySelector(".score").textContent = `score ${Number(target.value).toPrecision(4)}`;
    showTiming(figure.querySelector(".timing").children, answer.timing);
    const flags = Object.entries(target.flags ?? {}).filter(([name, raised]) => raised === true && FLAGS[name]);
    figure.querySelector(".words").textContent = flags.map(([name]) => FLAGS[name]).join(" ");
    for (const button of figure.querySelectorAll("button")) {
      button.disabled = false;
      button.setAttribute("aria-label", `Save ${button.textContent} of ${title(card.id)} for ${label}`);
    }
    paint(card, seen);
  });
  showClasses(answer.top, answer.targets);
}

function showTiming(places, { queue_ms: queue, run_ms: ran, total_ms: total, batch }) {
  const items = [`queue ${duration(queue)}`, `run ${duration(ran)}`, `total ${duration(total)}`, `batch ${batch}`];
  items.forEach((item, i) => (places[i].textContent = item));
}

/** Say in words what a heatmap looks like. */
function describe(name, label, { degenerate }, { heat }, { width, height }) {
  if (degenerate) return `${name} for ${label}: a constant map, which says nothing`;
  const peak = heat.reduce((best, value, i) => (value > heat[best] ? i : best), 0);
  const third = (place, side) => Math.min(2, Math.floor((3 * place) / side));
  const row = ["upper", "middle", "lower"][third(Math.floor(peak / width), height)];
  const column = ["left", "middle", "right"][third(peak % width, width)];
  const where = row === column ? "middle" : `${row} ${column}`;
  const hot = heat.reduce((sum, value) => sum + (value >= 0.5), 0) / heat.length;
  return `${name} for ${label}: highest in the ${where}; ${percent(hot)} of the picture is above half of that`;
}

function view() {
  return {
    table: COLORMAPS[document.querySelector("input[name=colours]:checked").value],
    alpha: Number(find("opacity").value) / 100,
  };
}

function paint(card, seen) {
  const { table, alpha } = view();
  const shown = card.level ? blend(seen.data, card.level, table, alpha) : seen.data;
  const context = card.canvas.getContext("2d", { willReadFrequently: true }); // written pixel by pixel: not on a GPU
  context.putImageData(new ImageData(shown, seen.width, seen.height), 0, 0);
}

let repainting = 0;

export function repaint() {
  const opacity = `${find("opacity").value} %`;
  find("opacity-value").textContent = opacity;
  find("opacity").setAttribute("aria-valuetext", opacity);
  cancelAnimationFrame(repainting);
  repainting = requestAnimationFrame(() => {
    const { table } = view();
    const ramp = Uint8ClampedArray.from({ length: 1024 }, (_, i) => (i % 4 === 3 ? 255 : table[3 * (i >> 2) + (i % 4)]));
    find("scale").getContext("2d").putImageData(new ImageData(ramp, 256, 1), 0, 0);
    for (const card of shown?.cards.flat() ?? []) if (card.level) paint(card, shown.seen);
  });
}

function saveCard(card, kind) {
  const { target, ...facts } = card.answer;
  const { heatmap: _, ...told } = target;
  const { width, height } = card.canvas;
  const name = `${fileName(shown.picture.name.replace(/\.[^.]*$/, ""), card.id, told.label ?? told.class)}.${kind}`;
  if (kind === "png") card.canvas.toBlob((blob) => save(blob, name), "image/png");
  if (kind === "npy") save(npy(card.heat, height, width), name);
  if (kind === "json") save(json({ ...facts, target: told }, card.heat, width), name);
}

/** Show the model's top classes; with null, forget them. Buttons stay the same ones, so that focus stays where it is. */
export function showClasses(top, explained = []) {
  find("classes").hidden = !top;
  if (!top) {
    find("top").replaceChildren();
    return;
  }
  const pressed = new Set(explained.map((target) => target.class));
  roomForClasses(top.length);
  top.forEach(({ class: index, label, probability }, i) => {
    const button = find("top").children[i].firstElementChild;
    button.disabled = false;
    button.dataset.index = index;
    button.dataset.show = button.title = label || `class ${index}`;
    button.querySelector(".label").textContent = button.dataset.show;
    button.querySelector(".share").textContent = percent(probability);
    button.querySelector(".bar").style.setProperty("--share", probability);
    button.setAttribute("aria-pressed", String(pressed.has(index)));
  });
}

function roomForClasses(number) {
  const list = find("top");
  while (list.children.length > number) list.lastElementChild.remove();
  while (list.children.length < number) {
    const button = element("button", "", { type: "button" });
    for (const part of ["label cut", "bar", "share"]) button.append(element("span", "", { className: part }));
    const item = element("li");
    item.append(button);
    list.append(item);
  }
}

/** Keep room for the classes of a picture that was not seen yet. */
export function awaitClasses(classes) {
  roomForClasses(Math.min(5, classes));
  for (const { firstElementChild: button } of find("top").children) {
    button.disabled = true;
    button.title = "";
    button.setAttribute("aria-pressed", "false");
    button.querySelector(".label").textContent = "…";
    button.querySelector(".share").textContent = "";
    button.querySelector(".bar").style.setProperty("--share", 0);
  }
  find("classes").hidden = false;
}
