// What is chosen: a picture, a model, methods with their options, targets and a layer; and the query that says so.

import { complain, count, element, find, fromTemplate, say } from "./parts.js";
import { Refused, ask, picture as fetchPicture } from "./server.js";

const FAMILIES = {
  gradient: "From gradients",
  activation: "From activations alone",
  ablation: "By leaving channels or places out",
  masked: "By hiding parts of the picture",
  "black-box": "From scores alone",
  optimised: "By optimisation",
  fusion: "Joined maps",
  baseline: "Baselines, to compare with",
};
export const chosen = {
  picture: null, // {blob, name}
  model: null, // as GET /models/{name} tells
  methods: new Set(), // ids
  settings: new Map(), // id -> {variant, options: Map}
  targets: [], // {send, show}
};

// ---- the picture ----------------------------------------------------------------------------------------------------

let picks = 0; // the newest choice of a picture wins, however long its bytes take

function usePicture(blob, name) {
  picks += 1;
  chosen.picture = { blob, name };
  const preview = find("preview");
  URL.revokeObjectURL(preview.src);
  preview.hidden = true;
  preview.onload = () => (preview.hidden = false);
  preview.src = URL.createObjectURL(blob);
  find("picture-chosen").textContent = `Chosen: ${name}`;
  say(`${name} is chosen. Press Explain.`);
  for (const button of find("built-in").children) {
    button.setAttribute("aria-pressed", String(button.dataset.name === name));
  }
}

async function useBuiltIn(name, url) {
  picks += 1;
  const pick = picks;
  try {
    const blob = await fetchPicture(url);
    if (pick === picks) usePicture(blob, name);
  } catch (error) {
    if (pick === picks) complain(error, () => useBuiltIn(name, url));
  }
}

export function useFiles(files) {
  const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
  if (!file) return;
  usePicture(file, file.name || "pasted picture");
}

export async function showBuiltIn() {
  const { pictures } = await ask("page/pictures");
  find("built-in").replaceChildren(
    ...pictures.map(({ name, url }) => {
      const button = element("button", "", { type: "button", title: name });
      button.dataset.name = name;
      button.setAttribute("aria-pressed", "false");
      button.append(element("img", "", { src: url, alt: name, width: 64, height: 64 }));
      button.addEventListener("click", () => useBuiltIn(name, url));
      return button;
    }),
  );
}

// ---- model, layer, methods, options ---------------------------------------------------------------------------------

let models = [];

export async function showModels() {
  ({ models } = await ask("models"));
  if (!models.length) throw new Refused(503, "no model is served here yet", 0);
  find("model").replaceChildren(
    ...models.map(({ name, ready }) => {
      return element("option", ready ? name : `${name} (not ready)`, { value: name, disabled: !ready });
    }),
  );
  const first = models.find((one) => one.default && one.ready) ?? models.find((one) => one.ready);
  if (!first) throw new Refused(503, "no model is ready yet", 0);
  find("model").value = first.name;
  await showModel();
}

/** Show what the chosen model and version can do; tell whether it is still the chosen one. */
export async function showModel(version = "") {
  const name = find("model").value;
  const row = models.find((one) => one.name === name);
  const model = await ask(`models/${encodeURIComponent(name)}${version && `?version=${encodeURIComponent(version)}`}`);
  if (find("model").value !== name) return false; // another was chosen meanwhile
  chosen.model = model;
  chosen.targets = [];
  const versions = row.versions ?? [];
  find("version").hidden = versions.length < 2;
  find("version").replaceChildren(
    ...versions.map((one) => element("option", `v${one}`, { value: one, selected: one === model.version })),
  );
  const layers = model.layers.map((layer) => {
    const text = `${layerName(layer.name)} · ${count(layer.channels, "channel")} · ${layer.grid.join(" × ")}`;
    return element("option", text, { value: layer.name });
  });
  const usual = model.layers.find((layer) => layer.default);
  layers.unshift(element("option", usual ? `Default (${layerName(usual.name)})` : "Default", { value: "" }));
  find("layer").replaceChildren(...layers);
  const names = labelCounts();
  find("labels").replaceChildren(
    ...model.labels.map((label, i) => element("option", "", { value: names.get(label) > 1 ? `${label} (${i})` : label })),
  );
  const known = new Set(model.methods.map((method) => method.id));
  chosen.methods = new Set([...chosen.methods].filter((id) => known.has(id)));
  if (!chosen.methods.size) {
    const usualMethod = model.methods.find((method) => method.default) ?? model.methods[0];
    chosen.methods.add(usualMethod.id);
  }
  showMethods();
  showTargets();
  return true;
}

/** A layer's name, or its module's where that is shorter and no other layer's too. */
export function layerName(name) {
  const { layers } = chosen.model;
  const module = layers.find((layer) => layer.name === name)?.module || name;
  return module.length < name.length && layers.filter((one) => one.module === module).length === 1 ? module : name;
}

function method(id) {
  return chosen.model.methods.find((one) => one.id === id);
}

export function title(id) {
  return method(id)?.title || id;
}

function showMethods() {
  const box = find("methods");
  box.replaceChildren();
  const families = [...new Set([...Object.keys(FAMILIES), ...chosen.model.methods.map((one) => one.family)])];
  for (const family of families) {
    const rows = chosen.model.methods.filter((one) => one.family === family);
    if (!rows.length) continue;
    rows.sort((a, b) => Number(b.default) - Number(a.default) || a.work - b.work);
    const group = element("div", "", { className: "family" });
    const head = element("h3", FAMILIES[family] ?? family, { id: `family-${families.indexOf(family)}` });
    group.setAttribute("role", "group");
    group.setAttribute("aria-labelledby", head.id);
    group.append(head, ...rows.map(methodRow));
    box.append(group);
  }
  filterMethods();
  methodsChanged();
}

function methodRow({ id, work }) {
  const row = fromTemplate("method-row");
  const box = row.querySelector("input");
  box.value = id;
  box.checked = chosen.methods.has(id);
  box.addEventListener("change", () => {
    if (box.checked) chosen.methods.add(id);
    else chosen.methods.delete(id);
    methodsChanged();
  });
  row.querySelector(".name").textContent = title(id);
  row.querySelector(".cost").textContent = `${Math.max(1, Math.round(work)).toLocaleString("en")} ×`;
  return row;
}

export function filterMethods() {
  const plain = (text) => text.toLowerCase().replaceAll("++", "pp").replace(/[^a-z0-9]/g, "");
  const wanted = plain(find("filter").value);
  for (const group of find("methods").children) {
    const rows = [...group.querySelectorAll(".method")];
    for (const row of rows) {
      const { value } = row.querySelector("input");
      row.hidden = !(plain(value).includes(wanted) || plain(title(value)).includes(wanted));
    }
    group.hidden = rows.every((row) => row.hidden);
  }
}

/** The ids of the chosen methods, as the list shows them. */
export function chosenIds() {
  return [...find("methods").querySelectorAll("input")].map((box) => box.value).filter((id) => chosen.methods.has(id));
}

function methodsChanged() {
  const ids = chosenIds();
  const work = Math.round(ids.reduce((sum, id) => sum + method(id).work, 0));
  find("cost").textContent = ids.length
    ? `${ids.map(title).join(", ")}: about ${count(Math.max(1, work), "forward pass", "forward passes")} in all.`
    : "Choose at least one method.";
  const fields = ids.filter((id) => method(id).variants.length > 1 || Object.keys(method(id).options).length);
  find("options").hidden = !fields.length;
  find("option-fields").replaceChildren(...fields.map(optionFields));
}

function settingsOf(id) {
  if (!chosen.settings.has(id)) chosen.settings.set(id, { variant: "", options: new Map() });
  return chosen.settings.get(id);
}

function optionFields(id) {
  const { variants, options } = method(id);
  const settings = settingsOf(id);
  const box = element("fieldset", "", { className: "options" });
  box.append(element("legend", title(id)));
  if (variants.length > 1) {
    const select = element("select", "", { id: `variant-${id}` });
    select.append(...variants.map((one, i) => element("option", i ? one : `${one} (default)`, { value: i ? one : "" })));
    select.value = variants.includes(settings.variant) ? settings.variant : "";
    select.addEventListener("change", () => (settings.variant = select.value));
    box.append(labelled("variant", select));
  }
  for (const [name, option] of Object.entries(options)) {
    const input = optionInput(option);
    input.id = `option-${id}-${name}`;
    input.value = settings.options.get(name) ?? "";
    input.addEventListener("change", () => {
      if (input.value.trim() === "") settings.options.delete(name);
      else settings.options.set(name, input.value.trim());
    });
    box.append(labelled(name, input, option.help));
  }
  return box;
}

/** A field for one option; left empty, it is not sent. */
function optionInput({ kind, default: usual, low, high, choices }) {
  const words = usual === null || usual === undefined ? "default" : `default: ${usual}`;
  if (kind === "choice" || kind === "flag") {
    const select = element("select");
    const values = kind === "flag" ? ["yes", "no"] : choices;
    const shown = kind === "flag" ? `default: ${usual ? "yes" : "no"}` : words;
    select.append(element("option", shown, { value: "" }), ...values.map((one) => element("option", one, { value: one })));
    return select;
  }
  const input = element("input", "", { placeholder: words, autocomplete: "off" });
  if (kind === "integers") return input;
  input.type = "number";
  input.step = kind === "integer" ? "1" : "any";
  if (Number.isFinite(low)) input.min = low;
  if (Number.isFinite(high)) input.max = high;
  return input;
}

function labelled(name, input, help = "") {
  const field = element("div", "", { className: "option" });
  field.append(element("label", name, { htmlFor: input.id }), input);
  if (help) {
    const hint = element("p", help, { id: `${input.id}-help`, className: "faint small" });
    input.setAttribute("aria-describedby", hint.id);
    field.append(hint);
  }
  return field;
}

// ---- targets --------------------------------------------------------------------------------------------------------

function labelCounts() {
  const counts = new Map();
  for (const label of chosen.model.labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return counts;
}

/** What a typed text means: a class where it names exactly one, otherwise the text itself, for the server to read. */
function readTarget(text) {
  const { labels } = chosen.model;
  const bare = /^(.*) \((\d+)\)$/.exec(text);
  const numbered = bare && labels[Number(bare[2])] === bare[1] ? Number(bare[2]) : -1;
  const lower = text.toLowerCase();
  const named = labels.flatMap((label, i) => (label.toLowerCase() === lower ? [i] : []));
  const index = numbered >= 0 ? numbered : named.length === 1 ? named[0] : /^\d+$/.test(text) ? Number(text) : -1;
  return index < 0 ? { send: text, show: text } : { send: String(index), show: labels[index] || `class ${index}` };
}

export function addTarget() {
  const text = find("target").value.trim();
  find("target").value = "";
  if (!text || !chosen.model) return;
  const target = readTarget(text);
  if (!chosen.targets.some((one) => one.send === target.send)) chosen.targets.push(target);
  showTargets();
}

export function showTargets() {
  find("targets").replaceChildren(
    ...chosen.targets.map((target) => {
      const item = element("li", "", { className: "chip" });
      const remove = element("button", "×", { type: "button" });
      remove.setAttribute("aria-label", `Remove ${target.show}`);
      remove.addEventListener("click", () => {
        chosen.targets = chosen.targets.filter((one) => one !== target);
        showTargets();
        find("target").focus();
      });
      item.append(element("span", target.show), remove);
      return item;
    }),
  );
  find("target-hint").hidden = chosen.targets.length > 0;
}

// ---- a request -------------------------------------------------------------------------------------------------------

export function query(id) {
  const sent = new URLSearchParams({ model: chosen.model.name, version: chosen.model.version, method: id });
  const { variant, options } = settingsOf(id);
  if (variant) sent.set("variant", variant);
  for (const { send } of chosen.targets) sent.append("target", send);
  if (find("layer").value) sent.set("layer", find("layer").value);
  for (const [name, value] of options) sent.set(name, value);
  sent.set("encoding", "base64");
  return sent;
}

/** Tell whether there is all that a run needs; say what is missing, and go there. */
export function ready() {
  if (!chosen.model) return false;
  if (chosen.picture && chosen.methods.size) return true;
  say(chosen.picture ? "Choose at least one method." : "Choose a picture first: a file, or one of the built-in ones.");
  find(chosen.picture ? "filter" : "file").focus();
  return false;
}
