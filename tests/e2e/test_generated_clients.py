"""Clients generated from docs/openapi.yaml, in Python and in TypeScript, against the running product.

A customer's program makes a server, waits for its operation, reads it, is refused something, and deletes it,
with the models that the generators made and nothing written by hand.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local.folder import PROJECT
from tests.e2e.conftest import Product
from tests.e2e.official_clients import install
from tests.private_services import VAR

SCHEMA = PROJECT / "docs" / "openapi.yaml"
HERE = Path(__file__).with_name("generated")

pytestmark = pytest.mark.timeout(400)  # the first run installs the generators


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(cwd)} | env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_python_client_is_generated_and_works(product: Product, tmp_path: Path) -> None:
    programs = install(VAR / "generators", HERE / "generators.lock")
    generate = ["generate", "--path", str(SCHEMA), "--output-path", "client", "--meta", "setup"]
    said = run(programs / "openapi-python-client", *generate, cwd=tmp_path, PATH=f"{programs}:/usr/bin:/bin")

    assert "Unable to parse" not in said
    base = product.url.removesuffix("/api/v1")
    use = HERE / "use_client.py"
    run(programs / "python", use, base, product.token, cwd=tmp_path, PYTHONPATH=str(tmp_path / "client"))


def test_a_typescript_client_is_generated_and_works(product: Product, tmp_path: Path) -> None:
    modules = VAR / "node"
    modules.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, modules / name)
    npm = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(npm, cwd=modules, check=True, timeout=240)
    folder = modules / "use"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(HERE / "use_client.ts", folder)
    programs = modules / "node_modules" / ".bin"
    subprocess.run([programs / "openapi-typescript", SCHEMA, "-o", folder / "schema.d.ts"], check=True)
    strict = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    subprocess.run([programs / "tsc", *strict, "use_client.ts"], cwd=folder, check=True)
    base = product.url.removesuffix("/api/v1")
    subprocess.run(["node", folder / "use_client.js", base, product.token], check=True, timeout=120)
