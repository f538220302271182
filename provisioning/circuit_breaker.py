"""Wraps every driver in its hypervisor's circuit breaker: a host that hangs is not waited for each time."""

from collections.abc import Callable
from functools import partial
from typing import Any

from inventory import health
from inventory.models import Hypervisor
from provisioning.drivers import base


class CircuitBreaker:
    """A driver whose calls first ask the circuit breaker, and then record whether the host answered."""

    def __init__(self, hypervisor: Hypervisor, driver: base.Driver) -> None:
        self._hypervisor = hypervisor
        self._driver = driver

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, getattr(self._driver, name))

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        host = self._hypervisor
        if not health.may_be_asked(host):
            raise base.HostUnreachable(f"{host} did not answer and is not asked again yet: {host.last_error}")
        try:
            answer = method(*args, **kwargs)
        except base.HostUnreachable as error:
            health.record_failure(host, str(error))
            raise
        except base.HypervisorError:
            self._close()
            raise
        self._close()
        return answer

    def _close(self) -> None:
        if self._hypervisor.failures:
            health.record_answer(self._hypervisor)
