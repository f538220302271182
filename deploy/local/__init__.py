"""The whole product on one machine: private Postgres, Redis and libvirt under one folder.

Everything here lives in a folder VAR (``var/`` in the project, or what VPS_VAR
names) and nothing outside it is touched: no port but the API's, none of the
machine's own services, no address but inside a network namespace.
"""
