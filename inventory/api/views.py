"""The catalogue, in both vocabularies: the documentation's and the provider's own clients'."""

from decimal import Decimal
from typing import Any

from django.db.models import Prefetch, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from inventory.api.schema import of_locations, of_operating_systems, of_plans
from inventory.offers import locations_with_room
from plans.models import Location, OperatingSystem, Plan
from plans.selectors import versions_on_offer
from vpsorg.api.references import named_by
from vpsorg.errors import NotFound


@of_plans
class PlanViewSet(GenericViewSet[Plan]):
    """Plans on sale.  ``?location=`` leaves those that have room there."""

    resource = "servers"
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
        return self.get_paginated_response([_plan(plan, offers[plan.pk]) for plan in page])

    def retrieve(self, request: Request, plan_id: str) -> Response:
        plan = self.get_queryset().filter(named_by(plan_id)).first()
        if plan is None:
            raise NotFound("There is no such plan on sale.")
        self.check_object_permissions(request, plan)
        return Response(_plan(plan, locations_with_room([plan])[plan.pk]))


@of_locations
class LocationViewSet(GenericViewSet[Location]):
    resource = "servers"
    queryset = Location.objects.order_by("pk")
    filter_backends: list[Any] = []

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response([_location(location) for location in page])


@of_operating_systems
class OperatingSystemViewSet(GenericViewSet[OperatingSystem]):
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
        return self.get_paginated_response([_operating_system(system) for system in page])


def _require_location(code: str) -> None:
    if "\0" in code or not Location.objects.filter(code=code).exists():
        raise ValidationError({"location": ["There is no such location."]})


def _plan(plan: Plan, locations: list[str]) -> dict[str, Any]:
    return {
        "id": plan.pk,
        "name": plan.name,
        "slug": plan.slug,
        "vcpus": plan.vcpus,
        "memory": plan.memory_mib,
        "storage": plan.disk_gib,
        "bandwidth": plan.bandwidth_gb,
        "price_monthly": plan.price_monthly,
        "price_hourly": plan.price_hourly,
        "available": bool(locations),
        "locations": locations,
        "description": plan.description,
        # What the provider's clients read instead.
        "uuid": str(plan.uuid),
        "cpu": plan.vcpus,
        "ram": _whole_if_possible(Decimal(plan.memory_mib) / 1024),
        "ram_unit": "GB",
        "disk_space": plan.disk_gib,
        "transfer": plan.bandwidth_gb,
        "monthly_price": plan.price_monthly,
        "hourly_price": plan.price_hourly,
    }


def _whole_if_possible(number: Decimal) -> int | float:
    return int(number) if number == int(number) else float(number)


def _location(location: Location) -> dict[str, Any]:
    return {
        "id": location.pk,
        "code": location.code,
        "name": location.name,
        "country_name": location.country_name,
        "country_code": location.country_code,
        "is_active": location.is_active,
    }


def _operating_system(system: OperatingSystem) -> dict[str, Any]:
    return {
        "id": system.pk,
        "uuid": str(system.uuid),
        "name": system.name,
        "versions": [
            {"id": version.pk, "uuid": str(version.uuid), "name": version.name}
            for version in system.versions.all()
        ],
    }
