"""The catalogue, in both vocabularies: the documentation's and the provider's own clients'."""

from decimal import Decimal
from typing import Annotated, Literal

from core.api.answers import Amount, Answer, Id, Uuid, about, example
from plans.models import Location as LocationRow
from plans.models import OperatingSystem as OperatingSystemRow
from plans.models import Plan as PlanRow

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
OPERATING_SYSTEM = {
    "id": 1,
    "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c002",
    "name": "Ubuntu",
    "versions": [{"id": 5, "uuid": "6f1c5c53-8a0b-4f5e-9d7e-52b6a9a1c003", "name": "Ubuntu 22.04 LTS"}],
}


@example("A plan", PLAN)
class Plan(Answer):
    id: Id
    name: str
    slug: str
    vcpus: int
    memory: Annotated[int, about("MB")]
    storage: Annotated[int, about("GB")]
    bandwidth: Annotated[int, about("GB a month")]
    price_monthly: Amount
    price_hourly: Amount
    available: Annotated[bool, about("Whether a server of this plan could be made now.")]
    locations: Annotated[list[str], about("The locations where it could be made now.")]
    description: str
    # The fields that the provider's clients read instead.
    uuid: Uuid
    cpu: Annotated[int, about("As `vcpus`.")]
    ram: Annotated[int | float, about("As `memory`, in `ram_unit`.")]
    ram_unit: Literal["GB"]
    disk_space: Annotated[int, about("As `storage`.")]
    transfer: Annotated[int, about("As `bandwidth`.")]
    monthly_price: Annotated[Amount, about("As `price_monthly`.")]
    hourly_price: Annotated[Amount, about("As `price_hourly`.")]


@example("A location", LOCATION)
class Location(Answer):
    id: Id
    code: Annotated[str, about("What a create calls `location`.")]
    name: str
    country_name: str
    country_code: str
    is_active: Annotated[bool, about("Whether new servers can be made there now.")]


class OperatingSystemVersion(Answer):
    id: Annotated[Id, about("What a create calls `os_id`.")]
    uuid: Uuid
    name: str


@example("A system", OPERATING_SYSTEM)
class OperatingSystem(Answer):
    id: Id
    uuid: Uuid
    name: str
    versions: list[OperatingSystemVersion]


def plan(row: PlanRow, locations: list[str]) -> Plan:
    return Plan(
        id=row.pk,
        name=row.name,
        slug=row.slug,
        vcpus=row.vcpus,
        memory=row.memory_mib,
        storage=row.disk_gib,
        bandwidth=row.bandwidth_gb,
        price_monthly=row.price_monthly,
        price_hourly=row.price_hourly,
        available=bool(locations),
        locations=locations,
        description=row.description,
        uuid=str(row.uuid),
        cpu=row.vcpus,
        ram=_whole_if_possible(Decimal(row.memory_mib) / 1024),
        ram_unit="GB",
        disk_space=row.disk_gib,
        transfer=row.bandwidth_gb,
        monthly_price=row.price_monthly,
        hourly_price=row.price_hourly,
    )


def _whole_if_possible(number: Decimal) -> int | float:
    return int(number) if number == int(number) else float(number)


def location(row: LocationRow, *, is_on_offer: bool) -> Location:
    return Location(
        id=row.pk,
        code=row.code,
        name=row.name,
        country_name=row.country_name,
        country_code=row.country_code,
        is_active=is_on_offer,
    )


def operating_system(row: OperatingSystemRow) -> OperatingSystem:
    versions = [
        OperatingSystemVersion(id=version.pk, uuid=str(version.uuid), name=version.name)
        for version in row.versions.all()
    ]
    return OperatingSystem(id=row.pk, uuid=str(row.uuid), name=row.name, versions=versions)
