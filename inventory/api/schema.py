"""What the catalogue answers, for the documentation; tests hold real answers against it."""

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    extend_schema,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import serializers

PLAN = {
    "id": 1,
    "name": "Starter VPS",
    "slug": "starter",
    "vcpus": 1,
    "memory": 2048,
    "storage": 40,
    "bandwidth": 1024,
    "price_monthly": 5.0,
    "price_hourly": 0.007,
    "available": True,
    "locations": ["us-west", "us-east"],
    "description": "Perfect for small projects and testing",
    "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c001",
    "cpu": 1,
    "ram": 2,
    "ram_unit": "GB",
    "disk_space": 40,
    "transfer": 1024,
    "monthly_price": 5.0,
    "hourly_price": 0.007,
}
LOCATION = {
    "id": 1,
    "code": "us-west",
    "name": "US West",
    "country_name": "United States",
    "country_code": "US",
    "is_active": True,
}
SYSTEM = {
    "id": 1,
    "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c002",
    "name": "Ubuntu",
    "versions": [{"id": 5, "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c003", "name": "Ubuntu 22.04 LTS"}],
}


@extend_schema_serializer(component_name="Plan", examples=[OpenApiExample("A plan", PLAN)])
class PlanAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    slug = serializers.CharField()
    vcpus = serializers.IntegerField()
    memory = serializers.IntegerField(help_text="MB")
    storage = serializers.IntegerField(help_text="GB")
    bandwidth = serializers.IntegerField(help_text="GB a month")
    price_monthly = serializers.FloatField()
    price_hourly = serializers.FloatField()
    available = serializers.BooleanField(help_text="Whether a server of it could be made now.")
    locations = serializers.ListField(child=serializers.CharField(), help_text="Where it could be made now.")
    description = serializers.CharField(allow_blank=True)
    uuid = serializers.UUIDField()
    cpu = serializers.IntegerField(help_text="As `vcpus`.")
    ram = serializers.FloatField(help_text="As `memory`, in `ram_unit`.")
    ram_unit = serializers.ChoiceField(choices=["GB"])
    disk_space = serializers.IntegerField(help_text="As `storage`.")
    transfer = serializers.IntegerField(help_text="As `bandwidth`.")
    monthly_price = serializers.FloatField(help_text="As `price_monthly`.")
    hourly_price = serializers.FloatField(help_text="As `price_hourly`.")


@extend_schema_serializer(component_name="Location", examples=[OpenApiExample("A location", LOCATION)])
class LocationAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    code = serializers.CharField(help_text="What a create calls `location`.")
    name = serializers.CharField()
    country_name = serializers.CharField()
    country_code = serializers.CharField()
    is_active = serializers.BooleanField(help_text="Whether new servers may be made there.")


class OsVersionFields(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text="What a create calls `os_id`.")
    uuid = serializers.UUIDField()
    name = serializers.CharField()


@extend_schema_serializer(component_name="OperatingSystem", examples=[OpenApiExample("A system", SYSTEM)])
class OperatingSystemAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    uuid = serializers.UUIDField()
    name = serializers.CharField()
    versions = OsVersionFields(many=True)


ROOM_AT = OpenApiParameter(
    "location",
    {"type": "string", "minLength": 1, "maxLength": 32},
    description="A location's code: only plans that have room there.",
)
of_plans = extend_schema_view(
    list=extend_schema(
        summary="List plans",
        description="What is sold, and where there is room for it at this moment.",
        parameters=[ROOM_AT],
        responses=PlanAnswer(many=True),
    ),
    retrieve=extend_schema(summary="Read a plan", responses=PlanAnswer),
)
of_locations = extend_schema_view(
    list=extend_schema(summary="List locations", responses=LocationAnswer(many=True))
)
of_operating_systems = extend_schema_view(
    list=extend_schema(
        summary="List operating systems",
        description="Each with its versions on offer; a create names a version.",
        responses=OperatingSystemAnswer(many=True),
    )
)
