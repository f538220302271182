"""What a customer's program does with the client that openapi-python-client made of docs/openapi.yaml.

Usage: use_client.py URL TOKEN.  Makes a server, waits for it, is refused something, and deletes the server.
"""

import sys
from http import HTTPStatus

from virtual_private_servers_client import AuthenticatedClient
from virtual_private_servers_client.api.operations import operations_retrieve
from virtual_private_servers_client.api.servers import (
    servers_create,
    servers_destroy,
    servers_list,
    servers_operations,
    servers_retrieve,
    servers_start,
)
from virtual_private_servers_client.models import (
    CreatedServer,
    CreateServer,
    OperationStatus,
    Problem,
    ServerDetail,
    ServerStatus,
)


def main(url: str, token: str) -> None:
    client = AuthenticatedClient(base_url=url, token=token, timeout=60)
    wanted = CreateServer(name="made-by-python", plan_id=3, os_id=5, location="us-west")
    made = servers_create.sync(client=client, body=wanted)
    assert isinstance(made, CreatedServer), made
    operation = servers_operations.sync(str(made.id), client=client).results[0]
    while operation.status in {OperationStatus.QUEUED, OperationStatus.RUNNING}:
        operation = operations_retrieve.sync(str(operation.id), client=client, wait=30)
    assert operation.status == OperationStatus.SUCCEEDED, operation
    server = servers_retrieve.sync(str(made.uuid), client=client)
    assert isinstance(server, ServerDetail), server
    assert (server.status, server.name, server.plan.id) == ("active", "made-by-python", 3)
    assert made.id in [
        listed.id for listed in servers_list.sync(client=client, status=ServerStatus.ACTIVE).results
    ]
    refused = servers_start.sync_detailed(str(made.id), client=client)
    assert refused.status_code == HTTPStatus.BAD_REQUEST
    assert isinstance(refused.parsed, Problem), refused.parsed
    assert refused.parsed.code == "already_running"
    assert servers_destroy.sync_detailed(str(made.id), client=client).status_code == HTTPStatus.NO_CONTENT


if __name__ == "__main__":
    main(*sys.argv[1:])
