# SPDX-License-Identifier: BSD-3-Clause
"""What tests of networks do in guests, and the hosts that guests talk to."""

import contextlib
import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import tap  # noqa: E402

NAMESPACE = "PENSTOCK_TEST_NAMESPACE"


# --- a host of our own ------------------------------------------------------

def own_namespace():
    """Go on in a network namespace of the test's own: passt takes its guest's addresses from its host, and whether it
    may send echo requests is a setting of the namespace."""
    if NAMESPACE not in os.environ:
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        os.execvpe("unshare", ["unshare", *as_root, "--net", sys.executable, *sys.argv],
                   {**os.environ, NAMESPACE: "1"})


def uplink(lab):
    """Give the namespace an uplink, and a router behind it, another namespace."""
    router = lab.end_with(subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 3600"],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
    router.stdout.readline()
    inside = ["nsenter", "--net", "--target", str(router.pid)]
    for where, words in (([], "link set lo up"), ([], "link add uplink type veth peer name world"),
                         ([], f"link set world netns {router.pid}"), ([], "link set uplink up"),
                         (inside, f"addr add {GATEWAY}/24 dev world"),
                         (inside, f"-6 addr add {GATEWAY6}/64 dev world nodad"), (inside, "link set world up"),
                         ([], f"addr add {OWN}/24 dev uplink"), ([], f"route add default via {GATEWAY}"),
                         ([], f"-6 addr add {OWN6}/64 dev uplink nodad"), ([], f"-6 route add default via {GATEWAY6}")):
        subprocess.run([*where, "ip", *words.split()], check=True, timeout=10)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")


# How a guest reaches the host's loopback interface: by the gateway that passt tells it of.
GATEWAY, GATEWAY6 = "198.51.100.1", "2001:db8::1"
OWN, OWN6 = "198.51.100.2", "2001:db8::2"

DHCP = """
cat >/tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip link set mtu $mtu dev $interface
ip route add default via $router
env >/tmp/lease
END
chmod +x /tmp/dhcp
udhcpc -i {dev} -n -q -t 10 -T 1 -O mtu -s /tmp/dhcp 2>&1 && cat /tmp/lease
"""


class Web(http.server.ThreadingHTTPServer):
    """An HTTP server on the loopback interface. GET /BYTES: that many, the same each time, see content(); POST: the
    MD5 sum of what was sent."""

    def __init__(self, address="127.0.0.1"):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), WebRequest)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class WebRequest(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(content(int(self.path.strip("/"))))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(hashlib.md5(body).hexdigest().encode() + b"\n")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def content(size):
    """`size` bytes that look random."""
    return hashlib.shake_128(b"penstock").digest(size)


def content_sum(size):
    return hashlib.md5(content(size)).hexdigest()


def free_port(address="127.0.0.1"):
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        free.bind((address, 0))
        return free.getsockname()[1]


def iperf_server(lab, address="127.0.0.1"):
    """iperf3's server on the host's loopback interface; its port."""
    port = free_port(address)
    lab.end_with(subprocess.Popen(["iperf3", "-s", "-B", address, "-p", str(port)], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL))
    deadline = time.monotonic() + 10
    while f":{port:04X} " not in Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text():
        tap.check(time.monotonic() < deadline, "iperf3 does not listen")
        time.sleep(0.05)
    return port


# --- in the guest -----------------------------------------------------------

def address(guest, dev, *addresses):
    """Give a card addresses: "10.0.0.1/24", "fd00::1/64"."""
    guest.run("\n".join(f"ip addr add {one} dev {dev} || exit 1" for one in addresses))


def ping(guest, to, count=3, size=56, flags=""):
    """Echo requests, all of which must be answered."""
    status, said = guest.attempt(f"ping -c {count} -i 0.2 -W 5 -s {size} {flags} {to}")
    tap.check(status == 0 and re.search(r" 0% packet loss", said), f"ping {to}, {size} bytes: {said}")


def no_ping(guest, to):
    status, said = guest.attempt(f"ping -c 2 -i 0.2 -W 1 {to}")
    tap.check(status != 0, f"{to} can be reached:\n{said}")


def wait_for_ping(guest, to, seconds=20):
    """Wait until an echo request is answered."""
    deadline = time.monotonic() + seconds
    while guest.attempt(f"ping -c 1 -W 1 {to}")[0]:
        tap.check(time.monotonic() < deadline, f"{to} could not be reached within {seconds} s")


def iperf_client(guest, words, timeout):
    """What iperf3 says. Its server serves one client, and may not be done with the one before."""
    for _ in range(10):
        status, said = guest.attempt(f"iperf3 -f m --connect-timeout 5000 {words}", timeout)
        if "the server is busy" not in said:
            break
        time.sleep(1)
    tap.equal(status, 0, f"status of iperf3 {words}, which said {said}{guest.complaints()}")
    return said


def iperf(guest, to, *flags, seconds=2, port=5201):
    """iperf3 from the guest; what the receiver got, in Mbit/s. For UDP see udp()."""
    said = iperf_client(guest, f"-c {to} -p {port} -t {seconds} {' '.join(flags)}", seconds + 60)
    found = re.findall(r"([\d.]+) Mbits/sec.*receiver", said)
    tap.check(found and float(found[-1]) > 1, f"iperf3 {to} {flags}:\n{said}")
    return float(found[-1])


def udp(guest, to, *flags, rate=20, seconds=2, port=5201):
    """iperf3 with UDP at `rate` Mbit/s: nearly all arrives, unless the host has no time to run the guest: it may try six
    times."""
    for _ in range(6):
        said = iperf_client(guest, f"-u -b {rate}M -c {to} -p {port} -t {seconds} {' '.join(flags)}", seconds + 60)
        found = re.search(r"([\d.]+) Mbits/sec.*\(([\d.e+-]+)%\)\s+receiver", said)
        if found and float(found[1]) > rate / 2 and float(found[2]) < 20:
            return
    raise tap.Failure(f"iperf3 -u {to} {flags}:\n{said}")


def serve(guest):
    """Servers in the guest: iperf3's for TCP and UDP, and one that answers with the MD5 sum of what it is sent."""
    # iperf3's server ends when select() is interrupted at a bad moment.
    guest.run("(while :; do iperf3 -s; done) </dev/null >/tmp/iperf3.log 2>&1 &\n"
              "nc -ll -p 5000 -e /bin/md5sum </dev/null >/tmp/nc.log 2>&1 &\n"
              "for port in 5201 5000; do i=0; until netstat -ltn | grep -q :$port; do sleep 0.1; i=$((i + 1)); "
              "[ $i -lt 100 ] || exit 1; done; done")


def send_file(guest, to, mib=2, port=5000):
    """A file goes by TCP to such a server, and its sum comes back."""
    said = guest.run(f"[ -e /tmp/{mib}M ] || dd if=/dev/urandom of=/tmp/{mib}M bs=1M count={mib} 2>/dev/null\n"
                     f"nc -w 20 {to} {port} </tmp/{mib}M && md5sum </tmp/{mib}M").split()
    sums = [word for word in said if word != "-"]
    tap.check(len(sums) == 2 and sums[0] == sums[1], f"{mib} MiB to {to}: the receiver's sum, and the sender's: {said}")


def fetch(guest, url, size=4 << 20):
    """`size` bytes come from a Web."""
    got = guest.run(f"wget -q -O - http://{url}/{size} | md5sum").split()[0]
    tap.equal(got, content_sum(size), f"the sum of {size} bytes from {url}")


def post(guest, url, mib=4):
    """A file goes to a Web, and its sum comes back."""
    # busybox's wget posts texts: nothing after a zero byte.
    said = guest.run(f"[ -e /tmp/text ] || dd if=/dev/urandom bs=1M count={mib} 2>/dev/null | base64 >/tmp/text\n"
                     f"wget -q -O - --post-file=/tmp/text http://{url}/ && md5sum </tmp/text").split()
    tap.equal(said[0], said[1], f"the sum of {mib} MiB at {url}")


class Flow:
    """iperf3 by TCP from a guest until end(): one connection. What it has done since then is in its log."""

    def __init__(self, guest, to, *flags):
        self.guest = guest
        self.log = f"/tmp/flow-{to}"
        for _ in range(10):
            said = guest.run(f"iperf3 -c {to} -t 3600 -i 0.5 --forceflush --connect-timeout 5000 {' '.join(flags)} "
                             f">{self.log} 2>&1 & echo $! >{self.log}.pid; sleep 0.5; cat {self.log}")
            if "the server is busy" not in said:
                break
            time.sleep(1)
        self.goes_on()

    def intervals(self):
        """In how many half seconds something was sent."""
        return int(self.guest.run(f"awk '$4 == \"sec\" && $5 > 0 {{ n++ }} END {{ print n + 0 }}' {self.log}"))

    def goes_on(self, seconds=30, intervals=3):
        """Something is sent, again and again."""
        deadline = time.monotonic() + seconds
        wanted = self.intervals() + intervals
        while self.intervals() < wanted:
            said = self.guest.run(f"tail -n 5 {self.log}")
            tap.check("error" not in said and time.monotonic() < deadline,
                      f"a TCP connection did not go on within {seconds} s; iperf3 said\n{said}")
            time.sleep(0.2)

    def end(self):
        self.guest.run(f"kill -INT $(cat {self.log}.pid); i=0; while [ -d /proc/$(cat {self.log}.pid) ]; do sleep 0.1; "
                       "i=$((i + 1)); [ $i -lt 100 ] || exit 1; done")


def counter(guest, dev, name):
    """One of the guest's counters of a card, such as rx_packets."""
    return int(guest.run(f"cat /sys/class/net/{dev}/statistics/{name}"))


def no_net_errors(guest):
    """The guest's kernel has not complained: of a checksum, a stuck queue, a lost buffer."""
    bad = re.findall(r".*(?:hw csum failure|NETDEV WATCHDOG|bad gso|unexpected txq|Call Trace|BUG:|Oops).*", guest.dmesg())
    tap.check(not bad, "the guest's kernel complains:\n" + "\n".join(bad))
