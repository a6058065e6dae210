import { checkedName, checkMap, checkObjects } from "./label_map.js";
import { polygonsOf } from "./polygons.js";
import { tracesOf } from "./traces.js";

/**
 * Write the outlines of the objects of an image.
 *
 *     {"format": "mmms-deploy-polygons", "version": 1, "file_name": "a.jpg", "size": [H, W],
 *      "objects": [{"name": "dog", "label": 2, "clicks": [[x, y, 1 or 0], ...], "area": 1234, "bbox": [x, y, w, h],
 *                   "polygons": [{"outer": [[x, y], ...], "holes": [[[x, y], ...], ...]}, ...]}, ...]}
 *
 * An object's `clicks`, `area`, `bbox` and `polygons` are those of `result.to_dict(mask="polygons")` in Python: the
 * largest polygon first, in pixel edges (the pixel in column x and row y covers [x, x + 1] by [y, y + 1]), outer rings
 * clockwise as seen on the screen, holes the other way, no corner twice. They cover exactly the mask.
 *
 * @param {object} given
 * @param {Uint16Array} given.labels The label of every pixel, row by row
 * @param {number} given.width
 * @param {number} given.height
 * @param {string} given.fileName Name of the image
 * @param {import("./label_map.js").SavedObject[]} given.objects Its objects; one without a pixel has no polygons
 * @returns {string} JSON
 * @throws {AnswerError} AnnotationError: the label map or an object is none
 */
export function polygonsJson({ labels, width, height, fileName, objects }) {
  const map = { labels, width, height };
  checkMap(map);
  checkObjects(objects);
  if (fileName !== "") checkedName(fileName);
  const traces = tracesOf(map, objects.map(({ label }) => label));
  const described = objects.map(({ label, name, clicks = [] }) => {
    const corners = traces.get(label);
    const polygons = polygonsOf(map, label, corners);
    return { name, label, clicks, area: corners.area, bbox: corners.box, polygons };
  });
  const document = {
    format: "mmms-deploy-polygons",
    version: 1,
    file_name: fileName,
    size: [height, width],
    objects: described,
  };
  return `${JSON.stringify(document)}\n`;
}
