/* DICOM JSON of a series → the images of a stack. [PS3.18 F.2, PS3.3 C.7.6, C.8, C.11]

   Promises: plain values, one entry a frame (or a document), functional groups laid over the object; what is absent or
   cannot be read is undefined, never guessed. No network, no page. */

const TEXT = { name: "00100010", birth: "00100030", sex: "00100040" };
const DOCUMENTS = {
  "1.2.840.10008.5.1.4.1.1.104.1": "Document PDF",
  "1.2.840.10008.5.1.4.1.1.104.2": "Document CDA",
  "1.2.840.10008.5.1.4.1.1.104.3": "Modèle 3D (STL)",
  "1.2.840.10008.5.1.4.1.1.104.4": "Modèle 3D (OBJ)",
  "1.2.840.10008.5.1.4.1.1.104.5": "Modèle 3D (MTL)",
};
const REPORTS = "1.2.840.10008.5.1.4.1.1.88.";
const MARKS = "1.2.840.10008.5.1.4.1.1.11.";

export const values = (ds, tag) => (ds && ds[tag] && Array.isArray(ds[tag].Value) ? ds[tag].Value : []);
export const first = (ds, tag) => values(ds, tag)[0];

function number(ds, tag, otherwise) {
  const said = first(ds, tag);
  const read = said === undefined || said === null || said === "" ? NaN : Number(said);
  return Number.isFinite(read) ? read : otherwise;
}

function numbers(ds, tag, count) {
  const read = values(ds, tag).map(Number);
  return read.length >= count && read.every(Number.isFinite) ? read : undefined;
}

export function text(ds, tag) {
  const said = first(ds, tag);
  if (said && typeof said === "object") return String(said.Alphabetic || said.Ideographic || "");
  return said === undefined || said === null ? "" : String(said);
}

/* An attribute of a frame: its own functional group, else the one that all share, else the object itself. */
function grouped(ds, frame, sequence) {
  const own = first(values(ds, "52009230")[frame - 1], sequence);
  return own || first(first(ds, "52009229"), sequence) || ds;
}

const unit = (v) => {
  const size = Math.hypot(...v);
  return size > 0 ? v.map((x) => x / size) : undefined;
};
export const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

function plane(ds, frame) {
  const cosines = numbers(grouped(ds, frame, "00209116"), "00200037", 6);
  const position = numbers(grouped(ds, frame, "00209113"), "00200032", 3);
  const row = cosines && unit(cosines.slice(0, 3));
  const column = cosines && unit(cosines.slice(3, 6));
  if (!row || !column || !position) return { row, column };
  const normal = unit(cross(row, column));
  return normal ? { row, column, position, normal, along: dot(normal, position) } : {};
}

/* Millimetres between pixels: down a column, along a row. [PS3.3 10.7] */
function spacing(ds, frame) {
  const known = [
    [grouped(ds, frame, "00289110"), "00280030", ""],
    [ds, "00181164", "au détecteur"],
    [ds, "00182010", "au scanner de films"],
  ];
  for (const [where, tag, note] of known) {
    const said = numbers(where, tag, 2);
    if (said && said[0] > 0 && said[1] > 0) return { row: said[0], column: said[1], note };
  }
  return ultrasound(ds);
}

/* The one scale of an ultrasound picture: its two-dimensional regions in centimetres must agree. [PS3.3 C.8.5.5] */
function ultrasound(ds) {
  const flat = values(ds, "00186011").filter((it) => number(it, "00186012") === 1 && number(it, "00186024") === 3);
  const scales = flat.map((it) => [Math.abs(number(it, "0018602E", 0)) * 10, Math.abs(number(it, "0018602C", 0)) * 10]);
  const [one] = scales;
  const agree = one && one[0] > 0 && one[1] > 0 && scales.every((it) => Math.abs(it[0] - one[0]) < 1e-6 && Math.abs(it[1] - one[1]) < 1e-6);
  return agree ? { row: one[0], column: one[1], note: "" } : undefined;
}

function windows(ds, frame) {
  const voi = grouped(ds, frame, "00289132");
  const centers = values(voi, "00281050").map(Number);
  const widths = values(voi, "00281051").map(Number);
  const labels = values(voi, "00281055");
  const shape = text(voi, "00281056").toUpperCase();
  const shapes = ["LINEAR", "LINEAR_EXACT", "SIGMOID"];
  return centers
    .map((center, i) => ({ center, width: widths[i], shape: shapes.includes(shape) ? shape : "LINEAR", label: String(labels[i] || "") }))
    .filter((it) => Number.isFinite(it.center) && it.width > 0);
}

function unitOf(ds, transform, modality) {
  const said = text(transform, "00281054").trim();
  if (said === "HU" || (modality === "CT" && !said)) return "UH";
  if (said && said !== "US") return said;
  return text(ds, "00541001") === "BQML" ? "Bq/ml" : "";
}

function picture(ds, frame, base) {
  const transform = grouped(ds, frame, "00289145");
  const voi = grouped(ds, frame, "00289132");
  const bits = number(ds, "00280100", 0);
  const stored = number(ds, "00280101", bits);
  const photometric = text(ds, "00280004").trim().toUpperCase();
  const grey = number(ds, "00280002", 1) === 1 && photometric.startsWith("MONOCHROME");
  const raw = grey && [8, 16, 32].includes(bits) && !values(ds, "00283000").length && !ds["7FE00008"] && !ds["7FE00009"];
  const overlaid = Object.keys(ds).some((tag) => /^60[0-9A-F]{2}0010$/.test(tag));
  const aspect = numbers(ds, "00280034", 2);
  const distance = spacing(ds, frame);
  return {
    ...base,
    ...plane(ds, frame),
    kind: "image",
    frame,
    key: `${base.uid}/${frame}`,
    rows: number(ds, "00280010"),
    columns: number(ds, "00280011"),
    grey,
    measurable: raw,
    // What only the server applies (tables, overlays, packed bits) is drawn by it.
    exact: raw && !overlaid,
    tabled: values(voi, "00283010").length > 0,
    bits,
    stored,
    high: number(ds, "00280102", stored - 1),
    signed: number(ds, "00280103", 0) === 1,
    inverse: photometric === "MONOCHROME1",
    slope: number(transform, "00281053", 1) || 1,
    intercept: number(transform, "00281052", 0),
    padding: number(ds, "00280120"),
    unit: unitOf(ds, transform, base.modality),
    windows: windows(ds, frame),
    spacing: distance,
    ratio: distance ? distance.row / distance.column : aspect && aspect[1] > 0 ? aspect[0] / aspect[1] : 1,
    reference: text(ds, "00200052"),
    facing: values(ds, "00200020").map(String),
    thickness: number(grouped(ds, frame, "00289110"), "00180050"),
  };
}

function described(sopClass) {
  if (DOCUMENTS[sopClass]) return DOCUMENTS[sopClass];
  if (sopClass.startsWith(REPORTS)) return "Compte rendu structuré";
  return sopClass.startsWith(MARKS) ? "État de présentation" : "Objet sans image";
}

/* Frames a second that the object recommends. */
function rate(ds) {
  const time = number(ds, "00181063");
  return number(ds, "00082144") || number(ds, "00180040") || (time > 0 ? 1000 / time : undefined);
}

/* Entries of one object: a frame each, or the document that it is. */
export function entries(ds, root) {
  const uid = text(ds, "00080018");
  const sopClass = text(ds, "00080016");
  const address = `${root}/studies/${text(ds, "0020000D")}/series/${text(ds, "0020000E")}/instances/${uid}`;
  const base = {
    uid,
    address,
    modality: text(ds, "00080060"),
    number: number(ds, "00200013"),
    patient: { name: text(ds, TEXT.name).replace(/\^+/g, " ").trim(), birth: text(ds, TEXT.birth) },
    study: text(ds, "00081030"),
    series: [text(ds, "0008103E"), text(ds, "00200062"), text(ds, "00185101")].filter(Boolean).join(" "),
    lossy: text(ds, "00282110") === "01",
    date: text(ds, "00080022") || text(ds, "00080020"),
    examined: text(ds, "00080020") || text(ds, "00080022"),
  };
  if (!(number(ds, "00280010") > 0 && number(ds, "00280011") > 0)) {
    const title = text(ds, "00420010") || text(first(ds, "0040A043"), "00080104");
    const readable = Boolean(DOCUMENTS[sopClass]) || sopClass.startsWith(REPORTS);
    return [{ ...base, kind: "document", key: uid, frame: 1, sopClass, label: described(sopClass), title, readable }];
  }
  const frames = Math.max(1, Math.min(number(ds, "00280008", 1), 100000));
  const fps = rate(ds);
  return Array.from({ length: frames }, (_, i) => ({ ...picture(ds, i + 1, base), frames, fps }));
}

/* The stack of a series: by position along its normal when all lie in parallel planes at distinct places, in the sense
   of their numbers; else by instance number, as the acquisition numbered them. */
export function stack(instances, root) {
  const all = instances.flatMap((ds) => entries(ds, root));
  const images = all.filter((it) => it.kind === "image");
  const others = all.filter((it) => it.kind !== "image");
  const numbered = images.map((it, i) => [it, it.number ?? i, i]).sort((a, b) => a[1] - b[1] || a[2] - b[2]).map(([it]) => it);
  return [...(located(numbered) ? byPlace(numbered) : numbered), ...others];
}

function located(images) {
  const [one] = images;
  if (images.length < 2 || !one.normal) return false;
  const parallel = images.every((it) => it.normal && it.reference === one.reference && dot(it.normal, one.normal) > 0.999);
  const places = new Set(images.map((it) => Math.round(it.along * 100)));
  return parallel && places.size === images.length;
}

function byPlace(images) {
  const backwards = images[images.length - 1].along < images[0].along;
  return [...images].sort((a, b) => (backwards ? b.along - a.along : a.along - b.along));
}
