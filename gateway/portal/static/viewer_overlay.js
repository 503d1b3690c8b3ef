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
  pane.put("qualite", state === "apercu" ? "aperçu" : seen && image.lossy ? "comprimée avec perte" : "");
  pane.put("valeur", probed(pane, seen));
  sides(pane, seen ? geometry.edges(image) : undefined);
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

function ruler(pane, seen) {
  const part = pane.part("regle");
  const { width, height } = pane.size;
  const bar = seen ? geometry.scaleBar(pane.image, geometry.place(pane.image, pane.view, width, height), width / 3) : undefined;
  part.hidden = !bar;
  if (!bar) return;
  part.firstElementChild.style.width = `${bar.pixels}px`;
  pane.put("regle-texte", bar.label);
}

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
