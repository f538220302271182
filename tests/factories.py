"""Rows for tests, with sound defaults: say only what the test is about."""

from decimal import Decimal
from typing import Any
from uuid import uuid4

import factory
from django.conf import settings
from django.utils import timezone
from factory.django import DjangoModelFactory

from accounts.actors import operator_actor
from accounts.models import Account
from accounts.services import issue_token
from backups.kinds import BackupKind, BackupStatus, Verified
from backups.models import Backup
from billing import ledger
from billing.models import Meter
from images.models import Image
from inventory.models import Hypervisor
from plans.models import Location, OperatingSystem, OsVersion, Plan
from servers import backup_services, charges, lifecycle
from servers.models import Operation, ResourceUsage, Server
from servers.prices import SUBJECT, prices_of_plan
from servers.states import OperationKind, PowerState, ServerStatus
from servers.wishes import CreateWish, RestoreWish, Wish, rebuild_with, resize_to
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sealing import seal
from webhooks.signing import new_secret

TESTER = operator_actor("tester")  # who acts in tests, unless they say otherwise
IMAGE_SHA256 = "0" * 64


class LocationFactory(DjangoModelFactory[Location]):
    class Meta:
        model = Location
        django_get_or_create = ("code",)

    code = "us-west"
    name = "US West"
    country_name = "United States"
    country_code = "US"


class PlanFactory(DjangoModelFactory[Plan]):
    class Meta:
        model = Plan
        django_get_or_create = ("slug",)

    slug = "standard"
    name = "Standard VPS"
    vcpus = 2
    memory_mib = 4096
    disk_gib = 80
    bandwidth_gb = 2048
    price_monthly = 10
    price_hourly = Decimal("0.0140")


class OperatingSystemFactory(DjangoModelFactory[OperatingSystem]):
    class Meta:
        model = OperatingSystem
        django_get_or_create = ("name",)

    name = "Ubuntu"


class ImageFactory(DjangoModelFactory[Image]):
    class Meta:
        model = Image
        django_get_or_create = ("sha256",)

    sha256 = IMAGE_SHA256
    size_bytes = 10_000_000
    virtual_size_bytes = 2**30
    minimum_disk_gib = 1
    has_agent = False


class OsVersionFactory(DjangoModelFactory[OsVersion]):
    class Meta:
        model = OsVersion
        django_get_or_create = ("name",)

    operating_system = factory.SubFactory(OperatingSystemFactory)
    name = "Ubuntu 22.04 LTS"
    image = factory.SubFactory(ImageFactory)


class HypervisorFactory(DjangoModelFactory[Hypervisor]):
    class Meta:
        model = Hypervisor

    name = factory.Sequence("kvm{}".format)
    uri = factory.Sequence("qemu+unix:///system?socket=/nowhere/{}".format)
    location = factory.SubFactory(LocationFactory)
    domain_type = "qemu"
    storage_pool = "vps"
    network = "vps"
    vcpus = 1000
    memory_mib = 1_000_000
    disk_gib = 100_000


class AccountFactory(DjangoModelFactory[Account]):
    class Meta:
        model = Account
        skip_postgeneration_save = True

    email = factory.Sequence("customer{}@example.com".format)

    @factory.post_generation
    def credits(self, create: bool, amount: Any, **kwargs: Any) -> None:
        if amount != 0:
            told = {"reason": "for a test", "made_by": "a test"}
            ledger.correct(account=self, amount=Decimal(1000 if amount is None else amount), **told)
            self.refresh_from_db()


class ServerFactory(DjangoModelFactory[Server]):
    """A server that claims nothing, in the status given: for what never reaches a host."""

    class Meta:
        model = Server
        skip_postgeneration_save = True

    account = factory.SubFactory(AccountFactory)
    name = "web-server-01"
    hostname = "web01.example.com"
    plan = factory.SubFactory(PlanFactory)
    os_version = factory.SubFactory(OsVersionFactory)
    base_image = factory.SelfAttribute("os_version.image")
    location = factory.SubFactory(LocationFactory)
    status = ServerStatus.ACTIVE
    power_state = PowerState.RUNNING
    usage = factory.RelatedFactory("tests.factories.UsageFactory", "server")

    @factory.post_generation
    def metered(self, create: bool, wanted: Any, **kwargs: Any) -> None:
        """Sold at its plan's price, with a meter in its status that has not begun to count."""
        if wanted is not False:
            prices = prices_of_plan(self.plan, backups=self.backups_enabled)
            charges.sell(self, prices)
            state = charges.state_in(ServerStatus(self.status), self.suspended_for)
            Meter.objects.filter(subject_kind=SUBJECT, subject_id=self.pk).update(state=state)


class UsageFactory(DjangoModelFactory[ResourceUsage]):
    class Meta:
        model = ResourceUsage

    server = None


class OperationFactory(DjangoModelFactory[Operation]):
    class Meta:
        model = Operation

    server = factory.SubFactory(ServerFactory)
    kind = OperationKind.REBOOT
    status_before = ServerStatus.ACTIVE
    actor_kind, actor_id, actor_label = TESTER.kind, TESTER.id, TESTER.label


class BackupFactory(DjangoModelFactory[Backup]):
    """A whole manual backup of a server.  Nothing of it is in a store."""

    class Meta:
        model = Backup
        exclude = ("server",)

    server = factory.SubFactory(ServerFactory)
    account = factory.SelfAttribute("server.account")
    server_id = factory.SelfAttribute("server.pk")
    server_uuid = factory.SelfAttribute("server.uuid")
    server_name = factory.SelfAttribute("server.name")
    location = factory.SelfAttribute("server.location")
    store = factory.LazyFunction(lambda: settings.VPS_BACKUP_STORE)
    os_version = factory.SelfAttribute("server.os_version")
    base_image = factory.SelfAttribute("server.base_image")
    kind = BackupKind.MANUAL
    status = BackupStatus.COMPLETED
    disk_number = 1
    disk_gib = 1
    was_running = True
    stored_as = factory.LazyFunction(uuid4)
    size_bytes = 5_000_000
    new_bytes = 5_000_000
    completed_at = factory.LazyFunction(timezone.now)
    verified_at = factory.LazyFunction(timezone.now)
    verified_by = Verified.READ


def complete_backup(server: Server, kind: BackupKind = BackupKind.AUTOMATIC) -> Backup:
    """A backup of the server that was ordered and is complete, as if a worker had taken it."""
    backup = backup_services.take_backup(server=server, kind=kind)
    operation = lifecycle.begin(Operation.objects.get(backup=backup).pk)
    assert operation is not None
    lifecycle.record_backup(
        operation, was_running=True, stored_as=uuid4(), size_bytes=5_000_000, new_bytes=5_000_000
    )
    lifecycle.succeed(operation)
    backup.refresh_from_db()
    return backup


class WebhookFactory(DjangoModelFactory[Webhook]):
    """A webhook as it is kept, wherever it leads to."""

    class Meta:
        model = Webhook

    account = factory.SubFactory(AccountFactory)
    url = "https://hooks.example.com/vps"
    events = ["*"]
    sealed_secret = factory.LazyFunction(lambda: seal(new_secret()))


class WebhookDeliveryFactory(DjangoModelFactory[WebhookDelivery]):
    class Meta:
        model = WebhookDelivery

    webhook = factory.SubFactory(WebhookFactory)
    event = "server.status_changed"
    event_id = factory.LazyFunction(uuid4)
    body = '{"type":"server.status_changed","timestamp":"2025-01-10T14:30:00.000Z","data":{}}'


def wish_for(kind: OperationKind) -> Wish:
    """A sound wish of this kind: a resize to a plan, a rebuild with a system."""
    if kind == OperationKind.RESIZE:
        return resize_to(PlanFactory.create())
    if kind == OperationKind.CREATE:
        return CreateWish(backup_id=None)
    if kind == OperationKind.RESTORE:
        return RestoreWish(backup_id=BackupFactory.create().pk, disk_number=2)
    if kind == OperationKind.REBUILD:
        return rebuild_with(OsVersionFactory.create(), disk_number=2)
    return Wish()


def token_for(account: Account, *permissions: str) -> str:
    """The secret of a new token."""
    _, secret = issue_token(account=account, name="tests", permissions=permissions or ["*:*"])
    return secret
