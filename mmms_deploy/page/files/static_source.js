// A static export: one picture, its features and the click stage, as files beside the page. There is no server.
//
// ``static.json`` is described in mmms_deploy/page/static.py, which writes it.

/**
 * @param {import("./state.js").State} state Its model is set.
 * @param {any} description What static.json has.
 */
export function openStatic(state, description) {
  state.model = { ...description.model, saves: false };
  return new StaticSource(description);
}

const fetched = async (file) => {
  const answer = await fetch(file);
  if (!answer.ok)
    throw Object.assign(new Error(`${file} is missing in this folder.`), {
      given: `${file} is missing in this folder.`,
      fix: "Export it again with mmms-demo --static.",
    });
  return answer;
};

/** The files of a static export. */
class StaticSource {
  constructor(description) {
    this.description = description;
    this.link = null;
  }

  async entries() {
    return [{ kind: /** @type {const} */ ("server"), id: 0, name: this.description.picture.name, annotated: false }];
  }

  async open(entry, progress) {
    progress("Fetching the picture…", null);
    const { name, size, layers } = this.description.picture;
    return { name, size, layers: Object.keys(layers), milliseconds: null, annotation: null };
  }

  async layer(name) {
    return (await fetched(this.description.picture.layers[name])).blob();
  }

  thumbnail() {
    return this.layer("image");
  }

  async offer() {
    return { available: true, why: "", model: this.description.browser };
  }

  async openBrowser() {
    const { browser, features, files, runtime } = this.description;
    const [{ BrowserAnswers }, numbers] = await Promise.all([
      import("./browser/browser_answers.js"),
      fetched(features).then((answer) => answer.arrayBuffer()),
    ]);
    return BrowserAnswers.open({ model: browser, features: numbers, runtimeUrl: runtime, modelUrl: files });
  }
}
