/** The click stage in onnxruntime-web. Its state stays in the runtime; with WebGPU, on the GPU. */

import { Failure } from "./failures.js";

/** An error of the runtime itself, after which another device may take over. */
export class StageFailure extends Failure {
  /** @param {string} device @param {unknown} error */
  constructor(device, error) {
    const text = error instanceof Error ? error.message : String(error);
    super("EngineError", `the click stage fails on ${device} in the browser: ${text}`, "", "click on the server");
    this.reason = text;
  }
}

/** Runs the click stage on one image's features. */
export class Stage {
  #ort;
  #session;
  #clicks;
  #features = {};
  #inputs;
  #fetches;
  /** Tensors on the GPU that runs gave. */
  #live = new Set();

  /**
   * Load the click stage.
   *
   * @param {any} ort The module of onnxruntime-web.
   * @param {"wasm"|"webgpu"} device
   * @param {any} clicks What the page's model says of the click stage.
   * @param {{graph: Uint8Array, data: {path: string, data: Uint8Array}[]}} files
   * @param {Map<string, {shape: number[], numbers: Float32Array}>} features
   * @returns {Promise<Stage>}
   */
  static async open(ort, device, clicks, files, features) {
    const resident = clicks.state.map((link) => [link.output, "gpu-buffer"]);
    const options = {
      executionProviders: [device],
      graphOptimizationLevel: "all",
      externalData: files.data,
      logSeverityLevel: 3,
      ...(device === "webgpu" ? { preferredOutputLocation: Object.fromEntries(resident) } : {}),
    };
    try {
      const session = await ort.InferenceSession.create(files.graph, options);
      return new Stage(ort, device, session, clicks, features);
    } catch (error) {
      throw new StageFailure(device, error);
    }
  }

  constructor(ort, device, session, clicks, features) {
    this.device = device;
    this.#ort = ort;
    this.#session = session;
    this.#clicks = clicks;
    this.#inputs = new Map(clicks.inputs.map((spec) => [spec.name, spec]));
    const { answer, candidates } = clicks.tensors;
    this.#fetches = [...new Set([answer, ...(candidates ?? []), ...clicks.state.map((link) => link.output)])];
    this.take(features);
  }

  /**
   * Take an image's features in the place of another's, and free all tensors of that one.
   *
   * @param {Map<string, {shape: number[], numbers: Float32Array}>} features
   */
  take(features) {
    this.keep(new Set());
    Object.values(this.#features).forEach((tensor) => tensor.dispose());
    this.#features = {};
    for (const name of this.#clicks.features) {
      const { shape, numbers } = features.get(name);
      this.#features[name] = this.device === "webgpu" ? this.#onGpu(numbers, shape) : this.upload(name, numbers);
    }
  }

  /** Copy numbers to the GPU once. */
  #onGpu(numbers, dims) {
    const { device } = this.#ort.env.webgpu;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = device.createBuffer({ size: Math.ceil(numbers.byteLength / 16) * 16, usage });
    device.queue.writeBuffer(buffer, 0, numbers);
    return this.#ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims, dispose: () => buffer.destroy() });
  }

  /** Return an input that has one number everywhere. @param {string} name @param {number} number */
  filled(name, number) {
    const { dtype, shape } = this.#inputs.get(name);
    const length = shape.reduce((product, side) => product * side, 1);
    return this.upload(name, (dtype === "uint8" ? new Uint8Array(length) : new Float32Array(length)).fill(number));
  }

  /** Return an input with these numbers. @param {string} name @param {Float32Array|Uint8Array} numbers */
  upload(name, numbers) {
    const { dtype, shape } = this.#inputs.get(name);
    return new this.#ort.Tensor(dtype, numbers, shape);
  }

  /**
   * Answer one more click.
   *
   * @param {Float32Array} row The click, (1, 4).
   * @param {Map<string, any>} state Tensors by the name of their input.
   * @returns {Promise<Map<string, any>>} Tensors by the name of their output.
   */
  async run(row, state) {
    const { click } = this.#clicks.tensors;
    const feeds = { ...this.#features, ...Object.fromEntries(state), [click]: this.upload(click, row) };
    try {
      const outputs = new Map(Object.entries(await this.#session.run(feeds, this.#fetches)));
      outputs.forEach((tensor) => {
        if (tensor.location !== "cpu") {
          this.#live.add(tensor);
        }
      });
      return outputs;
    } catch (error) {
      throw new StageFailure(this.device, error);
    }
  }

  /** Return a tensor's numbers. @param {any} tensor @returns {Promise<Float32Array>} */
  async numbers(tensor) {
    try {
      return tensor.location === "cpu" ? tensor.data : await tensor.getData();
    } catch (error) {
      throw new StageFailure(this.device, error);
    }
  }

  /** Free all tensors that runs gave but these. @param {Set<any>} kept */
  keep(kept) {
    for (const tensor of this.#live) {
      if (!kept.has(tensor)) {
        tensor.dispose();
        this.#live.delete(tensor);
      }
    }
  }

  /** Free everything; a device that is lost already is no error. */
  async close() {
    try {
      this.keep(new Set());
      Object.values(this.#features).forEach((tensor) => tensor.dispose());
      await this.#session.release();
    } catch {
      // What is lost needs no freeing.
    }
  }
}
