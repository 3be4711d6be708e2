"""No secret in what is printed or kept, and the address whole again where the store is asked."""

from __future__ import annotations

import pytest

from components.runtime.credentials import with_credentials, without_secrets


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("http://anna:hunter2@host:5000/path", "http://host:5000/path"),
        ("https://hunter2@host", "https://host"),
        ("http://anna:hun@ter2@host:5000", "http://host:5000"),
        ("postgresql+psycopg2://anna:hun/ter2@db:5432/runs", "postgresql+psycopg2://db:5432/runs"),
        ("http://anna:hunter%402@[::1]:5000/", "http://[::1]:5000/"),
        ("s3://bucket/key?X-Amz-Signature=hunter2&X-Amz-Date=1", "s3://bucket/key?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://host/a?access_token=hunter2#top", "https://host/a?access_token=***#top"),
        ("https://host/a?sv=1&sig=hunter2", "https://host/a?sv=1&sig=***"),
        ("mysql://db/runs?ssl_ca=a.pem&password=hunter2", "mysql://db/runs?ssl_ca=a.pem&password=***"),
        ("GET 'http://anna:hunter2@host/x' failed; see http://b:hunter2@other", "GET 'http://host/x' failed; see http://other"),
        # What is no secret stays.
        ("http://host:5000/users/anna@example.org", "http://host:5000/users/anna@example.org"),
        ("sqlite:////home/anna@work/mlflow.db", "sqlite:////home/anna@work/mlflow.db"),
        ("mail anna@example.org about step 3/4", "mail anna@example.org about step 3/4"),
        ("http://host:5000/?page=2", "http://host:5000/?page=2"),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, wanted: str) -> None:
    assert without_secrets(text) == wanted
    assert "hunter" not in without_secrets(text)
    assert without_secrets(without_secrets(text)) == without_secrets(text)


def test_the_values_of_secret_variables_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "x")  # nobody's; hiding every x would hide the sentence
    assert without_secrets("Bearer hunter2 was refused by box 1") == "Bearer *** was refused by box 1"


def test_the_environment_gives_back_what_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    full = "http://anna:hunter2@host:5000/path"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", full)
    assert with_credentials("http://host:5000/path") == full
    assert with_credentials("http://host:5000/path/") == full
    for other in ("http://host:5001/path", "http://host:5000/other", "https://host:5000/path", "sqlite:////a.db"):
        assert with_credentials(other) == other
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert with_credentials("http://host:5000/path") == "http://host:5000/path"
