/* Stored pixels → shades and figures. [PS3.3 C.7.6.3.1, C.11.1, C.11.2.1.2]

   Promises: the three VOI functions as the standard writes them, from 0 to 255; unused bits are masked, signs extended,
   whatever lies in them. No network, no page. */

const ARRAYS = { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array };

/* Pixels of a frame as unsigned words of its bits; undefined when bytes are missing. */
export function words(bytes, image) {
  const count = image.rows * image.columns;
  const size = (count * image.bits) / 8;
  if (bytes.byteLength < size) return undefined;
  const own = bytes.byteOffset % (image.bits / 8) === 0 ? bytes : bytes.slice();
  return new ARRAYS[image.bits](own.buffer, own.byteOffset, count);
}

/* How a word is read: its high bit and its sign, worked out once for all pixels. [PS3.5 8.1.1] */
function reader(image) {
  const shift = Math.max(0, image.high + 1 - image.stored);
  if (image.stored < 32) {
    const mask = 2 ** image.stored - 1;
    const sign = image.signed ? 2 ** (image.stored - 1) : 0;
    return (word) => (((word >>> shift) & mask) ^ sign) - sign;
  }
  return image.signed ? (word) => word | 0 : (word) => word;
}

export const storedValue = (word, image) => reader(image)(word);

/* Value in the modality's unit, Hounsfield for a CT. */
export const modalityValue = (word, image) => storedValue(word, image) * image.slope + image.intercept;

/* Shade of a value through a window. [PS3.3 C.11.2.1.2.1, C.11.2.1.3.1, C.11.2.1.3.2] */
export function shade(x, { center, width, shape }) {
  if (shape === "SIGMOID") return Math.floor(255 / (1 + Math.exp((-4 * (x - center)) / width)) + 0.5);
  if (shape === "LINEAR_EXACT") {
    if (x <= center - width / 2) return 0;
    if (x > center + width / 2) return 255;
    return Math.floor(((x - center) / width + 0.5) * 255 + 0.5);
  }
  const low = center - 0.5 - (width - 1) / 2;
  const high = center - 0.5 + (width - 1) / 2;
  if (x <= low) return 0;
  if (x > high) return 255;
  return Math.floor(((x - (center - 0.5)) / (width - 1) + 0.5) * 255 + 0.5);
}

/* Colour (ABGR, as a canvas holds it) of each word of 8 or 16 bits through a window. */
export function table(image, window, inverted = false) {
  const flip = image.inverse !== inverted;
  const colours = new Uint32Array(2 ** image.bits);
  const stored = reader(image);
  for (let word = 0; word < colours.length; word += 1) {
    const grey = shade(stored(word) * image.slope + image.intercept, window);
    colours[word] = abgr(flip ? 255 - grey : grey);
  }
  return colours;
}

const abgr = (grey) => (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;

/* Paint the pixels of a frame into 32-bit colours. */
export function paint(pixels, image, window, inverted, colours, ready) {
  if (image.bits === 32) {
    const flip = image.inverse !== inverted;
    const stored = reader(image);
    for (let i = 0; i < pixels.length; i += 1) {
      const grey = shade(stored(pixels[i]) * image.slope + image.intercept, window);
      colours[i] = abgr(flip ? 255 - grey : grey);
    }
    return;
  }
  const made = ready || table(image, window, inverted);
  for (let i = 0; i < pixels.length; i += 1) colours[i] = made[pixels[i]];
}

/* The window that shows every value of a frame, its padding left out. */
export function fullWindow(pixels, image) {
  let low = Infinity;
  let high = -Infinity;
  const stored = reader(image);
  for (let i = 0; i < pixels.length; i += 1) {
    const value = stored(pixels[i]);
    if (value !== image.padding) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return { center: 0, width: 1, shape: "LINEAR_EXACT", label: "" };
  const ends = [low, high].map((value) => value * image.slope + image.intercept);
  return { center: (ends[0] + ends[1]) / 2, width: Math.abs(ends[1] - ends[0]) || 1, shape: "LINEAR_EXACT", label: "" };
}

/* Value under a point of the picture; undefined outside of it. */
export function valueAt(pixels, image, x, y) {
  const column = Math.floor(x);
  const row = Math.floor(y);
  if (column < 0 || row < 0 || column >= image.columns || row >= image.rows) return undefined;
  return modalityValue(pixels[row * image.columns + column], image);
}

/* Mean, standard deviation and extremes of the pixels whose centre lies in an ellipse (within its two corners). */
export function statistics(pixels, image, a, b) {
  const [left, right] = [Math.min(a.x, b.x), Math.max(a.x, b.x)];
  const [top, bottom] = [Math.min(a.y, b.y), Math.max(a.y, b.y)];
  const [rx, ry] = [(right - left) / 2, (bottom - top) / 2];
  let count = 0, mean = 0, squares = 0, low = Infinity, high = -Infinity;
  for (let row = Math.max(0, Math.floor(top)); row <= Math.min(image.rows - 1, Math.floor(bottom)); row += 1) {
    for (let column = Math.max(0, Math.floor(left)); column <= Math.min(image.columns - 1, Math.floor(right)); column += 1) {
      const dx = (column + 0.5 - (left + rx)) / rx;
      const dy = (row + 0.5 - (top + ry)) / ry;
      if (dx * dx + dy * dy <= 1) {
        const value = modalityValue(pixels[row * image.columns + column], image);
        count += 1;
        const delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  }
  return count ? { count, mean, deviation: Math.sqrt(squares / count), low, high } : undefined;
}

/* The first part of a multipart answer. [RFC 2046 5.1] */
export function firstPart(bytes, contentType) {
  const found = /boundary="?([^";]+)"?/i.exec(contentType || "");
  if (!found) return bytes;
  const ascii = (from, length) => String.fromCharCode(...bytes.subarray(from, from + length));
  const opening = `--${found[1]}`;
  const start = ascii(0, 512 + opening.length).indexOf(opening);
  if (start < 0) return undefined;
  const head = ascii(start, 4096);
  const end = head.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const from = start + end + 4;
  const length = /^content-length:\s*(\d+)/im.exec(head.slice(0, end));
  if (length) return bytes.subarray(from, from + Number(length[1]));
  return bytes.subarray(from, closing(bytes, from, `\r\n--${found[1]}`));
}

/* Where the next boundary begins; pixels may hold anything, so it is looked for from the end. */
function closing(bytes, from, mark) {
  const codes = Array.from(mark, (sign) => sign.charCodeAt(0));
  for (let at = bytes.length - codes.length; at >= from; at -= 1) {
    if (codes.every((code, i) => bytes[at + i] === code)) return at;
  }
  return bytes.length;
}
