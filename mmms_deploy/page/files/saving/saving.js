/**
 * What leaves the page as a file, and comes back in: label PNGs, COCO files, outlines, annotations.
 *
 * Everything here is a pure function of a label map and of names; nothing knows the page or a server. The files are
 * those that `mmms_deploy` writes: `Session.load_labels` takes the label PNG, `Session.restore` the annotation, and the
 * COCO file is what `Session.to_coco` returns for the same masks.
 *
 * - `label_map.js`: the label map and its objects, checked
 * - `traces.js`: the corners of all objects of a label map, found in one pass
 * - `runs.js`: COCO's run lengths
 * - `polygons.js`: outlines with holes
 * - `coco.js`, `outlines_json.js`, `annotation.js`: the JSON files
 * - `png_chunks.js`, `png_rows.js`, `deflate.js`, `label_png.js`: the label PNG
 */

export { annotationJson, readAnnotation } from "./annotation.js";
export { cocoJson } from "./coco.js";
export { labelPng, readLabelPng } from "./label_png.js";
export { polygonsJson } from "./outlines_json.js";
