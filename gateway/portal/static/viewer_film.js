/* A video among the objects: played where the browser can, else said what it is and where its bytes are.

   Promises: the stream is the object's own, unchanged; a browser that cannot play it gets a sentence and the object to
   save, never an empty pane. Rights are the server's. [PS3.5 8.2.5 to 8.2.12] */

const SYNTAX = "1.2.840.10008.1.2.4.";
const CODINGS = [
  [["100", "101"], "MPEG-2"],
  [["102", "103", "104", "105", "106"], "H.264 (MPEG-4 AVC)"],
  [["107", "108"], "H.265 (HEVC)"],
];
const PLAYED = "H.264 (MPEG-4 AVC)";

/* What a transfer syntax of video is called; those of streams cut into fragments end in « .1 ». */
export function coding(syntax) {
  const end = syntax.slice(SYNTAX.length).split(".")[0];
  const found = CODINGS.find(([ends]) => ends.includes(end));
  return found ? found[1] : "";
}

/* A stack in which each video is one entry, however many pictures it has. */
export function filmed(images, videos) {
  return images
    .filter((it) => !videos.has(it.uid) || it.kind !== "image" || it.frame === 1)
    .map((it) => (videos.has(it.uid) && it.kind === "image" ? { ...it, kind: "film", label: "Vidéo", coding: coding(videos.get(it.uid)) } : it));
}

/* Show a video in its pane. */
export function show(pane, image) {
  const box = pane.part("message");
  if (box.dataset.dit === image.key) return;
  box.dataset.dit = image.key;
  box.textContent = "";
  box.hidden = false;
  if (image.coding !== PLAYED) {
    unplayed(box, image);
    return;
  }
  const film = document.createElement("video");
  film.className = "v-film";
  film.controls = film.playsInline = film.loop = film.muted = true;
  film.preload = "metadata";
  film.setAttribute("aria-label", "Vidéo");
  film.addEventListener("error", () => {
    if (box.dataset.dit !== image.key) return;
    box.textContent = "";
    unplayed(box, image);
  });
  film.src = `${image.address}/bulkdata/7FE00010?accept=video/mp4`;
  box.appendChild(film);
  save(box, image);
}

function unplayed(box, image) {
  const said = box.appendChild(document.createElement("p"));
  said.setAttribute("role", "status");
  said.textContent = `Cette vidéo${image.coding ? ` ${image.coding}` : ""} ne peut pas être lue dans le navigateur. `
    + "Enregistrez l’objet pour l’ouvrir dans un logiciel qui la lit.";
  save(box, image);
}

function save(box, image) {
  const anchor = box.appendChild(document.createElement("p")).appendChild(document.createElement("a"));
  anchor.href = `${image.address}?accept=${encodeURIComponent("application/dicom; transfer-syntax=*")}`;
  anchor.download = `${image.uid}.dcm`;
  anchor.className = "button";
  anchor.textContent = "Enregistrer l’objet DICOM";
}
