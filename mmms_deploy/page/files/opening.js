// Files of the user: dropped, pasted or chosen; one or many, with modalities beside them.

import { byId, make } from "./elements.js";

/** Words in a file's name that say it is the picture itself. */
const PICTURE_WORDS = ["rgb", "image", "img", "color", "colour", "visible", "vis"];
/** Other words for modalities, by what their names may be. */
const WORDS = {
  thermal: ["ir", "infrared", "heat", "tir", "lwir"],
  depth: ["disparity", "range"],
  lidar: ["points"],
  event: ["events", "dvs"],
};

const stemOf = (name) => name.replace(/\.[^.]*$/, "");
const wordsOf = (name) =>
  stemOf(name)
    .toLowerCase()
    .split(/[\s_.-]+/)
    .filter(Boolean);

/**
 * Suggests which files belong together, by their names: "street_thermal.png" is the modality thermal of "street.jpg".
 * @param {File[]} files
 * @param {string[]} modalities That the network takes.
 * @returns {{image: File, modalities: Object<string, File>}[]}
 */
export function suggest(files, modalities) {
  const known = modalities.map(
    (name) => /** @type {const} */ ([name, new Set([name.toLowerCase(), ...(WORDS[name.toLowerCase()] ?? [])])]),
  );
  const told = files.map((file) => {
    const words = wordsOf(file.name);
    const modality = known.find(([, names]) => words.some((word) => names.has(word)))?.[0] ?? null;
    const ignored = new Set([
      ...PICTURE_WORDS,
      ...(modality ? (known.find(([name]) => name === modality)?.[1] ?? []) : []),
    ]);
    return { file, modality, stem: words.filter((word) => !ignored.has(word)).join("_") };
  });
  const pictures = told.filter((one) => one.modality === null);
  if (pictures.length === 0) return [{ image: files[0], modalities: {} }];
  return pictures.map((picture) => {
    const mine = told.filter((one) => one.modality !== null && (one.stem === picture.stem || pictures.length === 1));
    return { image: picture.file, modalities: Object.fromEntries(mine.map((one) => [one.modality, one.file])) };
  });
}

/**
 * Asks which file is what; answers with what the user says, or null where they cancel.
 * @param {File[]} files
 * @param {{name: string, optional: boolean}[]} modalities
 * @returns {Promise<{image: File, modalities: Object<string, File>}[] | null>}
 */
export function ask(files, modalities) {
  const groups = suggest(
    files,
    modalities.map((one) => one.name),
  );
  const choice = (chosen, label, none) =>
    make("select", { "aria-label": label }, [
      ...(none ? [make("option", { value: "", text: none })] : []),
      ...files.map((file, place) =>
        make("option", { value: String(place), text: file.name, selected: file === chosen }),
      ),
    ]);
  const rows = groups.map((group, place) => ({
    image: choice(group.image, `Picture ${place + 1}`, null),
    modalities: modalities.map((one) =>
      choice(group.modalities[one.name], `${one.name} of picture ${place + 1}`, one.optional ? "None" : "Missing"),
    ),
  }));
  const head = make("tr", {}, [
    make("th", { scope: "col", text: "Picture" }),
    ...modalities.map((one) => make("th", { scope: "col", text: one.name })),
  ]);
  const cells = (row) => [row.image, ...row.modalities].map((control) => make("td", {}, [control]));
  byId("assign-table").replaceChildren(
    make("thead", {}, [head]),
    make(
      "tbody",
      {},
      rows.map((row) => make("tr", {}, cells(row))),
    ),
  );
  const dialog = byId("assign");
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue !== "open") return resolve(null);
        const given = (row) =>
          modalities.map((one, place) => [one.name, row.modalities[place].value]).filter(([, value]) => value !== "");
        return resolve(
          rows.map((row) => ({
            image: files[Number(row.image.value)],
            modalities: Object.fromEntries(given(row).map(([name, value]) => [name, files[Number(value)]])),
          })),
        );
      },
      { once: true },
    ),
  );
}

/**
 * Connects dropping, pasting and choosing of files.
 * @param {(files: File[]) => void} opened
 * @returns {() => void} What opens the system's dialog.
 */
export function connectOpening(opened) {
  const input = byId("file-input");
  const choose = () => input.click();
  byId("open").addEventListener("click", choose);
  byId("open-first").addEventListener("click", choose);
  input.addEventListener("change", () => {
    const files = [...input.files];
    // The same file may be chosen again.
    input.value = "";
    if (files.length > 0) opened(files);
  });
  let depth = 0;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (by) => (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = Math.max(0, depth + by);
    byId("drop").hidden = depth === 0;
  };
  window.addEventListener("dragenter", over(1));
  window.addEventListener("dragleave", over(-1));
  window.addEventListener("dragover", over(0));
  window.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    byId("drop").hidden = true;
    const files = [...event.dataTransfer.files];
    if (files.length > 0) opened(files);
  });
  window.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    opened(files);
  });
  return choose;
}
