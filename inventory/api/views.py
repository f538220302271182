"""The catalogue, in both vocabularies: the documentation's and the provider's own clients'."""

from typing import Any

from django.db.models import Prefetch, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from core.api.references import named_by
from core.api.views import StrictView
from core.errors import NotFound
from inventory.api import answers
from inventory.api.schema import of_locations, of_operating_systems, of_plans
from inventory.offers import locations_on_offer, locations_with_room
from plans.models import Location, OperatingSystem, Plan
from plans.selectors import versions_on_offer


@of_plans
class PlanViewSet(StrictView, GenericViewSet[Plan]):
    """Plans on sale.  ``?location=`` leaves those that have room there."""

    resource = "servers"
    query_parameters = {"list": frozenset({"location"})}
    queryset = Plan.objects.filter(is_active=True).order_by("pk")
    filter_backends: list[Any] = []
    lookup_url_kwarg = "plan_id"
    lookup_value_regex = "[^/]+"

    def list(self, request: Request) -> Response:
        plans = self.get_queryset()
        offers = locations_with_room(plans)
        code = request.query_params.get("location")
        if code is not None:
            _require_location(code)
            plans = plans.filter(pk__in=[pk for pk, codes in offers.items() if code in codes])
        page = self.paginate_queryset(plans) or []
        return self.get_paginated_response([answers.plan(plan, offers[plan.pk]) for plan in page])

    def retrieve(self, request: Request, plan_id: str) -> Response:
        plan = self.get_queryset().filter(named_by(plan_id)).first()
        if plan is None:
            raise NotFound("There is no such plan on sale.")
        self.check_object_permissions(request, plan)
        return Response(answers.plan(plan, locations_with_room([plan])[plan.pk]))


@of_locations
class LocationViewSet(StrictView, GenericViewSet[Location]):
    resource = "servers"
    queryset = Location.objects.order_by("pk")
    filter_backends: list[Any] = []

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset()) or []
        on_offer = set(locations_on_offer().values_list("pk", flat=True))
        return self.get_paginated_response(
            [answers.location(location, is_on_offer=location.pk in on_offer) for location in page]
        )


@of_operating_systems
class OperatingSystemViewSet(StrictView, GenericViewSet[OperatingSystem]):
    """Systems with the versions that are on offer: those that have an image."""

    resource = "servers"
    filter_backends: list[Any] = []

    def get_queryset(self) -> QuerySet[OperatingSystem]:
        on_offer = versions_on_offer().order_by("pk")
        return (
            OperatingSystem.objects.filter(versions__in=on_offer)
            .distinct()
            .order_by("pk")
            .prefetch_related(Prefetch("versions", queryset=on_offer))
        )

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response([answers.operating_system(system) for system in page])


def _require_location(code: str) -> None:
    if "\0" in code or not Location.objects.filter(code=code).exists():
        codes = ", ".join(Location.objects.order_by("pk").values_list("code", flat=True)[:20])
        raise ValidationError({"location": [f"There is no such location. There are: {codes or 'none'}."]})
