"""A customer's receiver is told of a server's life by the product's own processes."""

import time
from typing import Any

from deploy.local.processes import wait_for
from tests.e2e.conftest import Product
from tests.e2e.test_life_of_a_server import order
from tests.receiver import receiving
from tests.unit.test_webhook_signing import verify

PATIENCE_S = 60


def test_a_receiver_is_told_and_one_that_was_ill_is_told_again(product: Product) -> None:
    with receiving() as receiver:
        receiver.answers = [500]
        _, webhook = product.ask("POST", "/webhooks/", {"url": receiver.url()})

        def told() -> list[dict[str, Any]]:
            return [verify(webhook["secret"], heard.headers, heard.body) for heard in receiver.heard]

        server = order(product, name="announced")
        product.ask("DELETE", f"/servers/{server['id']}/")
        deadline = time.monotonic() + PATIENCE_S
        # The first message twice: the scheduler found it when it was due again.
        while len(told()) < 2 or not {"provisioning", "deleting", "deleted"} <= {
            message["data"]["status"] for message in told()[1:]
        }:
            assert time.monotonic() < deadline, (told(), product.log("webhooks"))
            time.sleep(0.2)

        def log() -> list[dict[str, Any]]:
            return list(product.ask("GET", f"/webhooks/{webhook['id']}/deliveries/")[1]["results"])

        # A receiver hears of the last before its answer is written down.
        assert wait_for(lambda: {row["status"] for row in log()} == {"delivered"}, PATIENCE_S), log()
        assert max(row["attempts"] for row in log()) == 2
        assert product.ask("DELETE", f"/webhooks/{webhook['id']}/")[0] == 204
