/** The names of onnxruntime-web's files. A static export has its own copy of this module. */

/** What the names of its modules end in: npm's ending, which not every web server knows as JavaScript. */
export const MODULES = ".mjs";
