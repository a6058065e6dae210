/**
 * A client of the HTTP API.
 */

import { AnswerError, lostError } from "./answers.js";

const KEPT = "mmms-token";

/** The API of a server, and the token that it asks for. */
export class Api {
  /**
   * @param {string} [base] Address of the API.
   * @param {?string} [token]
   */
  constructor(base = "/api/v1", token = null) {
    this.base = new URL(base.replace(/\/$/, ""), globalThis.location?.href).href;
    this.token = token;
  }

  /**
   * Open the API of the server that gave the page. A token in the page's address (#token=...) is kept for this tab, and
   * taken out of the address, so that it is not shared with it.
   * @param {string} [base] Address of the API.
   */
  static ofPage(base = "/api/v1") {
    const fields = new URLSearchParams(location.hash.slice(1));
    const given = fields.get("token");
    if (given) {
      sessionStorage.setItem(KEPT, given);
      fields.delete("token");
      const rest = fields.toString();
      history.replaceState(history.state, "", location.pathname + location.search + (rest && `#${rest}`));
    }
    return new Api(base, sessionStorage.getItem(KEPT));
  }

  /** Headers that every request has. */
  get headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /**
   * Send a request.
   * @param {string} method
   * @param {string} path Below the API's address, without a slash at its beginning.
   * @param {{json?: object, body?: BodyInit, signal?: AbortSignal}} [options]
   * @returns {Promise<Response>} An answer that is no error.
   */
  async send(method, path, { json, body, signal } = {}) {
    const headers = { ...this.headers, ...(json === undefined ? {} : { "Content-Type": "application/json" }) };
    const content = json === undefined ? body : JSON.stringify(json);
    let answer;
    try {
      answer = await fetch(`${this.base}/${path}`, { method, headers, body: content, signal, cache: "no-cache" });
    } catch (error) {
      throw error.name === "AbortError" ? error : lostError();
    }
    if (!answer.ok) {
      throw errorOf(answer.status, await answer.text());
    }
    return answer;
  }

  /** @returns {Promise<any>} The JSON of an answer. */
  async json(method, path, options) {
    return read(await this.send(method, path, options), "json");
  }

  /** @returns {Promise<ArrayBuffer>} The bytes at an address. */
  async bytes(path, options) {
    return read(await this.send("GET", path, options), "arrayBuffer");
  }

  /** @returns {Promise<Blob>} The file at an address. */
  async blob(path, options) {
    return read(await this.send("GET", path, options), "blob");
  }

  model() {
    return this.json("GET", "model");
  }

  browser() {
    return this.json("GET", "browser");
  }

  images() {
    return this.json("GET", "images");
  }

  /** @param {number} id */
  thumbnail(id) {
    return this.blob(`images/${id}/thumbnail`);
  }

  /** @returns {Promise<string>} The name of a new session. */
  async openSession() {
    return (await this.json("POST", "sessions")).session;
  }

  /** @param {string} session */
  async closeSession(session) {
    await this.send("DELETE", place(session));
  }

  /**
   * Close a session while the page is closed: the browser sends this even then.
   * @param {string} session
   */
  leaveSession(session) {
    const options = { method: "DELETE", headers: this.headers, keepalive: true };
    fetch(`${this.base}/${place(session)}`, options).catch(() => {});
  }

  /**
   * Set one of the server's pictures.
   * @param {string} session
   * @param {number} image
   */
  openImage(session, image) {
    return this.json("POST", place(session, "open"), { json: { image } });
  }

  /**
   * Set an image from files.
   * @param {string} session
   * @param {Object<string, File>} files The image, and modalities by name.
   * @param {{later?: string[], onprogress?: (share: number) => void, signal?: AbortSignal}} [options]
   */
  putImage(session, files, { later = [], ...options } = {}) {
    const query = later.length ? `?later=${later.map(encodeURIComponent).join(",")}` : "";
    return this.upload(place(session, `image${query}`), files, options);
  }

  /**
   * Set modalities of the image that is there.
   * @param {string} session
   * @param {Object<string, File>} files Modalities by name.
   */
  putModalities(session, files, options) {
    return this.upload(place(session, "modalities"), files, options);
  }

  /**
   * Send files as a form, and say how far it is.
   * @param {string} path
   * @param {Object<string, File>} files By field.
   * @param {{onprogress?: (share: number) => void, signal?: AbortSignal}} [options]
   * @returns {Promise<any>} The JSON of the answer.
   */
  upload(path, files, { onprogress, signal } = {}) {
    const form = new FormData();
    for (const [field, file] of Object.entries(files)) {
      form.append(field, file, file.name || field);
    }
    // fetch does not say how far an upload is.
    const request = new XMLHttpRequest();
    return new Promise((resolve, reject) => {
      request.open("PUT", `${this.base}/${path}`);
      for (const [name, value] of Object.entries(this.headers)) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => event.lengthComputable && onprogress?.(event.loaded / event.total);
      request.onload = () => {
        if (request.status < 200 || request.status > 299) {
          reject(errorOf(request.status, request.responseText));
          return;
        }
        try {
          resolve(JSON.parse(request.responseText));
        } catch {
          reject(lostError("the server's answer was cut off"));
        }
      };
      request.onerror = () => reject(lostError());
      request.onabort = () => reject(new DOMException("the upload was stopped", "AbortError"));
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      if (signal?.aborted) {
        reject(new DOMException("the upload was stopped", "AbortError"));
        return;
      }
      request.send(form);
    });
  }

  /**
   * @param {string} session
   * @param {string} name "image" or a modality's.
   * @returns {Promise<Blob>} PNG.
   */
  layer(session, name) {
    return this.blob(place(session, `layers/${encodeURIComponent(name)}`));
  }

  /** @param {string} session */
  annotation(session) {
    return this.json("GET", place(session, "annotation"));
  }

  /**
   * @param {string} session
   * @returns {Promise<Blob>} PNG with a palette, and the names of the objects in it.
   */
  labelsPng(session) {
    return this.blob(place(session, "labels.png"));
  }

  /**
   * @param {string} session
   * @param {boolean} [polygons] Whether masks are polygons.
   */
  coco(session, polygons = false) {
    return this.json("GET", place(session, `coco.json?polygons=${polygons}`));
  }

  /**
   * @param {string} session
   * @returns {Promise<ArrayBuffer>} The frame of features.bin.
   */
  features(session) {
    return this.bytes(place(session, "features"));
  }

  /**
   * Put a label map in the place of all objects.
   * @param {string} session
   * @param {BodyInit} content A PNG file.
   */
  putLabels(session, content) {
    return this.json("PUT", place(session, "labels?mask=none"), { body: content });
  }

  /**
   * Save the annotation in the server's folder.
   * @param {number} image
   * @param {string} session
   * @returns {Promise<string[]>} The names of the files.
   */
  async save(image, session) {
    const path = `images/${image}/annotation?session=${encodeURIComponent(session)}`;
    return (await this.json("PUT", path)).files;
  }

  /**
   * Open a session's live socket.
   * @param {string} session
   * @returns {WebSocket} It gives array buffers.
   */
  socket(session) {
    const address = new URL(`${this.base}/${place(session, "live")}`);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const protocols = ["mmms-deploy", ...(this.token ? [`bearer.${this.token}`] : [])];
    const socket = new WebSocket(address, protocols);
    socket.binaryType = "arraybuffer";
    return socket;
  }
}

function place(session, rest = "") {
  return `sessions/${encodeURIComponent(session)}${rest && `/${rest}`}`;
}

async function read(answer, form) {
  try {
    return await answer[form]();
  } catch (error) {
    throw error.name === "AbortError" ? error : lostError("the server's answer was cut off");
  }
}

function errorOf(status, text) {
  try {
    return new AnswerError(JSON.parse(text).error, status);
  } catch {
    // Something between the page and the server answered.
    return new AnswerError({ kind: "HttpError", given: `the server answers with the status ${status}` }, status);
  }
}
