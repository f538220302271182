"""Names the actor of each request: nobody until bearer authentication or a staff session."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from accounts import actors


class ActorMiddleware:
    """Each request begins with nobody acting and ends so: threads are used again for other requests.

    In the admin site the actor is the user of the session.  Bearer authentication
    names the token in the API, where sessions mean nothing.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with actors.acting_as(None):
            return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> None:
        match = request.resolver_match
        if match and "admin" in match.app_names and request.user.is_authenticated:
            actors.become(actors.staff_actor(request.user))
