/* One pane: a stack, the image that is seen of it, and how.

   Promises: a fault of one object is a message in its place, and the stack goes on; what is drawn from the pixels says
   « exact », what the server drew meanwhile « aperçu ». Rights are the server's. */

import * as geometry from "./viewer_geometry.js";
import { draw as drawMeasure } from "./viewer_measures.js";
import { describe } from "./viewer_overlay.js";
import { fullWindow, paint, table } from "./viewer_pixels.js";
import { Refusal, ask, pictureOf, pixelsOf } from "./viewer_store.js";
import { stack } from "./viewer_dicom.js";
import { keyed } from "./viewer_keys.js";
import { show as showDocument } from "./viewer_document.js";
import { filmed, show as showFilm } from "./viewer_film.js";

const SMOOTH_BELOW = 8;

export class Pane {
  constructor(root, { store, light, measures, videos, changed }) {
    this.videos = videos;
    this.root = root;
    this.store = store;
    this.light = light;
    this.changed = changed;
    this.part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.canvas = this.part("toile");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.source = document.createElement("canvas");
    this.measures = measures;
    this.clear();
    this.part("curseur").addEventListener("input", (event) => this.show(Number(event.target.value) - 1));
    this.part("precedente").addEventListener("click", () => this.move(-1));
    this.part("suivante").addEventListener("click", () => this.move(1));
    if (window.ResizeObserver) new ResizeObserver(() => this.resized()).observe(this.canvas);
    else window.addEventListener("resize", () => this.resized());
  }

  clear() {
    this.series = undefined;
    this.images = [];
    this.selected();
    this.index = 0;
    this.forward = true;
    this.window = undefined;
    this.inverted = false;
    this.view = geometry.FITTED;
    this.probe = undefined;
    this.line = undefined;
    this.painted = "";
  }

  get image() {
    return this.images[this.index];
  }

  get isImage() {
    return Boolean(this.image && this.image.kind === "image");
  }

  get pixels() {
    return this.isImage && this.image.measurable ? this.store.get(pixelsOf(this.image)) : undefined;
  }

  get size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  /* What stands in the middle stays there when the screen is turned. */
  resized() {
    const { width, height } = this.size;
    const before = this.extent;
    this.extent = { width, height };
    if (before && before.width && before.height && width && height && this.isImage) {
      const fit = (it) => geometry.fitScale(this.image, it.width, it.height, this.view.turn);
      const ratio = fit(this.extent) / fit(before);
      this.view = { ...this.view, x: this.view.x * ratio, y: this.view.y * ratio };
    }
    this.refresh();
  }

  /* Load a series; `wanted` is the SOP Instance UID to begin with. */
  async open(series, wanted) {
    this.giveUp();
    this.clear();
    this.series = series;
    this.store.wish(this, []);
    this.say("Chargement de la série…");
    this.root.dataset.etat = "chargement";
    const root = "/dicom-web";
    const address = `${root}/studies/${series.study}/series/${series.uid}/metadata`;
    let images;
    let selected;
    try {
      selected = series.keys ? await keyed(series, root) : undefined;
      images = selected ? selected.images : stack(await (await ask(address, "application/dicom+json")).json(), root);
      images = filmed(images, this.videos);
    } catch (error) {
      if (this.series === series) this.refuse(error);
      return;
    }
    if (this.series !== series) return;
    this.images = images;
    this.selected(selected);
    const slider = this.part("curseur");
    slider.max = String(Math.max(1, images.length));
    slider.disabled = images.length < 2;
    this.part("defilement").hidden = images.length < 2;
    this.show(Math.max(0, images.findIndex((it) => it.uid === wanted)));
  }

  /* Say what a selection of images is, in its own words. */
  selected(selection) {
    const part = this.part("cles");
    part.hidden = !selection;
    this.put("cles-titre", selection ? selection.title || "Images clés" : "");
    this.put("cles-texte", selection ? selection.words : "");
  }

  /* Show the picture that came with the page until the series is here. */
  greet(picture) {
    const show = () => {
      if (this.images.length || !picture.naturalWidth) return;
      const { width, height } = this.size;
      const image = { columns: picture.naturalWidth, rows: picture.naturalHeight, ratio: 1 };
      this.measureScreen(width, height);
      this.blank(width, height);
      const box = geometry.place(image, geometry.FITTED, width, height);
      geometry.drawInto(this.context, picture, box);
      this.say("");
    };
    if (picture.complete) show();
    else picture.addEventListener("load", show, { once: true });
  }

  refuse(error) {
    this.root.dataset.etat = "message";
    this.say(error instanceof Refusal ? error.message : "Cette série ne peut pas être affichée.");
    this.changed(this, "image");
  }

  move(steps) {
    if (this.images.length) this.show(Math.min(this.images.length - 1, Math.max(0, this.index + steps)));
  }

  show(index, { quietly = false } = {}) {
    if (!this.images[index]) return;
    if (index !== this.index) {
      this.forward = index > this.index;
      this.giveUp();
    }
    this.index = index;
    this.refresh();
    this.changed(this, quietly ? "suivie" : "image");
  }

  /* Whether the image at an index is here to be drawn, or never will be. */
  ready(index) {
    const image = this.images[index];
    if (!image || image.kind !== "image") return true;
    const items = this.items(image);
    return items.some((it) => this.store.get(it) || (this.store.refusal(it) && !this.store.refusal(it).passing));
  }

  items(image) {
    const room = Math.max(this.size.width, this.size.height, 256) * this.density;
    const picture = pictureOf(image, this.window, room);
    return this.fromPixels(image) ? [pixelsOf(image), picture] : [picture];
  }

  get density() {
    return Math.min(2, window.devicePixelRatio || 1);
  }

  /* A table of the object is the server's to apply, until a window is chosen. */
  fromPixels(image) {
    return image.exact && !(image.tabled && !this.window) && !this.store.refusal(pixelsOf(image));
  }

  wish() {
    if (!this.isImage) {
      this.store.wish(this, []);
      return;
    }
    const wanted = [];
    for (const index of geometry.around(this.index, this.images.length, this.forward)) {
      const image = this.images[index];
      if (image.kind === "image") {
        const items = this.items(image);
        if (index === this.index) {
          if (!this.store.get(items[0])) wanted.push(items[items.length - 1]);
          wanted.push(items[0]);
          if (image.measurable && !image.exact) wanted.push(pixelsOf(image));
        } else {
          wanted.push(this.light ? items[items.length - 1] : items[0]);
        }
      }
      if (wanted.length > (this.light ? 16 : 400)) break;
    }
    this.store.wish(this, wanted);
  }

  /* The window through which the image is seen; undefined when only the server knows it. */
  get effective() {
    if (this.window) return this.window;
    if (!this.isImage || !this.image.grey || (this.image.tabled && !this.window)) return undefined;
    if (this.image.windows.length) return this.image.windows[0];
    return this.full;
  }

  get full() {
    const { pixels, image } = this;
    if (!pixels) return undefined;
    if (this.fullOf !== image.key) [this.fullOf, this.fullKept] = [image.key, { ...fullWindow(pixels, image), full: true }];
    return this.fullKept;
  }

  setWindow(window) {
    this.window = window;
    this.refresh();
    this.changed(this, "fenetre");
  }

  setView(view) {
    this.view = view;
    this.redraw();
  }

  reset() {
    this.view = geometry.FITTED;
    this.window = undefined;
    this.inverted = false;
    this.refresh();
    this.changed(this, "fenetre");
  }

  measuresHere() {
    return this.measures.of(this.image ? this.image.key : "");
  }

  /* An angle whose second arm nobody has set is none. */
  giveUp() {
    if (!this.pending) return;
    this.measures.drop(this.pending);
    this.pending = undefined;
    this.measured();
  }

  /* A measure was drawn, moved or taken away. */
  measured() {
    this.redraw();
    this.changed(this, "mesure");
  }

  /* An item came, or was refused. */
  arrived(item) {
    if (this.isImage && this.items(this.image).concat(this.image.measurable ? [pixelsOf(this.image)] : []).some((it) => it.key === item.key)) this.redraw();
  }

  refresh() {
    this.wish();
    this.redraw();
  }

  redraw() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = undefined;
      this.draw();
    });
  }

  draw() {
    if (!this.image) return;
    const { width, height } = this.size;
    this.measureScreen(width, height);
    const state = this.isImage ? this.drawImage(width, height) : "document";
    // While the next image comes the former one stays, so a stack that is scrolled does not flicker.
    if (state === "chargement" && this.root.dataset.etat !== "message" && this.root.dataset.etat !== "document") {
      this.put("qualite", "chargement…");
    } else {
      this.root.dataset.etat = state;
      if (state === "document" || state === "message") this.blank(width, height);
      describe(this, state);
    }
    if (state === "document") (this.image.kind === "film" ? showFilm : showDocument)(this, this.image);
    else if (state !== "message") this.say(state === "chargement" && !this.painted ? "Chargement de l’image…" : "");
  }

  /* As many points as the screen has, and coordinates in those of the page. */
  measureScreen(width, height) {
    const [w, h] = [Math.round(width * this.density), Math.round(height * this.density)];
    if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
    this.context.setTransform(this.density, 0, 0, this.density, 0, 0);
  }

  blank(width, height) {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, width, height);
    this.painted = "";
  }

  drawImage(width, height) {
    const { image } = this;
    const [best, other] = this.items(image);
    const content = this.store.get(best) || (other && this.store.get(other));
    if (!content) {
      const refusal = this.store.refusal(best) || (other && this.store.refusal(other));
      if (!refusal) return "chargement";
      this.say(refusal.message, image);
      return "message";
    }
    const exact = best.kind === "pixels" && this.store.get(best) === content;
    const drawn = exact ? this.paintPixels(content) : content;
    if (image.presented) Object.assign(image, { columns: content.width, rows: content.height });
    const box = geometry.place(image, this.view, width, height);
    const { context } = this;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = box.scale < SMOOTH_BELOW;
    // What is made smaller needs care, what is made larger does not: an old machine feels the difference.
    context.imageSmoothingQuality = box.scale < 1 ? "high" : "low";
    geometry.drawInto(context, drawn, box);
    if (!exact && this.inverted) {
      context.globalCompositeOperation = "difference";
      context.fillStyle = "#fff";
      context.fillRect(box.left, box.top, box.width, box.height);
      context.globalCompositeOperation = "source-over";
    }
    if (this.line) this.drawLine(box);
    for (const measure of this.measuresHere()) drawMeasure(context, measure, image, this.pixels, box);
    this.root.dataset.image = image.key;
    return exact || !image.grey || !image.exact ? "exact" : "apercu";
  }

  paintPixels(pixels) {
    const { image } = this;
    const window = this.effective;
    const shades = [image.bits, image.stored, image.high, image.signed, image.slope, image.intercept, image.inverse, this.inverted, window.center, window.width, window.shape].join();
    const painted = `${image.key} ${shades}`;
    if (this.painted === painted) return this.source;
    if (this.source.width !== image.columns || this.source.height !== image.rows) {
      Object.assign(this.source, { width: image.columns, height: image.rows });
      this.data = undefined;
    }
    const context = this.source.getContext("2d");
    if (!this.data) this.data = context.createImageData(image.columns, image.rows);
    if (image.bits < 32 && this.shades !== shades) [this.shades, this.table] = [shades, table(image, window, this.inverted)];
    paint(pixels, image, window, this.inverted, new Uint32Array(this.data.data.buffer), this.table);
    context.putImageData(this.data, 0, 0);
    this.painted = painted;
    return this.source;
  }

  drawLine(box) {
    const ends = geometry.cut(this.image, this.line);
    if (!ends) return;
    const [a, b] = ends.map((it) => geometry.toScreen(this.image, box, it));
    this.context.setLineDash([8, 5]);
    this.context.lineWidth = 1.5;
    this.context.strokeStyle = "#4cc9f0";
    this.context.beginPath();
    this.context.moveTo(a.x, a.y);
    this.context.lineTo(b.x, b.y);
    this.context.stroke();
    this.context.setLineDash([]);
  }

  /* A message in place of the image; empty takes it away. */
  say(words) {
    const box = this.part("message");
    if (box.dataset.dit === words) return;
    box.dataset.dit = words;
    box.textContent = "";
    box.hidden = !words;
    if (words) box.appendChild(document.createElement("p")).textContent = words;
  }

  put(name, words) {
    const part = this.part(name);
    if (part && part.textContent !== words) part.textContent = words;
  }
}
