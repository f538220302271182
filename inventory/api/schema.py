"""Publishes the catalogue's endpoints."""

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view

from inventory.api.answers import Location, OperatingSystem, Plan

ROOM_AT = OpenApiParameter(
    "location",
    {"type": "string", "minLength": 1, "maxLength": 32},
    description="A location's code: only plans that have room there.",
)
of_plans = extend_schema_view(
    list=extend_schema(
        summary="List plans",
        description="The plans on sale, and where there is room for each at this moment.",
        parameters=[ROOM_AT],
        responses=Plan,
    ),
    retrieve=extend_schema(summary="Read a plan", responses=Plan),
)
of_locations = extend_schema_view(list=extend_schema(summary="List locations", responses=Location))
of_operating_systems = extend_schema_view(
    list=extend_schema(
        summary="List operating systems",
        description="Each with its versions on offer; a create names a version.",
        responses=OperatingSystem,
    )
)
