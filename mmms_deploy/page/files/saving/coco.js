import { checkedName, checkMap, checkObjects } from "./label_map.js";
import { polygonsOf } from "./polygons.js";
import { compressed, runsOf } from "./runs.js";
import { tracesOf } from "./traces.js";

/**
 * Write the objects of an image as a COCO file: what `Session.to_coco` returns for the same masks.
 *
 * COCO's polygons know no holes, so an object that has one is written as run lengths in both cases. `clicks` and
 * `surface` are keys of ours; other tools pass over them.
 *
 * @param {object} given
 * @param {Uint16Array} given.labels The label of every pixel, row by row
 * @param {number} given.width
 * @param {number} given.height
 * @param {string} given.fileName Name of the image
 * @param {import("./label_map.js").SavedObject[]} given.objects Its objects; those without a pixel are left out
 * @param {boolean} [given.polygons] Whether masks are polygons, where these are exact
 * @param {boolean} [given.empty] Whether objects without a pixel are there too
 * @param {string} [given.version] Of mmms-deploy, for the file's description
 * @returns {string} JSON
 * @throws {AnswerError} AnnotationError: the label map or an object is none
 */
export function cocoJson({ labels, width, height, fileName, objects, polygons = false, empty = false, version = "" }) {
  const map = { labels, width, height };
  checkMap(map);
  checkObjects(objects);
  if (fileName !== "") checkedName(fileName);
  const traces = tracesOf(map, objects.map(({ label }) => label));
  const categories = new Map();
  const annotations = [];
  for (const { label, name, clicks = [], category = name } of objects) {
    const corners = traces.get(label);
    if (!corners.count && !empty) continue;
    if (!categories.has(category)) categories.set(category, categories.size + 1);
    annotations.push({
      id: annotations.length + 1,
      image_id: 1,
      category_id: categories.get(category),
      bbox: corners.box,
      area: corners.area,
      iscrowd: 0,
      segmentation: segmentationOf(map, label, corners, polygons),
      clicks,
      surface: name,
    });
  }
  const dataset = {
    info: { description: `annotated with mmms-deploy ${version}`.trim() },
    licenses: [],
    images: [{ id: 1, file_name: fileName, height, width }],
    annotations,
    categories: [...categories].map(([name, id]) => ({ supercategory: "", id, name })),
  };
  return `${JSON.stringify(dataset)}\n`;
}

function segmentationOf(map, label, corners, polygons) {
  if (polygons && corners.count) {
    const found = polygonsOf(map, label, corners);
    if (!found.some(({ holes }) => holes.length)) return found.map(({ outer }) => outer.flat());
  }
  return { size: [map.height, map.width], counts: compressed(runsOf(corners, map.width, map.height)) };
}
