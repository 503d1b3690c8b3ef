/* Presentation states: the choice of a picture as somebody has prepared it, drawn by the server. [PS3.3 A.33]

   Promises: a state is offered where it is about an image of the stack, in its own words, and said in the picture; a
   picture that it turned or cut out bears no side, no scale and no measure; rights are the server's. */

import { first, text, values } from "./viewer_dicom.js";
import { ask } from "./viewer_store.js";

const CLASSES = "1.2.840.10008.5.1.4.1.1.11.1,1.2.840.10008.5.1.4.1.1.11.2";
const FIELDS = "ContentLabel,ContentDescription,PresentationCreationDate,PresentationCreationTime,ContentCreatorName,ReferencedSeriesSequence";
const MOST = 200;
const AGAIN_MS = 30000;
const none = Object.freeze([]);
const asked = new Map();

/* States of a study, the latest first; what cannot be had is none for a while. */
function statesOf(study) {
  if (!asked.has(study)) {
    asked.set(study, none);
    const address = `/dicom-web/studies/${study}/instances?SOPClassUID=${CLASSES}&includefield=${FIELDS}&limit=${MOST}`;
    return ask(address, "application/dicom+json")
      .then((answer) => (answer.status === 204 ? [] : answer.json()))
      .then((found) => asked.set(study, found.map(state).sort((a, b) => (a.made < b.made ? 1 : -1))))
      .catch(() => setTimeout(() => asked.delete(study), AGAIN_MS));
  }
  return undefined;
}

function state(ds) {
  const images = new Map();
  for (const series of values(ds, "00081115")) {
    for (const image of values(series, "00081140")) images.set(text(image, "00081155"), values(image, "00081160").map(Number));
  }
  const made = text(ds, "00700082") + text(ds, "00700083");
  return { uid: text(ds, "00080018"), series: text(ds, "0020000E"), label: label(ds), made, images };
}

/* As the state says: its label, its description, its day and hour, who made it. */
function label(ds) {
  const [, year, month, day] = /^(\d{4})(\d{2})(\d{2})/.exec(text(ds, "00700082")) || [];
  const [, hour, minute] = /^(\d{2})(\d{2})/.exec(text(ds, "00700083")) || [];
  const when = day ? `${day}/${month}/${year}${hour ? ` ${hour}:${minute}` : ""}` : "";
  const creator = text(ds, "00700084").replace(/\^+/g, " ").trim();
  return [text(ds, "00700080") || "Sans nom", text(ds, "00700081"), when, creator].filter(Boolean).join(" – ");
}

function concerns(one, image) {
  const frames = image.kind === "image" ? one.images.get(image.uid) : undefined;
  return Boolean(frames) && (!frames.length || frames.includes(image.frame));
}

const study = (image) => (/\/studies\/([^/]+)\//.exec(image.address || "") || [])[1];
const plain = (pane) => pane.images.plain || pane.images;

/* What is drawn by a state is a picture and nothing more: where its pixels lie in the patient is the state's secret. */
function presented(image, one) {
  const { uid, address, frame, frames, fps, patient, modality, series, date, examined, lossy } = image;
  const said = { uid, address, frame, frames, fps, patient, modality, series, date, examined, lossy, study: image.study };
  return {
    ...said,
    kind: "image",
    key: `${image.key}@${one.uid}`,
    presented: one,
    query: `presentationSeriesUID=${one.series}&presentationUID=${one.uid}`,
    rows: image.rows,
    columns: image.columns,
    bits: 8,
    ratio: 1,
    windows: none,
    facing: none,
  };
}

/* States that are about an image of the stack. */
function offered(pane) {
  const images = plain(pane);
  const studies = new Set(images.map(study).filter(Boolean));
  return [...studies].flatMap((uid) => asked.get(uid) || none).filter((one) => images.some((it) => concerns(one, it)));
}

/* Show the stack as a state has it, or as it is. */
function choose(pane, one) {
  const images = plain(pane);
  const shown = one ? Object.assign(images.map((it) => (concerns(one, it) ? presented(it, one) : it)), { plain: images }) : images;
  const here = shown[pane.index] && (!one || shown[pane.index].presented) ? pane.index : shown.findIndex((it) => it.presented);
  pane.giveUp();
  pane.images = shown;
  pane.painted = "";
  pane.window = undefined;
  pane.inverted = false;
  pane.show(Math.max(0, here));
}

/* Keep the list as the stack of a pane has it. */
export function attachTo(select, active, refresh) {
  const box = select.closest("[data-presentations]");
  select.addEventListener("change", () => {
    const pane = active();
    choose(pane, offered(pane).find((it) => it.uid === select.value));
    refresh();
  });
  return (pane) => {
    for (const uid of new Set(plain(pane).map(study).filter(Boolean))) {
      const coming = box.dataset.etudes.split(" ").includes(uid) ? statesOf(uid) : undefined;
      if (coming) coming.then(refresh);
    }
    const states = offered(pane);
    const names = states.map((it) => `${it.uid} ${it.label}`).join("|");
    if (select.dataset.dit !== names) {
      select.dataset.dit = names;
      select.textContent = "";
      for (const [value, words] of [["", "sans"], ...states.map((it) => [it.uid, it.label])]) {
        const option = select.appendChild(document.createElement("option"));
        option.value = value;
        option.textContent = words;
      }
    }
    box.hidden = !states.length;
    const shown = pane.images.plain && pane.images.find((it) => it.presented);
    select.value = shown ? shown.presented.uid : "";
  };
}
