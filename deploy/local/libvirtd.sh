#!/bin/sh
# The inside of a private libvirtd:  libvirtd.sh FOLDER
#
# To be run by root in mount and network namespaces of its own.  libvirtd finds
# FOLDER's parts where it expects /etc/libvirt and the like.  It lives, with all
# its guests, until standard input ends or brings a line: whoever started it holds
# the other end, and however he goes, his guests go too.
set -eu
umask 022
folder=$1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
# No talk to the machine's own services: its firewalld would write rules outside.
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent

# As after a reboot: no guest and no bridge of an earlier run is left.
rm -rf "$folder/run"
for part in etc:/etc/libvirt lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt run:/run/libvirt; do
    mkdir -p "$folder/${part%%:*}" "${part#*:}"
    mount --bind "$folder/${part%%:*}" "${part#*:}"
done
# Packages make these, libvirtd does not.
mkdir -p /var/lib/libvirt/boot /var/lib/libvirt/dnsmasq /var/lib/libvirt/images /var/log/libvirt/qemu "$folder/pool"
[ -d /etc/libvirt/nwfilter ] || cp -R /usr/share/libvirt/nwfilter /etc/libvirt/nwfilter

# The sockets are open to all who reach them: FOLDER lets only its owner in.
[ -s "$folder/uuid" ] || cat /proc/sys/kernel/random/uuid >"$folder/uuid"
cat >/etc/libvirt/libvirtd.conf <<END
host_uuid = "$(cat "$folder/uuid")"
listen_tls = 0
unix_sock_rw_perms = "0777"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
END
# For a laboratory only: guests run as root and nothing but their emulation confines them.
# Under sudo a larger core file may not be asked for, and newer libvirts ask.
cat >/etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
max_core = 0
END

mount -t sysfs sysfs /sys # shows the interfaces of this network namespace
ip link set lo up
# An address on a bridge without guests would otherwise stay "tentative" and unusable.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad

# Can this kernel limit a guest's traffic as libvirt does it?  Those of containers and
# of small virtual machines often cannot.
can_limit() {
    tc qdisc add dev lo root handle 1: htb default 1 &&
        tc class add dev lo parent 1: classid 1:1 htb rate 1mbit &&
        tc qdisc add dev lo parent 1:1 handle 2: sfq &&
        tc filter add dev lo parent 1:0 protocol all prio 1 handle 1 fw flowid 1 &&
        tc qdisc add dev lo ingress &&
        tc filter add dev lo parent ffff: protocol all u32 match u32 0 0 police rate 1mbit burst 10k drop
}
limits=yes
can_limit 2>/dev/null || limits=no
for half in root ingress; do
    tc qdisc del dev lo "$half" 2>/dev/null || true
done
if [ $limits = no ]; then
    echo "This kernel cannot limit traffic (sfq, fw or police is missing): guests run without limits." >&2
    mkdir /run/libvirt/bin
    printf '#!/bin/sh\n' >/run/libvirt/bin/tc
    chmod 755 /run/libvirt/bin/tc
    PATH=/run/libvirt/bin:$PATH
fi

echo $$ >"$folder/pid"
# A process namespace of its own: when its first process ends, so does every guest.
# tini reaps at once, else each destroy of a guest waits for a second.
# shellcheck disable=SC2016
exec unshare --pid --fork --kill-child --mount-proc -- tini -- sh -c '
    exec 3<&0
    pid=/run/libvirt/libvirtd.pid
    # Writes the logs of consoles, and keeps them small.
    while virtlogd --pid-file /run/libvirt/virtlogd.pid </dev/null 3<&-; [ ! -e /run/libvirt/over ]; do sleep 0.2; done &
    # After a crash it comes back and finds its guests running, as under systemd.
    while libvirtd --pid-file $pid </dev/null 3<&-; [ $? -gt 128 ] && [ ! -e /run/libvirt/over ]; do sleep 0.2; done &
    daemon=$!
    { read -r _; touch /run/libvirt/over; kill $(cat $pid); sleep 3; kill -KILL $(cat $pid); } <&3 3<&- &
    exec 3<&-
    wait $daemon
'
