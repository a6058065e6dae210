/**
 * The worker in which clicks are answered: it owns onnxruntime-web's session and the objects of one image.
 *
 * The page sends `{id, call, args}` and gets `{id, result, engine}` or `{id, error}`, in the order of its calls.
 */

import { EngineChoice } from "./engine.js";
import { Failure, asFailure } from "./failures.js";
import { readFeatures } from "./features.js";
import { LocalSession } from "./local_session.js";
import { StageFailure } from "./stage.js";

/** What the page may call. */
const CALLS = new Set([
  ...["click", "undo", "redo", "reset", "select", "remove", "rename", "choose", "restore", "state", "setLabels"],
  ...["annotation", "probability", "candidates"],
]);

let choice = null;
let stage = null;
let engine = null;
let session = null;
/** What the stage was loaded for; another image of the same network takes it over. */
let loaded = "";
/** The call that is made last; the next one waits for it. */
let last = Promise.resolve();

self.onmessage = ({ data }) => {
  last = last.then(() => answered(data));
};

async function answered({ id, call, args }) {
  try {
    const result = call === "open" ? await opened(args[0]) : await called(call, args);
    self.postMessage({ id, result, engine }, buffersOf(result));
  } catch (error) {
    self.postMessage({ id, error: asFailure(error).toJSON() });
  }
}

async function opened({ model, features, size, device, ...places }) {
  const { imageSize, tensors } = readFeatures(features);
  if (size !== undefined && (size[0] !== imageSize[0] || size[1] !== imageSize[1])) {
    const given = `the features are of an image of ${imageSize[0]} rows and ${imageSize[1]} columns`;
    throw new Failure("FeatureError", given, `${size[0]} rows and ${size[1]} columns`, "open the image again");
  }
  session = null;
  const kind = JSON.stringify([model, device, places]);
  if (kind === loaded) {
    choice.take(tensors);
    stage.take(tensors);
  } else {
    loaded = "";
    choice = new EngineChoice(model.clicks, tensors, places);
    ({ stage, engine } = await choice.open(device));
    loaded = kind;
  }
  session = new LocalSession(model.clicks, imageSize, stage);
  return null;
}

async function called(call, args) {
  if (!CALLS.has(call) || session === null) {
    throw new Failure("SessionError", `${call} was called`, `one of ${[...CALLS].join(", ")}`, "open the image first");
  }
  try {
    return await session[call](...args);
  } catch (error) {
    if (!(error instanceof StageFailure) || stage.device === "wasm") {
      throw error;
    }
    await fallBack(error.reason);
    return session[call](...args);
  }
}

/** Go on in WebAssembly: the clicks so far are answered again there. */
async function fallBack(reason) {
  const failed = stage;
  ({ stage, engine } = await choice.fallBack(reason));
  await session.moveTo(stage);
  await failed.close();
}

/** Return what can be handed over without a copy. */
function buffersOf(result) {
  return [result?.labels, result?.data].filter(ArrayBuffer.isView).map((array) => array.buffer);
}
