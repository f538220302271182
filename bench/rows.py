"""python -m bench.rows 200000: so many servers in an empty database, 1,000 of them of one account.

Prints a token of that account and the id of one of its servers.
"""

import sys

import django
from django.db import connection

OF_ONE_ACCOUNT = 1_000
# Each row is a copy of the first, whatever columns there are, but for what should differ.
SERVERS = """
    INSERT INTO servers_server
    SELECT copy.* FROM servers_server first, generate_series(1, %(servers)s - 1) i,
    LATERAL jsonb_populate_record(first, jsonb_build_object(
        'id', first.id + i,
        'uuid', gen_random_uuid(),
        'account_id', first.account_id + i %% %(accounts)s,
        'name', 'server-' || i,
        'hostname', 'server-' || i || '.example.com',
        'plan_id', 1 + i %% 4,
        'os_version_id', 3 + i %% 4,
        'location_id', 1 + i %% 3,
        'status', CASE WHEN i %% 5 = 0 THEN 'stopped' ELSE 'active' END,
        'ip_address', '100.64.0.0'::inet + i,
        'ipv6_address', '2001:db8::'::inet + i
    )) copy
"""
USAGE = """
    INSERT INTO servers_resourceusage
    SELECT copy.* FROM servers_resourceusage first, servers_server server,
    LATERAL jsonb_populate_record(first, jsonb_build_object(
        'id', first.id + server.id,
        'server_id', server.id,
        'cpu_percent', server.id %% 1000 / 10.0,
        'received_bytes', server.id * 10000000
    )) copy
    WHERE server.id <> first.server_id
"""


def load(servers: int) -> tuple[str, int]:
    from accounts.models import Account
    from accounts.services import issue_token
    from images.models import Image
    from servers.models import ResourceUsage, Server

    accounts = Account.objects.bulk_create(
        Account(email=f"{number}@example.com") for number in range(servers // OF_ONE_ACCOUNT)
    )
    image = Image.objects.create(
        sha256="0" * 64, size_bytes=1, virtual_size_bytes=1, minimum_disk_gib=1, has_agent=False
    )
    first = Server.objects.create(
        account=accounts[0],
        name="server-0",
        hostname="",
        plan_id=1,
        os_version_id=3,
        base_image=image,
        location_id=1,
    )
    ResourceUsage.objects.create(server=first)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # no foreign keys checked, row by row
        cursor.execute(SERVERS, {"accounts": len(accounts), "servers": servers})
        cursor.execute(USAGE, {})
        cursor.execute("VACUUM ANALYZE")
    _, secret = issue_token(account=accounts[0], name="bench")
    newest = Server.objects.filter(account=accounts[0]).latest("pk")
    return secret, newest.pk


if __name__ == "__main__":
    django.setup()
    print(*load(int(sys.argv[1])))
