/* Key images: the stack that a Key Object Selection Document names, in its order. [PS3.3 A.35.4, PS3.16 TID 2010]

   Promises: each object is asked of the server, which looks at the rights to it; what it does not give is a sentence in
   its place in the stack, and the others are shown. */

import { entries, first, text, values } from "./viewer_dicom.js";
import { ask } from "./viewer_store.js";

const MOST = 500;
const PARALLEL = 4;
const UID = /^[0-9.]{1,64}$/;
const ABSENT = "Cette image clé n’est pas dans la passerelle, ou elle ne vous est pas accessible.";

/* What a document selects: where each object is, by its evidence, and which of its frames. */
export function selection(ds) {
  const places = new Map();
  for (const tag of ["0040A375", "0040A385"]) {
    for (const study of values(ds, tag)) {
      for (const series of values(study, "00081115")) {
        for (const it of values(series, "00081199")) {
          const [uid, ...place] = [text(it, "00081155"), text(study, "0020000D"), text(series, "0020000E")];
          // What a document writes becomes part of an address: a UID, or nothing.
          if ([uid, ...place].every((one) => UID.test(one))) places.set(uid, { study: place[0], series: place[1] });
        }
      }
    }
  }
  const items = values(ds, "0040A730");
  const keys = items.flatMap((item) => values(item, "00081199")).map((it) => {
    const uid = text(it, "00081155");
    return { uid, frames: values(it, "00081160").map(Number), place: places.get(uid) };
  });
  return {
    title: text(first(ds, "0040A043"), "00080104"),
    words: items.filter((item) => text(item, "0040A040") === "TEXT").map((item) => text(item, "0040A160")).filter(Boolean).join("\n"),
    keys,
  };
}

/* The stack of a document, with its title and its words. */
export async function keyed(series, root) {
  const address = `${root}/studies/${series.study}/series/${series.uid}/instances/${series.keys}/metadata`;
  const { title, words, keys } = selection((await described(address))[0]);
  const asked = keys.slice(0, MOST);
  const met = new Map();
  const waiting = [...new Map(asked.filter((it) => it.place).map((it) => [it.uid, it])).values()];
  const take = async () => {
    for (let key = waiting.shift(); key; key = waiting.shift()) met.set(key.uid, await object(key, root));
  };
  await Promise.all(Array.from({ length: PARALLEL }, take));
  const images = asked.flatMap((key, i) => framesOf(key, met.get(key.uid), i));
  if (keys.length > MOST) images.push(told(`${MOST}`, `La sélection nomme ${keys.length} images${"\u00a0"}: les ${MOST} premières sont montrées.`));
  return { images, title, words };
}

const described = async (address) => (await ask(address, "application/dicom+json")).json();

/* The entries of an object, or why there are none. */
async function object({ uid, place }, root) {
  try {
    return entries((await described(`${root}/studies/${place.study}/series/${place.series}/instances/${uid}/metadata`))[0], root);
  } catch (error) {
    // A session that ended is said of the whole, not image by image.
    if (error.status === 401) throw error;
    return error.status === 404 ? ABSENT : error.message;
  }
}

/* The frames that a key names of an object; all of them when it names none. */
function framesOf(key, found, rank) {
  if (!Array.isArray(found)) return [told(`${key.uid || rank}`, found || ABSENT)];
  const named = key.frames.length ? key.frames.map((frame) => found[frame - 1]) : found;
  return named.map((it) => it || told(`${key.uid}/${rank}`, "Cette image clé nomme une image que son objet n’a pas."));
}

function told(key, words) {
  const nobody = { name: "", birth: "" };
  return { key, uid: key, kind: "document", label: "Image clé absente", told: words, patient: nobody, study: "", series: "", modality: "", date: "", examined: "" };
}
