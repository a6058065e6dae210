"""The page's client of the API in Chromium: what it answers, and what it says when the server is gone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.engines import Engine
from mmms_deploy.server import Settings
from tests.support.server import Client, Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

FILE = "answers.js"
"""Any file of the server: in it, modules run as in its page, by the same rules."""

HELPERS = """
async (given) => {
  const { Api } = await import("/api.js");
  const { ServerAnswers } = await import("/server_answers.js");
  const bytes = Uint8Array.from(atob(given.picture), (one) => one.charCodeAt(0));
  const file = new File([bytes], "disk.png", { type: "image/png" });
  window.tools = { Api, ServerAnswers, file, api: Api.ofPage(), lost: [] };
  window.kept = { labels: null, put(answer, width) {
    const { changed, labels } = answer;
    this.labels ??= new Int32Array(160 * 90).fill(-1);
    for (let row = 0; changed && row < changed.height; row++) {
      for (let column = 0; column < changed.width; column++) {
        this.labels[(changed.y + row) * 160 + changed.x + column] = labels[row * changed.width + column];
      }
    }
  } };
}
"""

OPEN = """
const { api, file, ServerAnswers } = window.tools;
const shares = [];
const session = await api.openSession();
const opened = await api.putImage(session, { image: file }, { onprogress: (share) => shares.push(share) });
const answers = await ServerAnswers.open(api, session);
answers.onlost = (reason) => window.tools.lost.push(reason.kind);
Object.assign(window.tools, { session, answers });
"""


def page_of(chromium: Browser | BrowserContext, running: Running, upload: bytes) -> Page:
    page = chromium.new_page()
    place, _, rest = running.url.partition("#")
    page.goto(f"{place}{FILE}#{rest}")
    page.evaluate(HELPERS, {"picture": base64.b64encode(upload).decode()})
    return page


def run(page: Page, code: str) -> Any:
    return page.evaluate(f"async () => {{ {code} }}")


@pytest.fixture
def page(chromium: Browser, running: Running, upload: bytes) -> Iterator[Page]:
    page = page_of(chromium, running, upload)
    yield page
    page.close()


def test_calls_are_answered_as_by_a_session(page: Page, reference: Session) -> None:
    found = run(
        page,
        OPEN
        + """
        const seen = [
          await answers.click(60, 45, true), await answers.click(120.5, 20, false), await answers.undo(),
          await answers.redo(), await answers.select("2"), await answers.click(140, 80),
          await answers.rename("2", "car"),
        ];
        seen.forEach((answer) => window.kept.put(answer));
        const map = await answers.probability();
        return { opened, shares, where: answers.where, engine: answers.engine, last: { ...seen.at(-1), labels: 0 },
          labels: [...window.kept.labels], annotation: await answers.annotation(), size: map.size, map: [...map.data],
          kinds: seen.map((answer) => answer.labels.constructor.name) };""",
    )
    reference.click(60, 45)
    reference.click(120.5, 20, False)
    reference.select("2")
    result = reference.click(140, 80)
    reference.rename("2", "car")
    assert (np.array(found["labels"]).reshape(90, 160) == reference.labels).all()
    assert found["last"]["surface"] == "car"
    assert found["annotation"]["surfaces"][1]["name"] == "car"
    assert set(found["kinds"]) == {"Uint16Array"}
    assert (found["opened"]["name"], found["shares"][-1], found["where"]) == ("disk.png", 1, "server")
    assert found["engine"]["library"] == reference.engine.library
    assert (np.array(found["map"]).reshape(found["size"]) == np.rint(255 * result.network_probability)).all()


def test_calls_at_once_are_answered_in_their_order(page: Page) -> None:
    counts = run(
        page,
        OPEN
        + """
        const order = [];
        const calls = [20, 40, 60, 80].map((x) => answers.click(x, 45).then((answer) => {
          order.push(x); return answer.surfaces[0].clicks.length; }));
        return [await Promise.all(calls), order];""",
    )
    assert counts == [[1, 2, 3, 4], [20, 40, 60, 80]]


def test_errors_have_their_parts(page: Page) -> None:
    found = run(
        page,
        OPEN
        + """
        const caught = async (call) => { try { await call; } catch (error) { return error; } };
        const one = await caught(answers.click(5000, 1));
        const other = await caught(api.openImage(session, 7));
        const third = await caught(api.putImage(session, { image: new File(["no"], "a.png") }));
        return [one, other, third].map((e) => [e.name, e.kind, e.status, Boolean(e.given && e.fix && e.message)]);""",
    )
    assert found == [
        ["AnswerError", "ClickError", 0, True],
        ["AnswerError", "UnknownImageError", 404, True],
        ["AnswerError", "ImageError", 400, True],
    ]


def test_a_socket_that_breaks_is_opened_again(page: Page, running: Running) -> None:
    """The click in between waits, the label map is whole again, and no loss is told."""
    found = run(
        page,
        """
        const sockets = [];
        window.WebSocket = class extends WebSocket { constructor(...given) { super(...given); sockets.push(this); } };
        """
        + OPEN
        + """
        await answers.click(60, 45);
        sockets[0].close();
        await new Promise((resolve) => setTimeout(resolve, 30));
        const answer = await answers.click(70, 45);
        return [sockets.length, answer.surfaces[0].clicks.length, answer.changed, window.tools.lost];""",
    )
    assert found == [2, 2, {"x": 0, "y": 0, "width": 160, "height": 90}, []]


def test_a_session_that_was_freed_is_told(page: Page) -> None:
    found = run(
        page,
        OPEN
        + """
        await api.closeSession(session);
        const kinds = [];
        for (let time = 0; time < 2; time++) {
          await answers.click(60, 45).catch((error) => kinds.push(error.kind));
          await new Promise((resolve) => setTimeout(resolve, 200));
        }
        return [kinds, window.tools.lost];""",
    )
    assert found == [["UnknownSessionError", "UnknownSessionError"], ["UnknownSessionError"]]


def test_a_server_that_is_gone_is_told(chromium: Browser, small_engine: Engine, upload: bytes) -> None:
    with running_server(small_engine) as running:
        page = page_of(chromium, running, upload)
        run(page, OPEN + "await answers.click(60, 45);")
    found = run(
        page,
        """
        const { answers, api, lost } = window.tools;
        const kinds = [];
        await answers.click(60, 45).catch((error) => kinds.push(error.kind));
        await answers.undo().catch((error) => kinds.push(error.kind));
        await api.model().catch((error) => kinds.push(error.kind));
        await api.putImage("x", { image: window.tools.file }).catch((error) => kinds.push(error.kind));
        return [kinds, lost];""",
    )
    page.close()
    assert found == [["LostError"] * 4, ["LostError"]]


def test_closing_is_no_loss(page: Page) -> None:
    found = run(
        page,
        OPEN
        + """
        const kinds = [];
        const call = answers.click(60, 45).catch((error) => kinds.push(error.kind));
        answers.close();
        await call;
        await answers.state().catch((error) => kinds.push(error.kind));
        return [kinds, window.tools.lost];""",
    )
    assert found == [["LostError", "LostError"], []]


def test_the_token_leaves_the_address(chromium: Browser, small_engine: Engine, upload: bytes) -> None:
    with running_server(small_engine, Settings(token="the-secret")) as running:
        page = page_of(chromium, running, upload)
        found = run(
            page,
            OPEN
            + """
            const picture = await api.layer(session, "image");
            return [location.href, (await answers.click(60, 45)).surfaces[0].clicks.length, picture.type];""",
        )
        assert found == [f"http://127.0.0.1:{running.port}/{FILE}", 1, "image/png"]
        page.goto(f"http://127.0.0.1:{running.port}/{FILE}?again")
        again = run(page, 'const { Api } = await import("/api.js"); return (await Api.ofPage().model()).name;')
        assert again == "demo-small", "this tab keeps it"
        stranger = replace(running, url=running.url.partition("#")[0])
        context = chromium.new_context()
        other = page_of(context, stranger, upload)
        kind = run(other, "try { await tools.api.model(); } catch (error) { return [error.kind, error.status]; }")
        assert kind == ["TokenError", 401]
        page.close()
        context.close()


def test_what_is_saved_is_what_the_api_gives(page: Page, client: Client) -> None:
    found = run(
        page,
        OPEN
        + """
        await answers.click(60, 45);
        const png = await api.labelsPng(session);
        const coco = await api.coco(session, true);
        const put = await api.putLabels(session, png);
        const header = new Uint8Array(await api.features(session)).length;
        await api.closeSession(session);
        return [png.type, coco.annotations.length, put.surfaces[0].area > 0, put.mask, header > 1000];""",
    )
    assert found == ["image/png", 1, True, None, True]


def test_frames_and_runs_that_are_damaged(page: Page) -> None:
    found = run(
        page,
        """
        const { unframe, decodeRuns } = await import("/answers.js");
        const failed = (call) => {
          try { call(); return false; } catch (error) { return error instanceof RangeError; }
        };
        const runs = (...numbers) => new Uint8Array(new Uint32Array(numbers).buffer);
        return [
          failed(() => unframe(new ArrayBuffer(2))), failed(() => unframe(new Uint32Array([400, 0]).buffer)),
          failed(() => decodeRuns(runs(1, 5), 4)), failed(() => decodeRuns(runs(1, 3), 4)),
          failed(() => decodeRuns(runs(1, 3, 2), 4)), [...decodeRuns(runs(0, 1, 7, 2, 65535, 1), 4)],
        ];""",
    )
    assert found == [True, True, True, True, True, [0, 7, 7, 65535]]
