"""Looks into a guest through its agent, as an operator would with virsh."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from provisioning.drivers.storage_names import console_log

AGENT_TIMEOUT_S = 10


class GuestOf:
    """One server's machine on its host."""

    def __init__(self, uri: str, uuid: Any) -> None:
        self.connection = libvirt.open(uri)
        self.domain = self.connection.lookupByUUIDString(str(uuid))
        self.uuid = uuid

    def agent(self, command: str, **arguments: Any) -> Any:
        asked = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(libvirt_qemu.qemuAgentCommand(self.domain, asked, AGENT_TIMEOUT_S, 0))["return"]

    def hostname(self) -> str:
        return str(self.agent("guest-get-host-name")["host-name"])

    def read(self, path: str) -> str:
        """The content of a file inside."""
        return self.run("/bin/cat", path)

    def run(self, program: str, *arguments: str) -> str:
        """What a program prints inside."""
        asked = {"path": program, "arg": list(arguments), "capture-output": True}
        pid = self.agent("guest-exec", **asked)["pid"]
        for _ in range(100):
            ended = self.agent("guest-exec-status", pid=pid)
            if ended["exited"]:
                assert ended["exitcode"] == 0, ended
                return base64.b64decode(ended.get("out-data", "")).decode()
            time.sleep(0.1)
        raise AssertionError(f"{program} never ended")

    def addresses(self) -> set[str]:
        interfaces = self.agent("guest-network-get-interfaces")
        return {a["ip-address"] for i in interfaces for a in i.get("ip-addresses", [])}

    def console(self, pool: Path) -> str:
        return (pool / console_log(self.uuid)).read_text(errors="replace")

    def is_running(self) -> bool:
        return bool(self.domain.isActive())
