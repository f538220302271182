"""What charging servers costs: CPU of the metering and of Postgres, for each server and hour."""

import json
from statistics import median

from bench.ground import make_empty, manage, python, services
from deploy.local.errors import LocalError
from deploy.local.folder import claimed, var_folder


def main(servers: int, accounts: int) -> None:
    var = var_folder() / "bench"
    with claimed(var), services(var, durable=True) as (postgres, env):
        make_empty(postgres, "vps")
        manage(env, ["migrate", "--verbosity", "0"])
        told = json.loads(python(env, "bench.charges", str(servers), str(accounts)))
    if told["wrong"]:
        raise LocalError(f"The ledger audit has {told['wrong']} findings.")
    each = [1000 * seconds / servers for seconds in told["hours"]]
    print(f"{servers} servers of {accounts} accounts, {len(each)} hours, {told['charged']} hours charged.")
    print(f"CPU for each server and hour: median {median(each):.3f} ms, first hour {each[0]:.3f} ms")
    print(f"ledger audit, nothing proven yet: {told['audit']:.1f} s of CPU")
