"""Every route there is, as the URL resolver has them: a new one cannot be forgotten."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib.admindocs.views import simplify_regex
from django.urls import URLPattern, URLResolver, get_resolver

BASE = "/api/v1"
METHODS = {"get", "post", "put", "patch", "delete"}


class Route(NamedTuple):
    method: str
    path: str

    def of(self, **things: Any) -> str:
        """The path below the API, with these in their places: ``of(server_id=5)``."""
        path = self.path
        for name, thing in things.items():
            path = path.replace(f"<{name}>", str(thing))
        return path.removeprefix(BASE)


def all_routes() -> list[Route]:
    """All but the admin's, each with its method: ``GET /api/v1/servers/<server_id>/``."""
    return sorted(set(_routes(get_resolver(), "")))


def _routes(resolver: URLResolver, before: str) -> Iterator[Route]:
    for entry in resolver.url_patterns:
        path = before + str(entry.pattern)
        if path.startswith("admin/"):
            continue
        if isinstance(entry, URLResolver):
            yield from _routes(entry, path)
        else:
            for method in _methods(entry):
                yield Route(method.upper(), simplify_regex(path))


def _methods(entry: URLPattern) -> set[str]:
    """A viewset's are chosen by its router; any other view has those it defines."""
    view: Any = entry.callback
    offered = getattr(view, "actions", None) or dir(getattr(view, "cls", getattr(view, "view_class", None)))
    return METHODS & set(offered)
