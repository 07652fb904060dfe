// From numbers to colours, as camrt.colormap and camrt.render do it: tables of 256 colours, and one laid over a picture.

// Every fifth of viridis' 256 colours, six hexadecimal digits each (Smith and van der Walt, SciPy 2015; CC0).
const VIRIDIS =
  "44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a" +
  "3a538b38598c355e8d33638d31688e2e6d8e2c718e2a768e297b8e27808e25848e23898e218e8d" +
  "20928c1f978b1e9c891fa18821a58524aa8328ae802eb37c35b7793dbc7446c06f50c46a5ac864" +
  "65cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11fd8e219e5e419f1e51dfde725";

/** Round as NumPy does: halves to the even neighbour. */
function rint(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** Jet: red, green and blue are trapezoids, clip(1.5 - |4 t - c|) with c = 3, 2, 1. */
function jet() {
  return Uint8Array.from({ length: 768 }, (_, i) => {
    const ramp = 1.5 - Math.abs(4 * (Math.floor(i / 3) / 255) - (3 - (i % 3)));
    return rint(255 * Math.min(1, Math.max(0, ramp)));
  });
}

/** Viridis, with straight lines between its knots. */
function viridis() {
  const knot = (place, channel) => Number.parseInt(VIRIDIS.substr(6 * place + 2 * channel, 2), 16);
  return Uint8Array.from({ length: 768 }, (_, i) => {
    const level = Math.floor(i / 3);
    const place = Math.min(50, Math.floor(level / 5));
    const from = knot(place, i % 3);
    return rint(((knot(place + 1, i % 3) - from) / 5) * (level - 5 * place) + from);
  });
}

/** Tables of 256 colours, 3 bytes each. */
export const COLORMAPS = { jet: jet(), viridis: viridis() };

/** Which of the 256 colours each value of a heatmap in [0, 1] has. */
export function levels(heat) {
  return Uint8Array.from(heat, (value) => rint(Math.fround(255 * Math.min(1, Math.max(0, value)))));
}

/** Lay a heatmap's colours over RGBA pixels; `alpha` is the colours' share. Returns new pixels. */
export function blend(pixels, level, table, alpha) {
  const mixed = new Uint8ClampedArray(pixels.length);
  for (let i = 0; i < level.length; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const at = 4 * i + channel;
      mixed[at] = rint((1 - alpha) * pixels[at] + alpha * table[3 * level[i] + channel]);
    }
    mixed[4 * i + 3] = 255;
  }
  return mixed;
}
