// What comes in as base64 and goes out as a file.

/** Read little-endian float32 numbers from base64. */
export function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 2 }, (_, i) => view.getFloat32(4 * i, true));
}

/** Write a heatmap as NumPy's .npy, version 1.0: a padded header, then little-endian float32, row by row. */
export function npy(heat, height, width) {
  const facts = `{'descr': '<f4', 'fortran_order': False, 'shape': (${height}, ${width}), }`;
  const length = Math.ceil((10 + facts.length + 1) / 64) * 64 - 10;
  const file = new DataView(new ArrayBuffer(10 + length + 4 * heat.length));
  const header = `\x93NUMPY\x01\x00${String.fromCharCode(length & 255, length >> 8)}${facts.padEnd(length - 1)}\n`;
  for (let i = 0; i < header.length; i++) file.setUint8(i, header.charCodeAt(i));
  heat.forEach((value, i) => file.setFloat32(10 + length + 4 * i, value, true));
  return new Blob([file.buffer], { type: "application/octet-stream" });
}

/** Write facts and a heatmap, as a list of rows, as JSON; nine digits give every float32 back. */
export function json(facts, heat, width) {
  const rows = Array.from({ length: heat.length / width }, (_, row) =>
    Array.from(heat.subarray(row * width, (row + 1) * width), (value) => Number(value.toPrecision(9))),
  );
  return new Blob([JSON.stringify({ ...facts, heatmap: rows })], { type: "application/json" });
}

/** Hand a file to whoever looks at the page. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a browser may read it a little later
}

/** A name that every file system takes. */
export function fileName(...parts) {
  const safe = (part) => String(part).replace(/[^A-Za-z0-9.-]+/g, "-").replace(/^[-.]+|-+$/g, "");
  return parts.map(safe).filter(Boolean).join("_").slice(0, 120);
}
