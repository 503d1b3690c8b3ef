/* Measures drawn on an image: lengths, angles, ellipses.

   Promises: points are kept in the picture's own coordinates, so a zoom never changes a figure; each measure has words
   that a reader without eyes for the drawing has too. They last as long as the tab and the session of who drew them, in
   the browser alone: signing out forgets them, another person never sees them. */

import { angle, areaText, french, lengthText, place, toScreen } from "./viewer_geometry.js";
import { statistics } from "./viewer_pixels.js";

const NBSP = "\u00a0";
const INK = "#ffd23f";
const HALO = "rgba(0, 0, 0, .75)";

export const KINDS = { longueur: 2, angle: 3, ellipse: 2 };

const KEPT = "rcp-mesures";
const MOST_KEPT = 500;

/* The measures of all images, by the image: both views of one show the same. */
export class Measures {
  constructor(owner) {
    this.owner = owner;
    this.byImage = new Map();
    try {
      const kept = JSON.parse(window.sessionStorage.getItem(KEPT)) || {};
      if (owner && kept.owner === owner) for (const [key, list] of kept.images) this.byImage.set(key, list.filter(whole));
      else window.sessionStorage.removeItem(KEPT);
    } catch {
      this.byImage.clear(); // kept by nobody, or unreadable
    }
    window.addEventListener("pagehide", () => this.keep());
  }

  of(key) {
    if (!this.byImage.has(key)) this.byImage.set(key, []);
    return this.byImage.get(key);
  }

  drop(measure) {
    for (const list of this.byImage.values()) if (list.includes(measure)) list.splice(list.indexOf(measure), 1);
  }

  keep() {
    if (!this.owner) return;
    const images = [...this.byImage].map(([key, list]) => [key, list.filter(whole)]).filter(([, list]) => list.length);
    try {
      window.sessionStorage.setItem(KEPT, JSON.stringify({ owner: this.owner, images: images.slice(-MOST_KEPT) }));
    } catch {
      // A browser that keeps nothing shows them as long as the page.
    }
  }
}

/* An angle whose second arm nobody has set is none. */
const whole = ({ kind, points }) => points.length === KINDS[kind] && points.every((it) => Number.isFinite(it.x) && Number.isFinite(it.y));

/* Lines of a measure, for the drawing and for the list. */
export function said(measure, image, pixels) {
  const [a, b, c] = measure.points;
  if (measure.kind === "longueur") return [lengthText(image, a, b)];
  if (measure.kind === "angle") return c ? [`${french(angle(image, b, a, c), 1)}${NBSP}°`] : [];
  const lines = [areaText(image, a, b)];
  const found = pixels && image.measurable ? statistics(pixels, image, a, b) : undefined;
  if (found) {
    const unit = image.unit ? `${NBSP}${image.unit}` : "";
    lines.unshift(`moyenne ${french(found.mean, 1)}${unit}`, `écart-type ${french(found.deviation, 1)}${unit}`);
    lines.push(`de ${french(found.low)} à ${french(found.high)}${unit}`);
  }
  return lines;
}

const NAMES = { longueur: "Longueur", angle: "Angle", ellipse: "Ellipse" };
export const sentence = (measure, image, pixels) => `${NAMES[measure.kind]}${NBSP}: ${said(measure, image, pixels).join(", ")}`;

/* Draw one measure over its image. */
export function draw(context, measure, image, pixels, box) {
  const at = measure.points.map((point) => toScreen(image, box, point));
  const path = new Path2D();
  if (measure.kind === "ellipse" && at.length > 1) {
    const [a, b] = at;
    path.ellipse((a.x + b.x) / 2, (a.y + b.y) / 2, Math.abs(a.x - b.x) / 2, Math.abs(a.y - b.y) / 2, 0, 0, 2 * Math.PI);
  } else {
    at.forEach((point, i) => (i ? path.lineTo(point.x, point.y) : path.moveTo(point.x, point.y)));
  }
  for (const point of at) {
    path.moveTo(point.x + 4, point.y);
    path.arc(point.x, point.y, 4, 0, 2 * Math.PI);
  }
  for (const [style, width] of [[HALO, 4], [INK, 1.75]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.stroke(path);
  }
  const lines = said(measure, image, pixels);
  const anchor = at.reduce((best, point) => (point.x > best.x ? point : best));
  label(context, lines, anchor.x + 10, anchor.y);
}

function label(context, lines, x, y) {
  context.font = "600 14px system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif";
  const width = Math.max(0, ...lines.map((line) => context.measureText(line).width));
  const room = context.canvas.clientWidth - width - 6;
  const left = Math.max(4, Math.min(x, room));
  const top = Math.max(16, Math.min(y, context.canvas.clientHeight - 18 * lines.length));
  context.lineWidth = 3;
  context.strokeStyle = HALO;
  context.fillStyle = INK;
  lines.forEach((line, i) => {
    context.strokeText(line, left, top + 18 * i);
    context.fillText(line, left, top + 18 * i);
  });
}

/* The handle of a measure under a point of the pane, the last drawn first. */
export function handle(measures, image, view, size, x, y, reach) {
  const box = place(image, view, size.width, size.height);
  for (const measure of [...measures].reverse()) {
    const index = measure.points.findIndex((point) => {
      const at = toScreen(image, box, point);
      return Math.hypot(at.x - x, at.y - y) <= reach;
    });
    if (index >= 0) return { measure, index };
  }
  return undefined;
}
