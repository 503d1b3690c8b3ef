/* An object without image: a report as text in the pane, a PDF or another document as a link.

   Promises: of the server's page only words and their outline are taken, never its markup; an object that nobody can
   read says what it is. */

import { Refusal, ask } from "./viewer_store.js";

const KEPT = new Set(["H1", "H2", "H3", "H4", "P", "UL", "OL", "LI", "DL", "DT", "DD", "TABLE", "CAPTION", "THEAD", "TBODY", "TR", "TH", "TD", "STRONG", "EM", "SECTION", "DIV", "BR"]);
const LEFT = new Set(["SCRIPT", "STYLE", "HEAD", "TEMPLATE", "NAV", "NOSCRIPT"]);

/* Copy words and outline of a page that was parsed without being run. */
function copy(from, into) {
  for (const node of from.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) into.appendChild(document.createTextNode(node.textContent));
    else if (node.nodeType === Node.ELEMENT_NODE && !LEFT.has(node.tagName)) {
      // The pane's own heading is the third level: what a document says stands below it.
      const tag = /^H[1-4]$/.test(node.tagName) ? "h4" : node.tagName;
      const next = KEPT.has(node.tagName) ? into.appendChild(document.createElement(tag)) : into;
      copy(node, next);
    }
  }
}

function link(box, address, words) {
  const anchor = box.appendChild(document.createElement("p")).appendChild(document.createElement("a"));
  anchor.href = address;
  anchor.target = "_blank";
  anchor.rel = "noopener";
  anchor.className = "button";
  anchor.textContent = words;
}

/* Show a document in its pane. */
export async function show(pane, image) {
  const box = pane.part("message");
  if (box.dataset.dit === image.key) return;
  box.dataset.dit = image.key;
  box.textContent = "";
  box.hidden = false;
  if (!image.readable || image.label === "Document PDF") {
    box.appendChild(document.createElement("h3")).textContent = image.title || image.label;
    if (image.title) box.appendChild(document.createElement("p")).textContent = image.label;
  }
  if (image.told) {
    box.appendChild(document.createElement("p")).textContent = image.told;
    return;
  }
  if (!image.readable) {
    box.appendChild(document.createElement("p")).textContent =
      image.label === "État de présentation"
        ? "Il se choisit sous « Présentation », devant une image qu’il concerne."
        : "Cet objet ne contient pas d’image à regarder.";
    return;
  }
  const address = `${image.address}/rendered`;
  if (image.label === "Document PDF") {
    link(box, address, "Ouvrir le PDF (nouvel onglet)");
    return;
  }
  const body = box.appendChild(document.createElement("div"));
  body.className = "v-text";
  body.textContent = "Chargement du document…";
  try {
    const answer = await ask(address, "text/html");
    // Our policy forbids inline styles, in a page that is only parsed too.
    const source = (await answer.text()).replace(/<style[\s\S]*?<\/style>/gi, "");
    const page = new DOMParser().parseFromString(source, "text/html");
    body.textContent = "";
    copy(page.querySelector("main") || page.body, body);
    link(box, address, "Ouvrir dans un nouvel onglet");
  } catch (error) {
    body.textContent = error instanceof Refusal ? error.message : "Ce document ne peut pas être affiché.";
    body.setAttribute("role", "status");
  }
}
