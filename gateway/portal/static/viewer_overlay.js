/* What stands around the picture in words: whose it is, where, through which window, and what was measured.

   Promises: the same words for those who see the picture and for those who hear it. */

import * as geometry from "./viewer_geometry.js";
import { sentence } from "./viewer_measures.js";
import { valueAt } from "./viewer_pixels.js";

const NBSP = "\u00a0";

/* Put the words of the image that is drawn around it. */
export function describe(pane, state) {
  const { image } = pane;
  const rank = `${pane.index + 1}${NBSP}/${NBSP}${pane.images.length}`;
  pane.put("rang", rank);
  const slider = pane.part("curseur");
  slider.value = String(pane.index + 1);
  slider.setAttribute("aria-valuetext", `Image ${pane.index + 1} sur ${pane.images.length}`);
  pane.put("etude", image.study);
  pane.put("serie", [image.modality, image.series].filter(Boolean).join(" – "));
  pane.put("date", day(image.date));
  pane.put("identite", [image.patient.name, day(image.patient.birth)].filter(Boolean).join(", "));
  const seen = state === "exact" || state === "apercu";
  const place = seen && image.normal ? `position ${geometry.french(image.along, 1)}${NBSP}mm` : "";
  const thick = place && image.thickness ? `coupe de ${geometry.french(image.thickness, image.thickness % 1 ? 1 : 0)}${NBSP}mm` : "";
  pane.put("position", place);
  pane.put("coupe", thick);
  const window = seen ? pane.effective : undefined;
  pane.put("fenetre", window ? `C${NBSP}${figure(window.center)} · L${NBSP}${figure(window.width)}` : "");
  const quality = state === "apercu" ? "aperçu" : seen && image.lossy ? "comprimée avec perte" : "";
  const stated = seen && image.presented ? `présentation${NBSP}: ${image.presented.label}` : "";
  pane.put("qualite", [stated, quality, seen && lying(pane.view)].filter(Boolean).join(", "));
  pane.put("valeur", probed(pane, seen));
  sides(pane, seen ? geometry.edges(image, pane.view) : undefined);
  ruler(pane, seen);
  list(pane, seen);
  const words = [`Image ${pane.index + 1} sur ${pane.images.length}`, image.series, place];
  if (window) words.push(`fenêtre centre ${geometry.french(window.center)}, largeur ${geometry.french(window.width)}`);
  pane.canvas.setAttribute("aria-label", words.filter(Boolean).join(", "));
}

function probed(pane, seen) {
  const pixels = pane.pixels;
  if (!seen || !pixels || !pane.probe) return "";
  const { width, height } = pane.size;
  const at = geometry.toImage(pane.image, geometry.place(pane.image, pane.view, width, height), pane.probe.x, pane.probe.y);
  const value = valueAt(pixels, pane.image, at.x, at.y);
  if (value === undefined) return "";
  const digits = Number.isInteger(value) ? 0 : 2;
  return `${geometry.french(value, digits)}${pane.image.unit ? `${NBSP}${pane.image.unit}` : ""}`;
}

function sides(pane, letters) {
  for (const edge of ["left", "right", "top", "bottom"]) {
    const mark = pane.part(`cote-${edge}`);
    mark.textContent = letters ? letters[edge] : "";
    mark.title = letters ? geometry.sideNames(letters[edge]) : "";
  }
}

/* How the picture was turned by hand: where no letter of the patient's sides says it, these words do. */
function lying({ turn, mirror }) {
  return [turn ? `tournée de ${turn * 90}${NBSP}°` : "", mirror ? "en miroir" : ""].filter(Boolean).join(", ");
}

function ruler(pane, seen) {
  const part = pane.part("regle");
  const { width, height } = pane.size;
  const bar = seen ? geometry.scaleBar(pane.image, geometry.place(pane.image, pane.view, width, height), width / 3) : undefined;
  const blind = seen && !pane.image.spacing && !pane.image.presented;
  part.hidden = !bar && !blind;
  part.firstElementChild.hidden = !bar;
  if (bar) part.firstElementChild.style.width = `${bar.pixels}px`;
  if (bar || blind) pane.put("regle-texte", bar ? bar.label : `Échelle inconnue${NBSP}: mesures en pixels`);
}

/* What must be known of two images that stand side by side, and of one under the dossier's identity: another patient in the
   objects themselves, another day. Empty when there is nothing to say. */
export function caution(images, birth) {
  const [one, two] = images;
  const known = /^\d\d\/\d\d\/\d{4}$/.test(birth || "");
  const others = images.map((it) => day(it.patient.birth)).filter((it) => it && known && it !== birth);
  if (others.length) return { grave: true, words: `Ces images portent une autre date de naissance que le dossier${NBSP}: ${others[0]}.` };
  if (!two) return undefined;
  if (!samePerson(one.patient, two.patient)) {
    const names = images.map((it) => [it.patient.name, day(it.patient.birth)].filter(Boolean).join(", "));
    return { grave: true, words: `Les deux séries ne portent pas la même identité${NBSP}: ${names.join(` ${NBSP}/${NBSP} `)}.` };
  }
  const [first, second] = images.map((it) => day(it.examined));
  if (!first || !second || first === second) return undefined;
  return { grave: false, words: `Examens de dates différentes${NBSP}: ${first} et ${second}.` };
}

/* The server's own rule: names agree when they share a word; a date of birth is the same or is not said. */
function samePerson(a, b) {
  const [one, two] = [wordsOf(a.name), wordsOf(b.name)];
  const named = !one.length || !two.length || one.some((it) => two.includes(it));
  return named && (!a.birth || !b.birth || a.birth === b.birth);
}

const wordsOf = (name) => name.normalize("NFD").replace(/\p{M}/gu, "").toUpperCase().split(/[^A-Z0-9]+/).filter(Boolean);

function list(pane, seen) {
  const part = pane.part("mesures");
  const lines = seen ? pane.measuresHere().map((it) => sentence(it, pane.image, pane.pixels)) : [];
  if (part.dataset.dit === lines.join("|")) return;
  part.dataset.dit = lines.join("|");
  part.textContent = "";
  for (const line of lines) part.appendChild(document.createElement("li")).textContent = line;
}

/* A window's figure: places only where they say something. */
const figure = (value) => geometry.french(value, Number.isInteger(value) || Math.abs(value) >= 100 ? 0 : 2);

/* A date of DICOM as French prints it. */
function day(written) {
  const found = /^(\d{4})(\d{2})(\d{2})/.exec(written || "");
  return found ? `${found[3]}/${found[2]}/${found[1]}` : "";
}
