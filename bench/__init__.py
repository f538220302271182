"""What the product costs, measured beside something simpler in the same run, taking turns.

``make bench-api``: reading, beside a view written by hand (``by_hand``) that asks the
same questions of the database and answers with the same bytes.

``make bench-provision``: making servers, beside a bare libvirt script and virt-install.
"""
