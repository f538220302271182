"""Real guests: booted, waited for, and given commands through their agent."""

import json
import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import libvirt_qemu

from provisioning.drivers.base import MachineSpec
from tests.contract.labs import Lab

PATIENCE_S = 120  # a boot takes six seconds, on a machine that does nothing else


def until(question: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Ask until the answer is true, and hand it on."""
    give_up_at = time.monotonic() + patience_s
    while not (answer := question()):
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.1)
    return answer


def write_through_qemu(domain: Any, byte: int, at_mib: int, mib: int) -> None:
    """As if the guest had written so much of one byte, and had it on its disk."""
    disk = "/machine/peripheral/virtio-disk0/virtio-backend"
    asked = f'qemu-io -d {disk} "write -q -P {byte} {at_mib}M {mib}M"'
    told = libvirt_qemu.qemuMonitorCommand(domain, asked, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    assert told == "", told


def boot(lab: Lab, spec: MachineSpec) -> None:
    """Make, start, and wait until the guest has all its addresses."""
    lab.make(spec)
    lab.driver.start(spec.uuid)
    await_up(lab, spec)


def await_up(lab: Lab, spec: MachineSpec) -> None:
    expected = {address.ip for nic in spec.nics for address in nic.addresses}

    def is_up() -> bool:
        guest = lab.driver.guest(spec.uuid)
        return guest is not None and expected <= set(guest.addresses)

    until(is_up)


def run(lab: Lab, spec: MachineSpec, command: str) -> tuple[int, str]:
    """A shell command inside the guest: its exit code and what it wrote."""
    arguments = {"path": "/bin/sh", "arg": ["-c", f"{{ {command}; }} 2>&1"], "capture-output": True}
    pid = _ask(lab, spec, "guest-exec", arguments)["pid"]
    status = until(lambda: _if_ended(_ask(lab, spec, "guest-exec-status", {"pid": pid})), 30)
    return status["exitcode"], b64decode(status.get("out-data", "")).decode()


def _if_ended(status: dict[str, Any]) -> dict[str, Any] | None:
    return status if status["exited"] else None


def _ask(lab: Lab, spec: MachineSpec, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    question = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(
        libvirt_qemu.qemuAgentCommand(lab.domain(spec), question, 10, 0),
    )
    return dict(answer["return"])
