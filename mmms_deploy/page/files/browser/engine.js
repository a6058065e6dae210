/** Chooses what runs the click stage in this browser, and loads it: WebGPU where it works, else WebAssembly. */

import { Failure, asFailure } from "./failures.js";
import { checkedAnswer, hasLogits } from "./forms.js";
import { MODULES } from "./runtime_names.js";
import { Stage, StageFailure } from "./stage.js";

/** The builds of the runtime: its module, and the WebAssembly behind it. */
const BUILDS = {
  wasm: ["ort.wasm.min", "ort-wasm-simd-threaded"],
  webgpu: ["ort.webgpu.min", "ort-wasm-simd-threaded.asyncify"],
};
/** More threads do not pay for networks of this size. */
const MOST_THREADS = 4;

/**
 * @typedef {{library: string, version: string, device: "wasm"|"webgpu", precision: "fp32", threads: number|null,
 *     reason: string}} EngineInfo
 */

/** Loads stages for one network and one image's features. */
export class EngineChoice {
  #clicks;
  #features;
  #runtimeUrl;
  #threads;
  #files;
  #noWebGpu = "";

  /**
   * @param {any} clicks What the page's model says of the click stage.
   * @param {Map<string, {shape: number[], numbers: Float32Array}>} features
   * @param {{runtimeUrl: string, modelUrl: string, headers?: Record<string, string>, threads?: number}} places
   *     Where onnxruntime-web's files and the model's lie, what requests for the model carry, and how many threads.
   */
  constructor(clicks, features, { runtimeUrl, modelUrl, headers = {}, threads }) {
    this.#clicks = clicks;
    this.#features = features;
    this.#runtimeUrl = runtimeUrl;
    this.#threads = threads ?? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS);
    this.#files = fetchedFiles(clicks, modelUrl, headers);
    // Whoever waits for them sees the error.
    this.#files.catch(() => {});
  }

  /**
   * Load the click stage.
   *
   * @param {"auto"|"wasm"|"webgpu"} device
   * @returns {Promise<{stage: Stage, engine: EngineInfo}>}
   */
  async open(device) {
    if (device !== "wasm") {
      this.#noWebGpu = await noWebGpu(device === "webgpu");
      if (!this.#noWebGpu) {
        try {
          return await this.#onWebGpu();
        } catch (error) {
          this.#noWebGpu = `WebGPU fails (${error.reason ?? asFailure(error).given})`;
        }
      }
    } else {
      this.#noWebGpu = this.#noWebGpu || "WebAssembly was asked for";
    }
    return this.#onWasm();
  }

  /** Take another image's features. @param {Map<string, {shape: number[], numbers: Float32Array}>} features */
  take(features) {
    this.#features = features;
  }

  /**
   * Load the click stage in WebAssembly, after another device failed.
   *
   * @param {string} reason What failed.
   * @returns {Promise<{stage: Stage, engine: EngineInfo}>}
   */
  fallBack(reason) {
    this.#noWebGpu = `WebGPU fails (${reason})`;
    return this.#onWasm();
  }

  async #onWebGpu() {
    const ort = await this.#imported("webgpu");
    const stage = await this.#tried(ort, "webgpu");
    return { stage, engine: described(ort, "webgpu", null, "this browser has WebGPU, and a first click on it worked") };
  }

  async #onWasm() {
    const ort = await this.#imported("wasm");
    const isolated = self.crossOriginIsolated === true;
    const threads = isolated ? this.#threads : 1;
    ort.env.wasm.numThreads = threads;
    const stage = await this.#tried(ort, "wasm");
    // Nothing takes over from WebAssembly.
    this.#files = null;
    this.#features = null;
    const missing = "the page is not cross-origin isolated (its server sends no COOP and COEP)";
    const count = threads === 1 ? `one thread${isolated ? "" : `, because ${missing}`}` : `${threads} threads`;
    return { stage, engine: described(ort, "wasm", threads, `${this.#noWebGpu}; WebAssembly runs with ${count}`) };
  }

  /** Load the click stage and run one click on it: what fails, fails now, and a runtime compiles at its first run. */
  async #tried(ort, device) {
    const clicks = this.#clicks;
    const stage = await Stage.open(ort, device, clicks, await this.#files, this.#features);
    try {
      const [height, width] = clicks.size;
      const state = new Map(clicks.state.map((link) => [link.input, stage.filled(link.input, link.start)]));
      const done = await stage.run(Float32Array.of(width / 2, height / 2, 1, 1), state);
      checkedAnswer(await stage.numbers(done.get(clicks.tensors.answer)), hasLogits(clicks.contract));
      stage.keep(new Set());
      return stage;
    } catch (error) {
      await stage.close();
      throw error;
    }
  }

  async #imported(device) {
    const [module, inner] = BUILDS[device];
    const place = (name) => new URL(name, this.#runtimeUrl).href;
    try {
      const ort = await import(place(module + MODULES));
      ort.env.wasm.wasmPaths = { mjs: place(inner + MODULES), wasm: place(`${inner}.wasm`) };
      ort.env.logLevel = "error";
      return ort;
    } catch (error) {
      throw new StageFailure(device, error);
    }
  }
}

function described(ort, device, threads, reason) {
  return { library: "onnxruntime-web", version: ort.env.versions.web, device, precision: "fp32", threads, reason };
}

/**
 * Return why there is no WebGPU to use; empty where there is one.
 *
 * @param {boolean} software Whether one that is computed by the CPU will do; it is slower than WebAssembly.
 */
async function noWebGpu(software) {
  if (!navigator.gpu) {
    return "this browser has no WebGPU";
  }
  let adapter = null;
  try {
    adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return `WebGPU gives no adapter (${error.message})`;
  }
  if (adapter === null) {
    return "WebGPU gives no adapter";
  }
  const { architecture = "", isFallbackAdapter = false } = adapter.info ?? {};
  const slow = isFallbackAdapter || adapter.isFallbackAdapter === true || architecture === "swiftshader";
  return slow && !software ? "WebGPU has an adapter of software alone, which is slower" : "";
}

async function fetchedFiles(clicks, modelUrl, headers) {
  const fetched = async ({ name }) => {
    const response = await fetch(new URL(name, modelUrl), { headers });
    if (!response.ok) {
      const fix = "click on the server, or load the page again";
      throw new Failure("EngineError", `${name} is answered with ${response.status}`, "the click stage", fix);
    }
    return new Uint8Array(await response.arrayBuffer());
  };
  const [graph, ...data] = await Promise.all([clicks.graph, ...clicks.data].map(fetched));
  return { graph, data: clicks.data.map(({ name }, i) => ({ path: name, data: data[i] })) };
}
