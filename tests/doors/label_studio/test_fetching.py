"""Pictures: from whom they are fetched, with which token, and within which limits."""

from __future__ import annotations

import base64
import threading
from typing import Any

import pytest

from mmms_deploy.doors.label_studio.fetching import Fetcher
from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.doors.label_studio.tokens import Tokens, is_personal
from mmms_deploy.errors import DoorError
from mmms_deploy.server.errors import TooLargeError
from tests.standins.label_studio import LEGACY, PERSONAL, Service, jwt

PATH = "/data/upload/1/photo.jpg"
PICTURE = bytes(range(256)) * 8


def fetcher(service: Service, *, most_bytes: int = 1 << 20, **more: Any) -> Fetcher:
    service.files.setdefault(PATH, PICTURE)
    return Fetcher(LabelStudio(service.url, **more), most_bytes)


def sent(service: Service) -> list[str | None]:
    return [token for _, token in service.requests]


def test_a_path_is_label_studios_and_gets_its_token(service: Service) -> None:
    service.takes_legacy = True
    assert fetcher(service).picture(PATH, LEGACY) == PICTURE
    assert service.requests == [(PATH, f"Token {LEGACY}")]


def test_a_token_of_the_settings_comes_first(service: Service) -> None:
    service.takes_legacy = True
    assert fetcher(service, token=LEGACY).picture(PATH, "other") == PICTURE


def test_a_personal_token_is_exchanged_once(service: Service) -> None:
    fetch = fetcher(service, token=PERSONAL)
    for _ in range(3):
        assert fetch.picture(PATH, None) == PICTURE
    assert service.exchanges == 1
    assert sent(service) == [None] + 3 * [f"Bearer {service.access}"]


def test_one_that_ended_early_is_exchanged_again(service: Service) -> None:
    fetch = fetcher(service, token=PERSONAL)
    fetch.picture(PATH, None)
    service.access = jwt(token_type="access", exp=8103181976, again=True)
    assert fetch.picture(PATH, None) == PICTURE
    assert service.exchanges == 2


def test_one_is_exchanged_again_before_its_end() -> None:
    now, asked = [1000.0], []

    def post(address: str, content: bytes) -> bytes:
        asked.append(address)
        return f'{{"access": "{jwt(exp=now[0] + 300)}"}}'.encode()

    tokens = Tokens(LabelStudio("http://ls"), post, lambda: now[0])
    first = tokens.header(PERSONAL)
    now[0] += 269
    assert tokens.header(PERSONAL) == first
    now[0] += 2
    assert tokens.header(PERSONAL) != first
    assert asked == 2 * ["http://ls/api/token/refresh/"]


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"access": 3}', b'{"access": "a\\nb"}', b"<html>"])
def test_an_exchange_that_gives_no_token_is_refused(answer: bytes) -> None:
    with pytest.raises(DoorError, match="gives no access token"):
        Tokens(LabelStudio("http://ls"), lambda address, content: answer).header(PERSONAL)


def test_what_is_a_personal_token() -> None:
    assert is_personal(PERSONAL)
    assert not any(map(is_personal, (LEGACY, "", "a.b.c", "..", "a.!!.c")))


def test_a_legacy_token_that_is_refused_says_what_to_do(service: Service) -> None:
    with pytest.raises(DoorError) as refused:
        fetcher(service).picture(PATH, LEGACY)
    assert "refuses the legacy access token" in str(refused.value)
    assert "a new installation takes no legacy tokens" in str(refused.value)
    assert "--access-token TOKEN and a personal access token" in str(refused.value)
    assert LEGACY not in str(refused.value)


def test_without_a_token_it_says_that_one_is_missing(service: Service) -> None:
    with pytest.raises(DoorError, match="asks for an access token"):
        fetcher(service).picture(PATH, None)


def test_a_personal_token_that_is_refused_says_so(service: Service) -> None:
    with pytest.raises(DoorError, match=r"refuses the personal access token \(401\)"):
        fetcher(service, token=jwt(token_type="refresh", exp=1)).picture(PATH, None)


def test_a_login_page_is_no_picture(service: Service) -> None:
    service.asks = False
    service.redirects[PATH] = "/user/login/?next=/"
    with pytest.raises(DoorError, match="asks for an access token"):
        fetcher(service).picture(PATH, None)


def test_another_host_is_refused_unless_it_was_named(service: Service, elsewhere: Service) -> None:
    elsewhere.files["/a b/ü.png"] = PICTURE
    address = f"{elsewhere.url}/a b/ü.png"
    with pytest.raises(DoorError, match="pictures are fetched from no other") as refused:
        fetcher(service, token=PERSONAL).picture(address, None)
    host = elsewhere.url.removeprefix("http://")
    assert f"--image-host {host}" in str(refused.value)
    assert not elsewhere.requests
    assert fetcher(service, token=PERSONAL, image_hosts=(host,)).picture(address, None) == PICTURE
    assert fetcher(service, token=PERSONAL, image_hosts=("127.0.0.1",)).picture(address, None) == PICTURE
    assert sent(elsewhere) == [None, None]
    with pytest.raises(DoorError, match="fetched from no other"):
        fetcher(service, image_hosts=("127.0.0.1:1",)).picture(address, None)


def test_an_absolute_address_of_label_studio_gets_the_token(service: Service) -> None:
    assert fetcher(service, token=PERSONAL).picture(service.url + PATH, None) == PICTURE


def test_a_redirect_to_another_host_carries_no_token(service: Service, elsewhere: Service) -> None:
    elsewhere.files["/signed"] = PICTURE
    service.redirects[PATH] = f"{elsewhere.url}/signed"
    host = elsewhere.url.removeprefix("http://")
    assert fetcher(service, token=PERSONAL, image_hosts=(host,)).picture(PATH, None) == PICTURE
    assert sent(elsewhere) == [None]
    elsewhere.requests.clear()
    with pytest.raises(DoorError, match="fetched from no other"):
        fetcher(service, token=PERSONAL).picture(PATH, None)
    assert not elsewhere.requests


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://user@127.0.0.1/a"])
def test_a_redirect_to_another_kind_is_refused(service: Service, place: str) -> None:
    service.redirects[PATH] = place
    with pytest.raises(DoorError, match="fetched from no other"):
        fetcher(service, token=PERSONAL).picture(PATH, None)


def test_redirects_end(service: Service) -> None:
    service.redirects[PATH] = PATH
    with pytest.raises(DoorError, match="redirected more than 5 times"):
        fetcher(service, token=PERSONAL).picture(PATH, None)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "s3://bucket/a.png",
        "gopher://a",
        "photo.jpg",
        "",
        "http://",
        "C:\\a.png",
    ],
)
def test_other_kinds_of_addresses_are_refused(service: Service, address: str) -> None:
    with pytest.raises(DoorError, match="the picture's address is"):
        fetcher(service).picture(address, None)
    assert not service.requests


def test_a_path_with_two_slashes_stays_with_label_studio(service: Service, elsewhere: Service) -> None:
    path = elsewhere.url.removeprefix("http:") + "/a"
    service.files[path.removeprefix("/")] = PICTURE  # the server of the standard library drops the first slash
    assert fetcher(service, token=PERSONAL).picture(path, None) == PICTURE
    assert not elsewhere.requests


def test_label_studio_below_a_path(service: Service) -> None:
    service.asks = False
    service.files["/labels/data/a.png"] = PICTURE
    below = Fetcher(LabelStudio(f"{service.url}/labels/"), 1 << 20)
    assert below.picture("/data/a.png", None) == below.picture("/labels/data/a.png", None) == PICTURE


def test_a_picture_in_the_address() -> None:
    fetch = Fetcher(LabelStudio("http://ls"), 100)
    assert fetch.picture("data:image/png;base64," + base64.b64encode(b"abc").decode(), None) == b"abc"
    assert fetch.picture("data:image/svg+xml,%3Csvg%3E", None) == b"<svg>"
    for damaged in ("data:image/png;base64,!!", "data:image/png;base64", "data:,", "data:image/png;base64,"):
        with pytest.raises(DoorError, match="cannot be decoded"):
            fetch.picture(damaged, None)
    with pytest.raises(TooLargeError, match="more than 100 bytes"):
        fetch.picture("data:," + 101 * "a", None)


@pytest.mark.parametrize("announces", [True, False])
def test_bytes_are_limited_whether_or_not_they_are_announced(service: Service, announces: bool) -> None:
    service.announces = announces
    assert fetcher(service, token=PERSONAL, most_bytes=len(PICTURE)).picture(PATH, None) == PICTURE
    with pytest.raises(TooLargeError, match="more than 2047 bytes"):
        fetcher(service, token=PERSONAL, most_bytes=len(PICTURE) - 1).picture(PATH, None)


def test_a_picture_that_breaks_off_is_refused(service: Service) -> None:
    fetch = fetcher(service, token=PERSONAL)
    service.breaks_after = 100
    with pytest.raises(DoorError, match="breaks off after 100 of 2048 bytes"):
        fetch.picture(PATH, None)


def test_what_is_not_there_is_named(service: Service) -> None:
    with pytest.raises(DoorError, match="/data/none' answers 404"):
        fetcher(service, token=PERSONAL).picture("/data/none", None)


def test_who_does_not_answer_is_named(service: Service) -> None:
    service.asks = False
    service.waits = threading.Event()
    try:
        with pytest.raises(DoorError, match="does not answer in time"):
            fetcher(service, seconds=0.2).picture(PATH, None)
    finally:
        service.waits.set()
    with pytest.raises(DoorError, match="cannot be fetched"):
        Fetcher(LabelStudio("http://127.0.0.1:1"), 1 << 20).picture(PATH, None)


def test_a_picture_that_drips_is_given_up(service: Service) -> None:
    """Every part comes in time, and all of them together do not."""
    ticks = iter(range(0, 1000, 20))
    service.asks = False
    service.files[PATH] = PICTURE
    fetch = Fetcher(LabelStudio(service.url, seconds=10), 1 << 20, lambda: next(ticks))
    with pytest.raises(DoorError, match="takes longer than 10 seconds"):
        fetch.picture(PATH, None)


@pytest.mark.parametrize(
    "address", ["localhost:8080", "ftp://a", "", "http://", "http://a:b:c", "http://u:p@a", "http://a?x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(DoorError, match="the address of Label Studio is"):
        LabelStudio(address)


def test_settings_that_cannot_be_are_refused() -> None:
    for host in ("http://a", "a/b", "a:b", "", "u@a"):
        with pytest.raises(DoorError, match="a host for pictures is"):
            LabelStudio(image_hosts=(host,))
    with pytest.raises(DoorError, match="0 seconds"):
        LabelStudio(seconds=0)
    assert LEGACY not in repr(LabelStudio(token=LEGACY))
