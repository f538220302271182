from ipaddress import ip_address

from django.db import migrations, models


def reserve_gateways_and_nameservers(apps, schema_editor):
    """They were left out or, nameservers, given out.  Those left out by --reserve nobody knows any more."""
    IpPool, IpAddress = (apps.get_model("inventory", name) for name in ("IpPool", "IpAddress"))
    for pool in IpPool.objects.all():
        kept_back = [str(ip_address(text)) for text in {pool.gateway, *pool.nameservers}]
        IpAddress.objects.filter(address__in=kept_back).update(is_reserved=True)


def leave_reserved_ones_out(apps, schema_editor):
    """Before, an address that was never given out had no row."""
    apps.get_model("inventory", "IpAddress").objects.filter(is_reserved=True, placement=None).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("inventory", "0002_circuit_breaker_and_operation_limit"),
    ]

    operations = [
        migrations.AddField(
            model_name="ipaddress",
            name="is_reserved",
            field=models.BooleanField(
                default=False, help_text="Never given out. A server that holds it keeps it until it is deleted."
            ),
        ),
        migrations.RunPython(reserve_gateways_and_nameservers, leave_reserved_ones_out),
        migrations.RemoveIndex(model_name="ipaddress", name="free_ip_addresses"),
        migrations.AddIndex(
            model_name="ipaddress",
            index=models.Index(
                condition=models.Q(("is_reserved", False), ("placement", None)),
                fields=["pool", "rests_until"],
                name="free_ip_addresses",
            ),
        ),
    ]
