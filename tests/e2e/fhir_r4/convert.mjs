// A converter between FHIR XML and JSON that nobody here wrote (npm `fhir`): reads {xml: [...], json: [...]}, answers one
// line of JSON, {json: [...], xml: [...]}: each text in the other form, or {error}.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.argv[2] + "/");
const { Fhir } = require("fhir");

const converter = new Fhir();
const attempt = (work) => (text) => {
  try {
    return work(text);
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
};
const { xml, json } = JSON.parse(readFileSync(0, "utf8"));
const told = {
  json: xml.map(attempt((text) => converter.xmlToJson(text))),
  xml: json.map(attempt((text) => converter.jsonToXml(text))),
};
process.stdout.write(JSON.stringify(told) + "\n");
