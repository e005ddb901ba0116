#!/bin/sh
# What the recipe `devbox` promises, asked from inside: what is set, what runs, what was left out, and programs in each of its languages.
# It boots with a network; every check prints a line, and the last line is "ok: ..." if none failed.
failed=0
work=$(mktemp -d)
cd "$work" || exit 1

# check WHAT COMMAND...: the command succeeds.
check() {
    what=$1
    shift
    if said=$("$@" 2>&1); then
        echo "   $what"
    else
        failed=$((failed + 1))
        echo "   FAILED $what: $said"
    fi
}
# is WHAT WANTED COMMAND...: the command prints this.
is() {
    what=$1 wanted=$2
    shift 2
    said=$("$@" 2>&1)
    if [ "$said" = "$wanted" ]; then
        echo "   $what: $(echo "$said" | tr '\n' ' ')"
    else
        failed=$((failed + 1))
        echo "   FAILED $what: wanted \"$wanted\", found \"$said\""
    fi
}
# Nothing below these folders but what is named behind.
only() {
    [ -z "$(find "$@" -print -quit)" ]
}

# Until everything that starts has started, or has failed.
state=$(systemctl is-system-running --wait 2> /dev/null)

echo "settings"
is "hostname" bouvet hostname
is "/etc/hostname" bouvet cat /etc/hostname
check "its own name in /etc/hosts" getent hosts bouvet
is "fstab" "/dev/vda / ext4 defaults 0 1" cat /etc/fstab
is "interfaces" "auto lo iface lo inet loopback auto eth0 iface eth0 inet dhcp" sh -c 'echo $(cat /etc/network/interfaces)'
is "modules to load" "vsock vmw_vsock_virtio_transport" sh -c 'echo $(grep -v "^#" /etc/modules-load.d/firebrick.conf)'
is "root's password" L sh -c 'passwd -S root | cut -d " " -f 2'
is "PID 1" systemd cat /proc/1/comm

echo "services"
is "agent" active systemctl is-active firebrick-agent
is "agent's restarts" "Restart=on-failure RestartUSec=2s StartLimitIntervalUSec=1min StartLimitBurst=5" \
    sh -c 'echo $(for p in Restart RestartUSec StartLimitIntervalUSec StartLimitBurst; do systemctl show -p $p firebrick-agent; done)'
is "console" active systemctl is-active serial-getty@ttyS0
check "eth0 has an address by DHCP" sh -c 'ip -4 -o address show dev eth0 | grep -q "inet 10\.0\.2\."'
check "a name server by DHCP" grep -q '^nameserver 10\.0\.2\.' /etc/resolv.conf
is "failed units" "" sh -c 'systemctl --failed --plain --no-legend | cut -d " " -f 1'
is "the whole system" running echo "$state"

echo "slimming"
check "documentation: licences only" only /usr/share/doc -type f ! -iname 'copyright*' ! -iname 'licen[cs]e*' ! -iname 'copying*' ! -iname 'notice*'
check "no manual pages" only /usr/share/man ! -type d
check "no info pages" only /usr/share/info ! -type d
check "no translations but English" only /usr/share/locale -name '*.mo' ! -path '*/en*'
check "no package lists" only /var/lib/apt/lists -name '*Packages*'
check "no package files" only /var/cache/apt -type f
check "no compiled Python" only /usr/lib/python3 /usr/share -name '*.pyc' ! -newer /proc/1/stat
check "no files of before in /tmp" only /var/tmp -maxdepth 1 -mindepth 1 ! -name 'systemd-private-*'
is "dpkg --audit" "" dpkg --audit
check "apt-get check" apt-get check

echo "programs"
for program in python3 python pip3 node npm bash shellcheck rustc cargo rustfmt gcc g++ make cmake clang clang++ git curl wget rsync \
    jq tree strace gdb vim nano less htop xz zip unzip ping dig; do
    case $program in
        ping) option=-V ;;
        dig | unzip) option=-v ;;
        *) option=--version ;;
    esac
    "$program" "$option" > said 2>&1 || { failed=$((failed + 1)); echo "   FAILED $program $option: $(cat said)"; }
done
for program in ssh ip ifup dhclient pkg-config clippy-driver cargo-clippy; do
    command -v "$program" > /dev/null || { failed=$((failed + 1)); echo "   FAILED $program: not there"; }
done

cat > answer.c << 'C'
#include <math.h>
#include <stdio.h>
int main(void) { printf("%d\n", (int)round(sqrt(1764.0))); }
C
cat > answer.cpp << 'CPP'
#include <iostream>
#include <numeric>
#include <vector>
int main() { std::vector<int> v(12); std::iota(v.begin(), v.end(), -2); std::cout << std::accumulate(v.begin(), v.end(), 0) << "\n"; }
CPP
is "C by gcc" 42 sh -c 'gcc -O2 -Wall -o c answer.c -lm && ./c'
is "C by clang" 42 sh -c 'clang -O2 -Wall -o c2 answer.c -lm && ./c2'
is "C++ by g++" 42 sh -c 'g++ -O2 -o cpp answer.cpp && ./cpp'
is "Rust by cargo" 42 sh -c 'cargo new --quiet --vcs none --name answer rust && cd rust && echo "fn main() { println!(\"{}\", (1..=6).sum::<u32>() * 2) }" > src/main.rs && cargo run --quiet --offline'
is "Python" 42 python3 -c 'import ssl, sqlite3, lzma; print(sum(range(4)) * 7)'
is "Python in a venv" 42 sh -c 'python3 -m venv --without-pip venv && venv/bin/python -c "print(6 * 7)"'
is "Node.js" 42 node -e 'require("crypto"); console.log([1, 2, 3].reduce((a, b) => a + b) * 7)'
is "Bash" 42 bash -c 'declare -A a=([x]=6 [y]=7); echo $((a[x] * a[y]))'
is "shellcheck" "" sh -c 'echo "#!/bin/sh" > s.sh; echo "echo hello" >> s.sh; shellcheck s.sh'
is "strace sees calls" 42 sh -c 'strace -qq -o calls -e trace=write ./c && grep -q "write(1" calls'

[ "$failed" -eq 0 ] || { echo "$failed checks failed"; exit 1; }
second() { "$@" | cut -d ' ' -f 2; }
echo "ok: GCC $(gcc -dumpfullversion), Rust $(second rustc --version), Python $(second python3 --version), Node.js $(node --version | tr -d v); every setting, service and tool"
