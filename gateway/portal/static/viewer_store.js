/* What comes from the server, and how much of it is kept.

   Promises: never more than `budget` bytes of pictures are held or under way; what nobody wishes any more is cancelled; a
   refusal is kept with its words and never stops the rest. No page. */

import { firstPart, words } from "./viewer_pixels.js";

const FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1';
const AGAIN_MS = 3000;
const SAID = {
  401: "Votre session est terminée. Identifiez-vous de nouveau.",
  404: "Cette image n’existe pas, ou elle ne vous est pas accessible.",
  429: "Trop de demandes à la fois. La suite vient dans un instant.",
  503: "Le service est momentanément indisponible.",
};

/* Why something is not shown, in words for people. */
export class Refusal extends Error {
  constructor(status, said) {
    super(said || SAID[status] || "Cette image ne peut pas être affichée.");
    this.status = status;
    // A lost connection or a busy server is asked again; an object that cannot be drawn is not.
    this.passing = status === 0 || status === 429 || status >= 500;
  }
}

/* Ask for an address; a refusal bears the words of the server. */
export async function ask(address, accept, signal) {
  let answer;
  try {
    answer = await fetch(address, { headers: { Accept: accept }, credentials: "same-origin", signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "La liaison avec le service est interrompue.");
  }
  if (answer.ok) return answer;
  let said = "";
  try {
    const issue = (await answer.json()).issue[0];
    said = (issue.details && issue.details.text) || issue.diagnostics || "";
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  throw new Refusal(answer.status, SAID[answer.status] || said);
}

/* Something to be had of an image: its pixels, or a picture drawn by the server through a window. */
export function pixelsOf(image) {
  return { key: `${image.key}#`, image, kind: "pixels", bytes: (image.rows * image.columns * image.bits) / 8 };
}

export function pictureOf(image, window, room) {
  const where = image.frames > 1 ? `/frames/${image.frame}/rendered` : "/rendered";
  if (image.presented) {
    // As large as the pane, by steps: what is written on it is drawn for that size.
    const side = Math.min(2048, Math.max(512, Math.ceil((room || 0) / 256) * 256));
    const address = `${image.address}${where}?viewport=${side},${side}&${image.query}`;
    return { key: address, image, kind: "picture", address, bytes: side * side * 4 };
  }
  const query = [];
  let [columns, rows] = [image.columns, image.rows];
  const share = room ? Math.min(1, room / Math.max(columns, rows * image.ratio)) : 1;
  if (share < 1) {
    [columns, rows] = [Math.max(1, Math.round(columns * share)), Math.max(1, Math.round(rows * image.ratio * share))];
    query.push(`viewport=${columns},${rows}`);
  }
  if (window) query.push(`window=${window.center},${window.width},${window.shape.toLowerCase().replace("_", "-")}`);
  const address = `${image.address}${where}${query.length ? `?${query.join("&")}` : ""}`;
  return { key: address, image, kind: "picture", address, bytes: columns * rows * 4 };
}

async function pixels(item, signal) {
  const answer = await ask(`${item.image.address}/frames/${item.image.frame}`, FRAMES, signal);
  const bytes = firstPart(new Uint8Array(await answer.arrayBuffer()), answer.headers.get("content-type"));
  const read = bytes && words(bytes, item.image);
  if (!read) throw new Refusal(422, "Des pixels manquent dans cette image.");
  return read;
}

async function picture(item, signal) {
  const answer = await ask(item.address, "image/jpeg", signal);
  const blob = await answer.blob();
  if (typeof createImageBitmap === "function") return createImageBitmap(blob);
  return new Promise((resolve, reject) => {
    const drawn = new Image();
    drawn.onload = () => resolve(drawn);
    drawn.onerror = () => reject(new Refusal(422, ""));
    drawn.src = item.address;
  });
}

const LOADERS = { pixels, picture };

export class Store {
  constructor({ budget, parallel, arrived }) {
    this.budget = budget;
    this.parallel = parallel;
    this.arrived = arrived;
    this.held = new Map();
    this.under = new Map();
    this.refused = new Map();
    this.wishes = new Map();
  }

  get(item) {
    const found = this.held.get(item.key);
    return found && found.content;
  }

  refusal(item) {
    const found = this.refused.get(item.key);
    return found && found.refusal;
  }

  /* Bytes held now. */
  get size() {
    let total = 0;
    for (const one of this.held.values()) total += one.item.bytes;
    return total;
  }

  /* Say all that an owner needs, the most wanted first; what it wished before is forgotten. */
  wish(owner, items) {
    this.wishes.set(owner, items);
    this.pump();
  }

  pump() {
    const kept = this.affordable();
    for (const [key, one] of this.under) if (!kept.has(key)) one.abort.abort();
    if (this.size > this.budget * 0.75) for (const key of [...this.held.keys()]) if (!kept.has(key)) this.drop(key);
    const now = Date.now();
    for (const [key, item] of kept) {
      if (this.under.size >= this.parallel) break;
      const refused = this.refused.get(key);
      const again = refused && refused.refusal.passing && now - refused.at > AGAIN_MS;
      if (!this.held.has(key) && !this.under.has(key) && (!refused || again)) this.start(item);
    }
  }

  /* The wishes that fit into the budget together, each owner's first before any second; the first always fits. */
  affordable() {
    const kept = new Map();
    let total = 0;
    const lists = [...this.wishes.values()];
    const longest = Math.max(0, ...lists.map((list) => list.length));
    for (let rank = 0; rank < longest; rank += 1) {
      for (const list of lists) {
        const item = list[rank];
        if (!item || kept.has(item.key)) continue;
        total += item.bytes;
        if (total > this.budget * 0.75 && kept.size > lists.length) return kept;
        kept.set(item.key, item);
      }
    }
    return kept;
  }

  drop(key) {
    const { content } = this.held.get(key);
    this.held.delete(key);
    if (content && content.close) content.close();
  }

  async start(item) {
    const abort = new AbortController();
    this.under.set(item.key, { item, abort });
    try {
      const content = await LOADERS[item.kind](item, abort.signal);
      this.refused.delete(item.key);
      this.held.set(item.key, { item, content });
    } catch (error) {
      if (error.name !== "AbortError") {
        const refusal = error instanceof Refusal ? error : new Refusal(422, "");
        this.refused.set(item.key, { refusal, at: Date.now() });
        if (refusal.passing) setTimeout(() => this.pump(), AGAIN_MS + 50);
      }
    }
    this.under.delete(item.key);
    this.arrived(item);
    this.pump();
  }
}
