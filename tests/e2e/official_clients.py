"""How the provider's own clients are installed and run: unchanged, in an environment of their own."""

import json
import re
import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

LOCK = Path(__file__).with_name("clients.lock")
# What the clients print for a field that an answer does not have.
MISSING = re.compile(r"\?|\bNone\b|\bN/A\b")


def install(folder: Path, lock: Path = LOCK) -> Path:
    """The folder of the programs that a lock names.  Made anew only when the lock has changed."""
    made_from, digest = folder / "made-from", sha256(lock.read_bytes()).hexdigest()
    if not made_from.exists() or made_from.read_text() != digest:
        venv.create(folder, clear=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder)]
        what = ["--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
        subprocess.run([*pip, "install", *what], check=True, timeout=240)
        made_from.write_text(digest)
    return folder / "bin"


class Assistant:
    """An AI assistant's side of MCP: starts ``vps-mcp`` and calls its tools, one JSON-RPC message a line."""

    def __init__(self, programs: Path, url: str, token: str) -> None:
        self._last_id = 0
        self._server = subprocess.Popen(
            [programs / "vps-mcp"],
            env={"VPS_API_URL": url, "VPS_API_TOKEN": token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        client = {"name": "tests", "version": "1"}
        self._ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        self._send({"method": "notifications/initialized"})

    def tools(self) -> set[str]:
        return {tool["name"] for tool in self._ask("tools/list", {})["tools"]}

    def use(self, tool: str, **arguments: Any) -> str:
        """What a tool says, checked for holes."""
        text = self.use_and_see(tool, **arguments)
        assert not MISSING.search(text), text
        return text

    def use_and_see(self, tool: str, **arguments: Any) -> str:
        """What a tool says that prints whatever it is told."""
        answer = self._ask("tools/call", {"name": tool, "arguments": arguments})
        text = "\n".join(part["text"] for part in answer["content"])
        assert not answer["isError"], text
        return text

    def leave(self) -> None:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()

    def _ask(self, method: str, params: dict[str, Any]) -> Any:
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        assert self._server.stdout
        for line in self._server.stdout:
            message = json.loads(line)
            if message.get("id") == self._last_id:
                return message["result"]
        pytest.fail(f"vps-mcp ended with {self._server.wait()} when asked for {method}")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._server.stdin
        self._server.stdin.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
        self._server.stdin.flush()


class Terminal:
    """A project's folder in a home of its own, with ``vps`` on the path.  What is typed is piped."""

    def __init__(self, programs: Path, home: Path) -> None:
        self.folder, self.programs = home / "my-shop", home / "bin"
        self.folder.mkdir()
        self.programs.mkdir()
        self._env = {
            "HOME": str(home),
            "PATH": f"{self.programs}:{programs}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
        }

    def run(self, *words: str, typed: str = "") -> tuple[int, str]:
        """The exit status of ``vps <words>`` and what it printed, standard error included."""
        done = subprocess.run(
            ["vps", *words],
            cwd=self.folder,
            env=self._env,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            start_new_session=True,  # else it reads the token from a developer's terminal
        )
        return done.returncode, done.stdout
