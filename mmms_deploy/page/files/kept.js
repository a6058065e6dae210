// What this browser keeps: settings, and the annotation of every picture, so that a reload or a lost server costs
// nothing. Where the storage is full or not allowed, the page works without it.

const PREFIX = "mmms-demo:";
const ANNOTATION = `${PREFIX}annotation:`;
/** How many pictures' annotations are kept; the oldest go first. */
const MOST = 60;

/** @param {string} name @param {any} value Any JSON. */
export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Full, or not allowed.
  }
}

/** @param {string} name @returns {any} What was remembered, or null. */
export function recall(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? "null");
  } catch {
    return null;
  }
}

/** Whether an annotation has anything in it. @param {any} annotation */
export const hasWork = (annotation) => Boolean(annotation?.surfaces?.some((one) => one.interactions?.length > 0));

/** What a picture's annotation is kept under: its name and its size. */
export const pictureKey = (name, width, height, bytes) => `${name}:${width}x${height}:${bytes ?? ""}`;

/**
 * Keeps a picture's annotation.
 * @param {string} key Of pictureKey.
 * @param {object} annotation
 * @param {boolean} saved Whether a file or the server has it too.
 * @returns {boolean} Whether there was room.
 */
export function keepAnnotation(key, annotation, saved) {
  const entry = JSON.stringify({ time: Date.now(), saved, annotation });
  for (let tries = 0; tries < MOST; tries += 1) {
    try {
      localStorage.setItem(ANNOTATION + key, entry);
      dropOldest(MOST);
      return true;
    } catch {
      if (!dropOldest(keptKeys().length - 1)) return false;
    }
  }
  return false;
}

/** @param {string} key @returns {{time: number, saved: boolean, annotation: any} | null} */
export function keptAnnotation(key) {
  return recall(ANNOTATION.slice(PREFIX.length) + key);
}

/** @param {string} key */
export function forgetAnnotation(key) {
  try {
    localStorage.removeItem(ANNOTATION + key);
  } catch {
    // Not allowed: there is nothing then.
  }
}

function keptKeys() {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(ANNOTATION));
  } catch {
    return [];
  }
}

/** Drops the oldest annotations until so many are left; says whether it dropped any. */
function dropOldest(left) {
  const names = keptKeys();
  if (names.length <= Math.max(0, left)) return false;
  const time = (name) => recall(name.slice(PREFIX.length))?.time ?? 0;
  const byAge = names.map((name) => /** @type {const} */ ([time(name), name])).sort((a, b) => a[0] - b[0]);
  for (const [, name] of byAge.slice(0, names.length - Math.max(0, left))) localStorage.removeItem(name);
  return true;
}
