"""npm's own settings say where the registry is, and how it is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.errors import RegistryError
from mmms_deploy.weights.npm_settings import DEFAULT_REGISTRY, npm_settings
from mmms_deploy.weights.registry import RegistryClient


@pytest.fixture(autouse=True)
def user(registry, tmp_path, monkeypatch) -> Path:
    """A user without any settings, in an empty folder."""
    for name in ("npm_config_registry", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("user", "project"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "user"


def test_without_settings(user) -> None:
    found = npm_settings("@tiny")
    assert (found.registry, found.proxies, found.ca_files, found.verify, found.offline) == (
        DEFAULT_REGISTRY,
        {},
        (),
        True,
        None,
    )


def test_later_files_count_more(user, tmp_path, monkeypatch) -> None:
    (tmp_path / "global").write_text("registry=https://global.example/\ncafile = /ca.pem\n")
    monkeypatch.setenv("NPM_CONFIG_GLOBALCONFIG", str(tmp_path / "global"))
    assert npm_settings().registry == "https://global.example"
    (user / ".npmrc").write_text("; a comment\n# registry=https://no.example\nregistry = https://user.example/npm/\n")
    assert npm_settings().registry == "https://user.example/npm"
    Path(".npmrc").write_text('registry="https://project.example"\n//project.example/:_authToken=secret\n')
    assert npm_settings().registry == "https://project.example"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://variable.example")
    found = npm_settings()
    assert found.registry == "https://variable.example"
    assert found.ca_files == ("/ca.pem",)
    assert "secret" not in repr(found)


def test_a_scope_may_have_a_registry_of_its_own(user) -> None:
    (user / ".npmrc").write_text("registry=https://all.example\n@tiny:registry=https://tiny.example\n")
    assert npm_settings("@tiny").registry == "https://tiny.example"
    assert npm_settings("@other").registry == "https://all.example"


def test_another_file_of_the_user(user, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").write_text("registry=https://${COMPANY}.example/${UNKNOWN}\n")
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "mine"))
    monkeypatch.setenv("COMPANY", "company")
    assert npm_settings().registry == "https://company.example/${UNKNOWN}"


def test_proxies_and_certificates(user, monkeypatch) -> None:
    (user / ".npmrc").write_text("https-proxy=http://proxy:8080\nnoproxy=.local, intern\nstrict-ssl=false\n")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "/more.pem")
    found = npm_settings()
    assert found.proxies == {"https": "http://proxy:8080", "http": "http://proxy:8080"}
    assert found.no_proxy == (".local", "intern")
    assert found.ca_files == ("/more.pem",)
    assert not found.verify
    RegistryClient(found)  # a file of certificates that is missing is npm's warning, not an error


@pytest.mark.parametrize("address", ["file:///etc", "registry.example", "ftp://registry.example"])
def test_an_address_that_is_none(user, monkeypatch, address) -> None:
    monkeypatch.setenv("npm_config_registry", address)
    with pytest.raises(RegistryError, match="the npm registry is set to"):
        RegistryClient(npm_settings())


def test_passwords_are_not_shown(user, monkeypatch) -> None:
    monkeypatch.setenv("npm_config_registry", "ftp://someone:secret@registry.example")
    with pytest.raises(RegistryError) as error:
        RegistryClient(npm_settings())
    assert "secret" not in str(error.value)
