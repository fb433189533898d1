"""Every template is checked by its own tool, offline; and each tool is seen to refuse a copy with one mistake in it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from functions.settings import unknown
from graph.measures import RUNNING

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent
REGION = "eu-central-1"
KUBERNETES = "1.33"
pytestmark = pytest.mark.timeout(240)  # these tools are slow to start
TRANSFORM = """
import json, pathlib, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

class Policies:
    def load(self):
        return {}

source, target = map(pathlib.Path, sys.argv[1:])
target.write_text(json.dumps(transform(yaml_parse(source.read_text()), {}, Policies())))
"""


ERRORS_THAT_CLOUDFRONT_KEEPS = {404, 414, 500, 501, 502, 503, 504}


class Refused(Exception):
    """What the tool said."""


class Checked(NamedTuple):
    """`right` is a text of the file, `wrong` takes its place in the copy, and the refusal must say `said`."""

    file: Path
    check: Callable[[Path, Path], None]
    right: str
    wrong: str
    said: str


def run(*command: str | Path, silent: bool = False, **environment: str) -> None:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "AWS_DEFAULT_REGION": REGION, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0 or (silent and done.stdout + done.stderr):
        raise Refused(done.stdout + done.stderr)


def dockerfile(*files: Path) -> None:
    run(BIN / "hadolint", "--config", ROOT / ".hadolint.yaml", *files)


def compose(*files: Path) -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


def kubernetes(*files: Path) -> None:
    """Its exit status is 0 whatever it finds."""
    run(BIN / "kubernetes-validate", "--strict", "-k", KUBERNETES, "--quiet", *files, silent=True)


def caddy(*files: Path) -> None:
    for file in files:
        run(BIN / "caddy", "validate", "--adapter", "caddyfile", "--config", file, PULSELINE_ADDRESS=":8080")


def transform(source: Path) -> Path:
    """The CloudFormation that SAM makes of it, in which cfn-lint finds what it does not find in the source."""
    made = source.with_suffix(".json")
    run(sys.executable, "-W", "ignore", "-c", TRANSFORM, source, made)
    return made


CHECKED = {
    "image": Checked(ROOT / "Dockerfile", dockerfile, "USER 10001:10001", "USER root", "USER should not be root"),
    "streaming image": Checked(
        INFRA / "aws" / "Dockerfile.streaming", dockerfile, "FROM ${IMAGE}", "FROM debian", "Always tag the version"
    ),
    "compose": Checked(
        INFRA / "compose" / "compose.yaml", compose, "stop_grace_period", "stop_grace_perod", "stop_grace_perod"
    ),
    "kubernetes": Checked(
        INFRA / "k8s" / "pulseline.yaml", kubernetes, "readinessProbe", "readynessProbe", "readynessProbe"
    ),
    "caddy": Checked(INFRA / "compose" / "Caddyfile", caddy, "flush_interval", "flush_intervall", "flush_intervall"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_a_template_is_right_and_a_mistake_in_it_is_refused(name: str, tmp_path: Path) -> None:
    """In one run: the tools take long to start, and name each file in which they find something."""
    file, check, right, wrong, said = CHECKED[name]
    good, bad = tmp_path / file.name, tmp_path / f"wrong-{file.name}"
    text = file.read_text()
    assert right in text
    good.write_text(text)
    bad.write_text(text.replace(right, wrong, 1))
    with pytest.raises(Refused, match=said) as refused:
        check(good, bad)
    assert str(good) not in str(refused.value)


def test_the_serverless_template_is_right_and_mistakes_in_it_are_refused(tmp_path: Path) -> None:
    """The source and what SAM makes of it, each with a copy that only its own lint can refuse; in one run, as it takes
    long to start."""
    text = (INFRA / "aws" / "template.yaml").read_text()
    right, misspelt, made_wrong = (tmp_path / f"{name}.yaml" for name in ("right", "misspelt", "made-wrong"))
    right.write_text(text)
    misspelt.write_text(text.replace("MemorySize: 1769", "MemorySise: 1769"))
    made_wrong.write_text(text.replace("InvokeMode: RESPONSE_STREAM", "InvokeMode: RESPONSE_STEAM"))
    files = [right, transform(right), misspelt, transform(made_wrong)]
    with pytest.raises(Refused) as refused:
        run(BIN / "cfn-lint", "--regions", REGION, "--format", "parseable", "--template", *files)
    found = {Path(line.split(":")[0]).name: line for line in str(refused.value).splitlines()}
    assert found.keys() == {"misspelt.yaml", "made-wrong.json"}
    assert "MemorySise" in found["misspelt.yaml"]
    assert "RESPONSE_STEAM" in found["made-wrong.json"]


def test_cloudfront_keeps_nobodys_error_for_the_next() -> None:
    answers = serverless()["Cdn"]["Properties"]["DistributionConfig"]["CustomErrorResponses"]
    kept = {answer["ErrorCode"]: answer["ErrorCachingMinTTL"] for answer in answers}
    assert kept == dict.fromkeys(ERRORS_THAT_CLOUDFRONT_KEEPS, 0)


def test_the_function_that_streams_has_what_its_signature_its_init_and_the_database_ask_for() -> None:
    """CloudFront's signature takes the place of a reader's own Authorization; and an init may take 10 s at most."""
    made = serverless()
    variables = made["Stream"]["Properties"]["Environment"]["Variables"]
    assert made["StreamAccess"]["Properties"]["OriginAccessControlConfig"]["SigningBehavior"] == "always"
    header = variables["AWS_LWA_AUTHORIZATION_SOURCE"]
    assert f"`{header}: Bearer " in (INFRA / "README.md").read_text()
    assert "AWS_LWA_ASYNC_INIT=true" in (INFRA / "aws" / "Dockerfile.streaming").read_text()
    of_api = re.search(r"^POOL_SIZE = (\d+)$", (ROOT / "functions" / "aws.py").read_text(), re.MULTILINE)
    assert of_api is not None
    assert variables["PULSELINE_POOL_SIZE"] == of_api[1]


def test_only_what_answers_gets_the_key_of_a_providers_model() -> None:
    services = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())["services"]
    given = [
        (name, secret["source"], secret["target"])
        for name, service in services.items()
        for secret in service.get("secrets", [])
        if "_api_key" in str(secret)
    ]
    keys = ("openai_api_key", "anthropic_api_key")
    assert given == [("worker", key, key.upper()) for key in keys], "a file each, and in no environment"
    assert not any("env_file" in service for service in services.values())
    containers = {
        part["metadata"]["name"]: part["spec"]["template"]["spec"]["containers"][0]
        for part in manifests()
        if part["kind"] in ("Deployment", "Job")
    }
    secret = {"secretRef": {"name": "pulseline-provider", "optional": True}}
    assert [name for name, made in containers.items() if secret in made.get("envFrom", [])] == ["pulseline-worker"]
    keyed = [name for name, part in serverless().items() if "OPENAI_API_KEY" in str(part)]
    assert keyed == ["Run"]
    assert "ARG PROVIDER=" in (ROOT / "Dockerfile").read_text()


def test_the_function_that_answers_may_call_bedrock_in_a_stream_and_whole() -> None:
    """Routing is not streamed. Only what the parameter names."""
    condition, policy, otherwise = serverless()["Run"]["Properties"]["Policies"][0]
    assert (condition, otherwise) == ("Bedrock", "AWS::NoValue")
    (statement,) = policy["Statement"]
    assert {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"} <= set(statement["Action"])
    assert statement["Resource"] == "BedrockArns"


def test_on_lambda_it_is_said_by_parameter_whose_tokens_are_taken() -> None:
    variables = of_lambda("Globals")["Function"]["Environment"]["Variables"]
    named = {"JWT_ISSUER": "JwtIssuer", "JWT_AUDIENCE": "JwtAudience", "ANONYMOUS": "Anonymous"}
    assert {name: variables[f"PULSELINE_{name}"] for name in named} == named
    defaults = {name: of_lambda("Parameters")[name]["Default"] for name in named.values()}
    assert defaults == {"JwtIssuer": "", "JwtAudience": "", "Anonymous": "on"}
    text = (INFRA / "aws" / "template.yaml").read_text()
    assert unknown(dict.fromkeys(re.findall(r"PULSELINE_\w+", text), "")) == []


def test_somebody_is_told_when_a_function_fails_or_has_no_place() -> None:
    alarms = [part["Properties"] for part in serverless().values() if part["Type"] == "AWS::CloudWatch::Alarm"]
    watched = {(alarm["Dimensions"][0]["Value"], alarm["MetricName"]) for alarm in alarms}
    throttled, failing = {("Api", "Throttles"), ("Stream", "Throttles"), ("Run", "Throttles")}, {"Api", "Run", "Sweep"}
    assert watched == {*throttled, *((name, "Errors") for name in failing), ("Sweep", "Invocations")}


def test_what_kubernetes_scales_workers_by_is_what_a_worker_shows() -> None:
    made = {(part["kind"], part["metadata"]["name"]): part["spec"] for part in manifests() if "spec" in part}
    scaled = made["HorizontalPodAutoscaler", "pulseline-worker"]["metrics"][0]["pods"]["metric"]["name"]
    assert [metric.name for metric in RUNNING.describe()] == [scaled]
    container = made["Deployment", "pulseline-worker"]["template"]["spec"]["containers"][0]
    (port,) = (str(port["containerPort"]) for port in container["ports"])
    assert {"name": "PULSELINE_METRICS_PORT", "value": port} in container["env"]
    annotations = made["Deployment", "pulseline-worker"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == port
    (admitted,) = made["NetworkPolicy", "pulseline-worker"]["ingress"]
    assert admitted["ports"] == [{"port": container["ports"][0]["name"]}]


def test_each_release_has_jobs_and_an_image_of_its_own_in_kubernetes() -> None:
    """A Job cannot be changed: one of a release before would make `kubectl apply` fail."""
    release = version("pulseline")
    text = (INFRA / "k8s" / "pulseline.yaml").read_text()
    assert set(re.findall(r"image: pulseline:(\S+)", text)) == {release}
    jobs = [part["metadata"]["name"] for part in manifests() if part["kind"] == "Job"]
    assert jobs == [f"pulseline-{name}-{release.replace('.', '-')}" for name in ("migrate", "ingest")]


def test_kubernetes_adds_a_worker_before_one_has_more_turns_than_keep_the_limits() -> None:
    (scaler,) = (part["spec"] for part in manifests() if part["kind"] == "HorizontalPodAutoscaler")
    target = int(scaler["metrics"][0]["pods"]["target"]["averageValue"])
    kept = re.search(r"; (\d+) turns at once kept the limits", (ROOT / "docs" / "scale.md").read_text())
    assert kept is not None
    assert target * 1.1 < int(kept[1]), "it does nothing about a tenth more"


def test_the_secrets_of_compose_let_the_role_that_serves_through_pgbouncer(tmp_path: Path) -> None:
    """The owner's `migrate` and `ingest` go to Postgres itself."""
    shutil.copy(INFRA / "compose" / "secrets.sh", tmp_path)
    run("sh", tmp_path / "secrets.sh")
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert made["pgbouncer_users"] == f'"pulseline_app" "{made["app_password"]}"'
    assert "@postgres:5432/" in made["owner_url"]
    services = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())
    assert services["secrets"].keys() == made.keys()


def test_compose_migrates_when_postgres_can_be_reached_and_tries_again() -> None:
    """While its image prepares a new volume, a server listens on the socket alone, and is then ended."""
    services = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())["services"]
    assert "pg_isready -h 127.0.0.1 " in services["postgres"]["healthcheck"]["test"][1]
    assert {services[name]["restart"] for name in ("migrate", "ingest")} == {"on-failure:5"}


class _Serverless(yaml.SafeLoader):
    """`!Ref Api` is `Api` in it, and other functions are their arguments."""


def _argument(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_Serverless.add_multi_constructor("!", _argument)


def of_lambda(section: str) -> dict[str, Any]:
    made: dict[str, Any] = yaml.load((INFRA / "aws" / "template.yaml").read_text(), _Serverless)[section]
    return made


def serverless() -> dict[str, Any]:
    """The resources of the template for Lambda."""
    return of_lambda("Resources")


def manifests() -> list[Any]:
    return list(yaml.safe_load_all((INFRA / "k8s" / "pulseline.yaml").read_text()))
