"""Benchmarks: each measures the product beside something simpler, in turns, in the same run.

``make bench-api``: reading, beside a view written by hand (``by_hand``) that asks the
same questions of the database and answers with the same bytes.

``make bench-backup``: copying disks of guests that run, and making disks from the copies, beside qemu-img.

``make bench-provision``: making servers, beside a bare libvirt script and virt-install.
"""
