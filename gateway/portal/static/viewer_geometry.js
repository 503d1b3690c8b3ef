/* Where things are: on the screen, in the picture, in the patient. [PS3.3 C.7.6.2.1.1, C.7.6.1.1.1]

   Promises: lengths and angles in millimetres where the spacing is known, whatever the zoom; letters of the patient's
   sides from the direction cosines. No network, no page. */

import { dot } from "./viewer_dicom.js";

const NBSP = "\u00a0";
const AXES = [["L", "R"], ["P", "A"], ["H", "F"]];
const OPPOSITE = { L: "R", R: "L", P: "A", A: "P", H: "F", F: "H" };
const NAMES = { L: "gauche", R: "droite", P: "arrière", A: "avant", H: "tête", F: "pieds" };

/* A number as French prints it. */
export function french(value, digits = 0) {
  const rounded = Math.abs(value) < 0.5 / 10 ** digits ? 0 : value;
  return rounded.toFixed(digits).replace("-", "−").replace(".", ",");
}

/* Letters of a direction in the patient, the strongest first; what deviates less than 12° says nothing. */
export function towards(direction) {
  return direction
    .map((share, axis) => [Math.abs(share), AXES[axis][share > 0 ? 0 : 1]])
    .filter(([strength]) => strength > 0.2)
    .sort((a, b) => b[0] - a[0])
    .map(([, letter]) => letter)
    .join("");
}

export const opposite = (letters) => Array.from(letters, (one) => OPPOSITE[one] || "").join("");

/* Letters at the four edges of a picture as it is seen; undefined when the object does not say how it lies. */
export function edges(image, { turn = 0, mirror = false } = FITTED) {
  const known = image.row && image.column ? [towards(image.row), towards(image.column)] : image.facing;
  if (!known || known.length < 2 || !known.every((it) => /^[LRPAHF]{1,3}$/.test(it))) return undefined;
  const [right, bottom] = known;
  let seen = { left: opposite(right), right, top: opposite(bottom), bottom };
  for (let quarter = 0; quarter < turn; quarter += 1) seen = { top: seen.left, right: seen.top, bottom: seen.right, left: seen.bottom };
  return mirror ? { ...seen, left: seen.right, right: seen.left } : seen;
}

export const sideNames = (letters) => Array.from(letters, (one) => NAMES[one]).join("-");

/* A view: the picture in `turn` quarters clockwise, then its `mirror` image from left to right; `zoom` times as large as
   what fits; its middle moved by `x` and `y` from the pane's. */
export const FITTED = Object.freeze({ zoom: 1, x: 0, y: 0, turn: 0, mirror: false });

/* The whole picture, as it is turned. */
export const fitted = (view) => ({ ...FITTED, turn: view.turn, mirror: view.mirror });

/* What is seen, a quarter further clockwise, or from the other side. */
export const turned = (view) => ({ ...fitted(view), turn: (view.turn + (view.mirror ? 3 : 1)) % 4 });
export const mirrored = (view) => ({ ...view, mirror: !view.mirror, x: -view.x });

export function fitScale(image, width, height, turn = 0) {
  const [w, h] = turn % 2 ? [height, width] : [width, height];
  return Math.min(w / image.columns, h / (image.rows * image.ratio));
}

/* The rectangle that a picture takes in a pane, as it is seen. */
export function place(image, view, width, height) {
  const { turn = 0, mirror = false } = view;
  const scale = fitScale(image, width, height, turn) * view.zoom;
  const own = [image.columns * scale, image.rows * image.ratio * scale];
  const [w, h] = turn % 2 ? [own[1], own[0]] : own;
  return { left: (width - w) / 2 + view.x, top: (height - h) / 2 + view.y, width: w, height: h, scale, turn, mirror };
}

export function toImage(image, box, x, y) {
  let [u, v] = [(x - box.left) / box.width, (y - box.top) / box.height];
  if (box.mirror) u = 1 - u;
  for (let quarter = 0; quarter < box.turn; quarter += 1) [u, v] = [v, 1 - u];
  return { x: u * image.columns, y: v * image.rows };
}

export function toScreen(image, box, at) {
  let [u, v] = [at.x / image.columns, at.y / image.rows];
  for (let quarter = 0; quarter < box.turn; quarter += 1) [u, v] = [1 - v, u];
  if (box.mirror) u = 1 - u;
  return { x: box.left + u * box.width, y: box.top + v * box.height };
}

/* Draw a picture into its rectangle. */
export function drawInto(context, picture, box) {
  const [w, h] = box.turn % 2 ? [box.height, box.width] : [box.width, box.height];
  context.save();
  context.translate(box.left + box.width / 2, box.top + box.height / 2);
  if (box.mirror) context.scale(-1, 1);
  context.rotate((box.turn * Math.PI) / 2);
  context.drawImage(picture, -w / 2, -h / 2, w, h);
  context.restore();
}

/* The view after a zoom that leaves the point under (x, y) where it is. */
export function zoomed(view, factor, x, y, width, height) {
  const zoom = Math.min(40, Math.max(0.2, view.zoom * factor));
  const ratio = zoom / view.zoom;
  const [cx, cy] = [x - width / 2, y - height / 2];
  return { ...view, zoom, x: cx - (cx - view.x) * ratio, y: cy - (cy - view.y) * ratio };
}

/* A vector of the picture in millimetres, or in columns when no spacing is known. */
const metric = (image, a, b) => [
  (b.x - a.x) * (image.spacing ? image.spacing.column : 1),
  (b.y - a.y) * (image.spacing ? image.spacing.row : image.ratio),
];

export const length = (image, a, b) => Math.hypot(...metric(image, a, b));

/* Degrees between two arms from `apex`, 0 to 180. */
export function angle(image, apex, a, b) {
  const [u, w] = [metric(image, apex, a), metric(image, apex, b)];
  const sizes = Math.hypot(...u) * Math.hypot(...w);
  if (!sizes) return 0;
  return (Math.acos(Math.min(1, Math.max(-1, dot(u, w) / sizes))) * 180) / Math.PI;
}

export function ellipseArea(image, a, b) {
  const [w, h] = metric(image, a, b);
  return (Math.PI * Math.abs(w * h)) / 4;
}

export function lengthText(image, a, b) {
  const size = length(image, a, b);
  if (!image.spacing) return `${french(size, 0)}${NBSP}px`;
  return `${french(size, 1)}${NBSP}mm${image.spacing.note ? ` (${image.spacing.note})` : ""}`;
}

export function areaText(image, a, b) {
  const size = ellipseArea(image, a, b);
  if (!image.spacing) return `${french(size, 0)}${NBSP}px²`;
  return size < 100 ? `${french(size, 1)}${NBSP}mm²` : `${french(size / 100, 2)}${NBSP}cm²`;
}

const BARS = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500];

/* The longest round length whose bar is at most `room` screen pixels; undefined without spacing. */
export function scaleBar(image, box, room) {
  if (!image.spacing) return undefined;
  const perPixel = image.spacing.column / box.scale;
  const size = BARS.filter((one) => one / perPixel <= room).pop();
  if (!size) return undefined;
  const label = size >= 10 ? `${french(size / 10)}${NBSP}cm` : `${french(size, size < 1 ? 1 : 0)}${NBSP}mm`;
  return { pixels: size / perPixel, label };
}

/* Whether two images lie in parallel planes, whatever their frame of reference: 1, −1 when one looks the other way, or 0. */
export function parallel(a, b) {
  const share = a && b && a.normal && b.normal ? dot(a.normal, b.normal) : 0;
  return Math.abs(share) > 0.98 ? Math.sign(share) : 0;
}

/* Whether two images lie in parallel planes of the same frame of reference. */
export const alongside = (a, b) => Boolean(parallel(a, b) && a.reference && a.reference === b.reference);

/* Index of the parallel image of a stack that lies nearest to a place along its own normal. */
export function nearestPlace(images, along, like) {
  let best;
  let least = Infinity;
  images.forEach((it, index) => {
    if (it.kind !== "image" || !parallel(it, like)) return;
    const distance = Math.abs(it.along - along);
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

/* Index of the image of a stack that lies nearest to another one; undefined when they cannot be compared. */
export function nearest(images, image) {
  let best;
  let least = Infinity;
  images.forEach((it, index) => {
    if (it.kind !== "image" || !alongside(it, image)) return;
    const distance = Math.abs(dot(it.normal, it.position.map((x, i) => x - image.position[i])));
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

/* Where the plane of another image cuts this one, as two points of this picture: the line of a localiser. */
export function cut(image, other) {
  if (!image.normal || !other.normal || !image.spacing || !image.reference || image.reference !== other.reference) return undefined;
  if (Math.abs(dot(image.normal, other.normal)) > 0.98) return undefined;
  // A point of this picture lies in the other plane when f(x, y) = 0, and f is linear.
  const height = (x, y) => dot(other.normal, image.position.map((start, i) =>
    start + image.row[i] * image.spacing.column * (x - 0.5) + image.column[i] * image.spacing.row * (y - 0.5) - other.position[i]));
  const origin = height(0, 0);
  const [dx, dy] = [height(1, 0) - origin, height(0, 1) - origin];
  const points = [];
  for (const [x, y] of [
    dy ? [0, -origin / dy] : [], dy ? [image.columns, -(origin + dx * image.columns) / dy] : [],
    dx ? [-origin / dx, 0] : [], dx ? [-(origin + dy * image.rows) / dx, image.rows] : [],
  ]) {
    if (x >= -1e-6 && y >= -1e-6 && x <= image.columns + 1e-6 && y <= image.rows + 1e-6) points.push({ x, y });
  }
  const far = points.find((it) => Math.hypot(it.x - points[0].x, it.y - points[0].y) > 1e-3);
  return far ? [points[0], far] : undefined;
}

/* Indices around one, nearest first, two ahead for one behind. */
export function around(index, count, forward = true) {
  const order = [index];
  let [ahead, behind] = [index, index];
  const step = forward ? 1 : -1;
  while (order.length < count) {
    for (const next of [(ahead += step), (ahead += step), (behind -= step)]) {
      if (next >= 0 && next < count) order.push(next);
    }
  }
  return order;
}
