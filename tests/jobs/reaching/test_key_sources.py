"""Keys from files and commands, and the paths by which a job names them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from batch.errors import SpecError
from jobs import key_sources
from jobs.environment import key
from jobs.files.yaml_specs import load_job
from jobs.resolve import missing_keys, resolve_endpoints, resolve_job
from schemas.endpoints import EndpointSpec, ModelSpec
from schemas.job import JobSpec
from tests.jobs.console_script import Command, Job, written

SECRET = "key-0123456789-abcdef"


def faults(**endpoint: Any) -> list[str]:
    """The faults for which a run with this endpoint would be refused."""
    spec = {
        "input": {"path": "x.jsonl"},
        "models": [{"name": "m", "endpoints": [{"url": "http://127.0.0.1:9/v1", **endpoint}]}],
        "output": {"path": "o.jsonl"},
    }
    job = JobSpec.model_validate(spec)
    return missing_keys(resolve_job(job))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_key_comes_from_a_file_or_a_command(tmp_path: Path) -> None:
    """Line breaks at the end of the key are removed; the command's words are not interpreted by a shell."""
    (tmp_path / "key").write_text(f"{SECRET}\n\n")
    assert key(f"file:{tmp_path / 'key'}") == SECRET
    assert faults(api_key_file=str(tmp_path / "key")) == []
    assert faults(api_key_command=python(f"print({SECRET!r})")) == []
    marker = tmp_path / "made"
    with pytest.raises(SpecError, match="more than a key"):
        key_sources.key_from(f'command:["echo", "a; touch {marker}", "$(touch {marker})\\n b"]')
    assert not marker.exists()


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"api_key_file": "/nowhere/key"}, "api_key_file /nowhere/key cannot be read: No such file or directory"),
        ({"api_key_file": "/"}, "cannot be read: Is a directory"),
        ({"api_key_file": "/dev/null"}, "gives an empty key"),
        ({"api_key_file": "/dev/zero"}, "is longer than any key"),
        ({"api_key_file": __file__}, "gives more than a key"),
        ({"api_key_command": ["/nowhere/get-token"]}, "api_key_command /nowhere/get-token cannot be run: No such file"),
        ({"api_key_command": python(f"print({SECRET!r}); raise SystemExit(3)")}, "ended with status 3"),
        ({"api_key_command": python("pass")}, "gives an empty key"),
        ({"api_key_command": python(f"print({SECRET!r}); print('Logged in.')")}, "gives more than a key"),
        ({"api_key_command": python("import time; time.sleep(9)")}, "did not end within 0.5 seconds"),
        ({"api_key_env": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is not set"),
        ({"headers": {"x-a": "${NO_SUCH_TEAM}"}}, "the header x-a: the environment variable NO_SUCH_TEAM is not set"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file /nowhere/ca.pem cannot be used: No such file or directory"),
    ],
)
def test_a_key_or_file_that_is_not_there_is_one_line(
    endpoint: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line has the endpoint's place in the job, and nothing that the file held or the command printed."""
    seconds = 0.5 if "sleep" in str(endpoint) else 30.0
    monkeypatch.setattr(key_sources, "COMMAND_SECONDS", seconds)
    (line,) = faults(**endpoint)
    assert line.startswith("models.m.endpoints.0: ")
    assert said in line
    assert SECRET not in line


def test_paths_of_endpoints_are_relative_to_the_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for files, sockets and programs; `~` is the home, and a program without a slash is on the PATH."""
    monkeypatch.setenv("HOME", "/home/nobody-here")
    path = tmp_path / "job.yaml"
    path.write_text(
        """\
input: {path: x.jsonl}
models:
  - name: m
    endpoints:
      - {url: "http://a/v1", api_key_file: secrets/key, ca_file: ~/ca.pem, client_cert: c.pem, client_key: /k.pem}
      - {uds: run/server.sock, api_key_command: ./get-token --for me}
      - {url: "http://b/v1", api_key_command: [bin/get, ./x]}
      - {url: "http://c/v1", api_key_command: gcloud auth print-access-token}
output: {path: out.jsonl}
"""
    )
    one, two, three, four = load_job(path).models[0].endpoints
    assert (one.api_key_file, one.ca_file) == (str(tmp_path / "secrets/key"), "/home/nobody-here/ca.pem")
    assert (one.client_cert, one.client_key) == (str(tmp_path / "c.pem"), "/k.pem")
    assert (two.uds, two.api_key_command) == (
        str(tmp_path / "run/server.sock"),
        (f"{tmp_path}/get-token", "--for", "me"),
    )
    assert three.api_key_command == (f"{tmp_path}/bin/get", "./x")
    assert four.api_key_command == ("gcloud", "auth", "print-access-token")
    changed = load_job(path, ["models.0.endpoints.0.ca_file=ca.pem"]).models[0].endpoints[0]
    assert changed.ca_file == str(Path.cwd() / "ca.pem")


def test_two_keys_for_one_url_are_two_lines_of_the_report(
    job: Job, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key has its own limits and figures, and no file of the run has a key."""
    monkeypatch.setenv("KEY_A", f"{SECRET}-a")
    monkeypatch.setenv("KEY_B", f"{SECRET}-b")
    url = job["models"][0]["endpoints"][0]["url"]
    limits = {"max_in_flight": 1}
    job["models"] = [
        {
            "name": "small",
            "price": {"input": 1, "output": 1},
            "endpoints": [
                {"url": url, "api_key_env": "KEY_A", "limits": limits},
                {"url": url, "api_key_env": "KEY_B", "limits": limits},
            ],
        }
    ]
    job["plan"] = {"strategy": "pin", "model": "small"}
    job["router"] = {"kind": "random"}
    ended = command("run", written(job, tmp_path), "--json")
    assert ended.status == 0, ended.err
    assert f"{url}#KEY_A" in ended.out
    assert f"{url}#KEY_B" in ended.out
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_a_key_of_the_environment_goes_only_with_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the url comes from the environment, so does the key, unless the endpoint has one of its own."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def filled(**endpoint: Any) -> str | None:
        (model,) = resolve_endpoints((ModelSpec(name="m", endpoints=(EndpointSpec(**endpoint),)),))
        return model.endpoints[0].api_key_env

    assert filled() == "OPENAI_API_KEY"
    assert filled(url="http://127.0.0.1:8/v1") is None
    assert filled(uds="/run/server.sock") is None
    assert filled(api_key_file="/run/key") is None
    assert filled(headers={"Authorization": "Bearer ${OTHER}"}) is None


@pytest.mark.parametrize(
    "line",
    [
        f"headers: 'Authorization: Bearer {SECRET}'",
        f"query: 'key={SECRET}'",
        f"headers: {{x-a: [{SECRET}]}}",
        f"api_key_env: {{value: {SECRET}}}",
        f"api_key_file: [{SECRET}]",
        f"api_key_command: {{echo: {SECRET}}}",
        f"api_key: {SECRET}",
        f"url: http://127.0.0.1:9/v1?key={SECRET}",
        f"url: ftp://user:{SECRET}@127.0.0.1/v1",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(line: str, tmp_path: Path) -> None:
    """The message has the place of the secret, but not the secret."""
    path = tmp_path / "job.yaml"
    path.write_text(
        f"input: {{path: x.jsonl}}\nmodels:\n  - name: m\n    endpoints:\n      - {line}\noutput: {{path: out.jsonl}}\n"
    )
    with pytest.raises(SpecError, match=r"job\.yaml:5: models\.0\.endpoints\.0\.") as refused:
        load_job(path)
    assert SECRET not in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2
