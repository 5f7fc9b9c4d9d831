#!/bin/sh
# Becomes PID 1 of a real host: sets up the machine's file systems and starts its init.
#
#   realhost.sh BASE PLACE CGROUP
#
# BASE is the root file system, PLACE has the directories upper, work and root of the overlay on it,
# CGROUP is the cgroup2 directory of the machine. tests/stage/realhost.py runs this by unshare(1), as
# the first process of new mount, pid, uts, ipc and network namespaces.
set -eu
base=$1 place=$2 cgroup=$3

# A wrong caller would mount all this over the test machine itself.
[ $$ = 1 ] || { echo "realhost.sh: must be PID 1 of namespaces of its own" >&2; exit 64; }

# What is mounted below belongs to this group. The cgroup namespace comes later: its root is the
# group that a process is in at that moment.
echo 0 >"$cgroup/cgroup.procs"

mount -t overlay -o "lowerdir=$base,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
cd "$place/root"

# The kernel is the test machine's: nothing of it may be changed from inside. udevd stays off where
# /sys is read-only.
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
unshare --cgroup -- mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup

# A devtmpfs would be the test machine's own /dev.
mount -t tmpfs -o nosuid,noexec,mode=755 tmpfs dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,nosuid,noexec,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs run
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs tmp

# Each boot has an id of its own, as on real hardware.
cat proc/sys/kernel/random/uuid >run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id

# From here on no path leads to the test machine's files. systemd-tmpfiles empties every /tmp that it
# sees, and a shutdown unmounts all that it can.
pivot_root . mnt
umount -l /mnt
cd /

# What a container is denied as well: the clock, kernel modules, reboot(2), the kernel's log, raw I/O.
exec unshare --cgroup -- \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_boot,-syslog,-sys_rawio -- \
    env -i container=unshare /sbin/init
