// Where pictures and answers come from: a server with its API, or the files of a static export, whose page names the
// file that describes them in its head.

import { Api } from "./api.js";
import { byId } from "./elements.js";
import { Link } from "./link.js";
import { smallPicture } from "./picture_files.js";
import { openStatic } from "./static_source.js";

/**
 * Finds out where this page is and connects to it.
 * @param {import("./state.js").State} state Its model is set.
 * @param {import("./annotating.js").Annotating} annotating
 */
export async function openSource(state, annotating) {
  const file = document.querySelector('meta[name="mmms-deploy-static"]')?.getAttribute("content");
  if (file) return openStatic(state, await (await fetch(file)).json());
  const api = Api.ofPage();
  for (;;) {
    try {
      state.model = await api.model();
      break;
    } catch (error) {
      if (error?.status !== 401) throw error;
      api.token = await askToken();
      // Kept for this tab, where Api.ofPage looks for it.
      sessionStorage.setItem("mmms-token", api.token);
    }
  }
  const link = new Link(state, annotating, api);
  annotating.ongone = (error) => link.gone(error);
  return new ServerSource(state, api, link);
}

/** Asks for the token of the server's address. @returns {Promise<string>} */
function askToken() {
  const dialog = byId("token");
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(byId("token-value").value), { once: true }),
  );
}

/** A server. */
class ServerSource {
  constructor(state, api, link) {
    Object.assign(this, { state, api, link });
  }

  /** @returns {Promise<import("./state.js").Entry[]>} */
  async entries() {
    return (await this.api.images()).map((one) => ({ kind: /** @type {const} */ ("server"), ...one }));
  }

  open(entry, progress) {
    this.link.later = {};
    return this.link.send(entry, progress);
  }

  layer(name) {
    return this.link.about((session) => this.api.layer(session, name));
  }

  thumbnail(entry) {
    return entry.kind === "server" ? this.api.thumbnail(entry.id) : smallPicture(entry.image);
  }

  /** @returns {Promise<string[]>} Names of the files. */
  save(entry) {
    return this.link.about((session) => this.api.save(entry.id, session));
  }

  /** Whether clicks can run in this browser. @returns {Promise<{available: boolean, why: string, model: any}>} */
  async offer() {
    this.offered ??= this.api.browser();
    return this.offered;
  }

  async openBrowser() {
    const [{ model }, { BrowserAnswers }] = await Promise.all([this.offer(), import("./browser/browser_answers.js")]);
    const features = await this.link.about((session) => this.api.features(session));
    const { headers } = this.api;
    return BrowserAnswers.open({ model, features, runtimeUrl: "runtime/", modelUrl: "api/v1/browser/model/", headers });
  }
}
