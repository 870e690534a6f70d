#!/usr/bin/env bash
# The sum of gradients between two hosts made of network namespaces: bytes and seconds a step. Needs root, ip, tc and the
# mpich of `pip install "fastlstm[mpi]"`.
#   benchmarks/two_hosts.sh 1gbit 0.2ms
# Another module of benchmarks and its options may follow: benchmarks.overlap, a training on both.
set -euo pipefail
cd "$(dirname "$0")/.."
rate=${1:-1gbit} delay=${2:-0.2ms}
program=("${@:3}")
[[ ${#program[@]} -gt 0 ]] || program=(benchmarks.exchange)

first=fastlstm-$$-1 second=fastlstm-$$-2
scratch=$(mktemp -d)
trap 'ip netns del $first 2>/dev/null; ip netns del $second 2>/dev/null; rm -rf "$scratch"' EXIT
ip netns add $first
ip netns add $second
ip link add veth0 netns $first type veth peer name veth0 netns $second
number=1
for host in $first $second; do
  ip -n $host addr add 10.77.0.$number/24 dev veth0
  ip -n $host link set lo up
  ip -n $host link set veth0 up
  tc -n $host qdisc add dev veth0 root handle 1: tbf rate "$rate" burst 256kb latency 50ms
  # Not every kernel can delay what it sends.
  tc -n $host qdisc add dev veth0 parent 1:1 handle 2: netem delay "$delay" limit 100000 2>/dev/null || delay="no delay"
  number=$((number + 1))
done

# mpiexec starts the processes of a host by this command in the place of ssh.
cat >"$scratch/enter" <<END
#!/usr/bin/env bash
while [[ \$1 == -* ]]; do shift; done
host=\$1; shift
case \$host in *.1) name=$first ;; *) name=$second ;; esac
exec ip netns exec \$name bash -c "\$*"
END
chmod +x "$scratch/enter"
echo "$rate each way, $delay"
ip netns exec $first mpiexec -launcher ssh -launcher-exec "$scratch/enter" -iface veth0 -hosts 10.77.0.1,10.77.0.2 -n 2 \
  -genv MPIR_CVAR_NOLOCAL 1 -genv FI_PROVIDER tcp -genv FI_TCP_IFACE veth0 -genv UCX_TLS tcp,self -genv UCX_NET_DEVICES veth0 "$(command -v python)" -m "${program[@]}"
