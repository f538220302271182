"""Rules, dashboard and page speak of the metrics that there are."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.local.folder import PROJECT
from monitoring import requests
from monitoring.metrics import BROKER_UP, FREE_ADDRESSES, GAUGES, QUEUED

FOLDER = PROJECT / "deploy" / "monitoring"
PAGE = (PROJECT / "docs" / "monitoring.md").read_text()
METRIC = re.compile(r"\bvps_[a-z_]+")
LABELS: dict[str, set[str]] = {
    "vps_http_requests_total": {"route", "method", "status"},
    "vps_http_request_seconds": {"route", "method"},
    FREE_ADDRESSES[0]: {"location", "family"},
    BROKER_UP[0]: set(),
    QUEUED[0]: {"queue"},
    **{gauge.name: set(gauge.labels) for gauge in GAUGES},
}


def alerts() -> list[dict[str, str]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, str]] = group["rules"]
    return rules


def expressions() -> list[str]:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [rule["expr"] for rule in alerts()] + [
        target["expr"] for panel in panels for target in panel["targets"]
    ]


def test_the_page_tells_of_each_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(vps_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)

    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == LABELS


def test_the_counted_requests_are_called_as_the_page_has_it() -> None:
    counted = [family.name for metric in (requests.REQUESTS, requests.SECONDS) for family in metric.collect()]

    assert counted == ["vps_http_requests", "vps_http_request_seconds"]


@pytest.mark.parametrize("expression", expressions())
def test_alerts_and_panels_ask_for_metrics_that_there_are(expression: str) -> None:
    asked = {name.removesuffix("_bucket") for name in METRIC.findall(expression)}

    assert asked <= LABELS.keys()


def test_each_metric_is_on_the_dashboard() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    shown = " ".join(target["expr"] for panel in panels for target in panel["targets"])

    assert {name.removesuffix("_bucket") for name in METRIC.findall(shown)} == LABELS.keys()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_alert_leads_to_a_section_that_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    section = re.search(rf"^### {rule['alert']}\n({rule['labels']['severity']})\. .+", PAGE, re.MULTILINE)

    assert (PROJECT / file).is_file()
    assert anchor == str(rule["alert"]).lower()
    assert section


@pytest.mark.parametrize("words", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_promtool_accepts_the_rules_and_finds_them_firing_when_they_should(words: list[str]) -> None:
    """Each alert fires on a bad day, and none on a quiet one."""
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_scrape_configuration(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    shown = (FOLDER / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(shown.replace("/etc/prometheus/vps-metrics-token", str(token)))
    (tmp_path / "alerts.yml").write_text((FOLDER / "alerts.yml").read_text())
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
