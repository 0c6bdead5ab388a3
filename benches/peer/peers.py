#!/usr/bin/env python3
"""Adds this system to the harness that measures other job queues, and runs it there: same payload, same counts.

    benches/peer/peers.py HARNESS [app-redis|app-rabbit] [reps] [parts]

HARNESS is the harness's folder: its servers.sh starts Redis and RabbitMQ, and its bench.py measures. MongoDB is
$TEST_MONGODB_URL (a replica set). Build first: cargo bench --bench peer --no-run
"""
import glob, os, subprocess, sys, uuid

harness, names = os.path.abspath(sys.argv[1]), [a for a in sys.argv[2:3]]
reps = int(sys.argv[3]) if len(sys.argv) > 3 else 3
parts = sys.argv[4] if len(sys.argv) > 4 else "dlc"
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
binaries = [p for p in glob.glob(f"{root}/target/release/deps/peer-*") if not p.endswith(".d")]
if not binaries:
    sys.exit("error: no binary: run `cargo bench --bench peer --no-run` first")
binary = max(binaries, key=os.path.getmtime)

sys.argv = ["bench.py"]
sys.path.insert(0, harness)
import bench  # noqa: E402

mongodb = os.environ.get("TEST_MONGODB_URL", "")
base, _, options = mongodb.partition("?")
for name, broker in [("app-redis", bench.R(12)), ("app-rabbit", bench.AMQP)]:
    # A new database and new names for each run of the harness, which knows nothing of MongoDB.
    unique = uuid.uuid4().hex[:8]
    store = f"{base.rstrip('/')}/peer_{unique}?{options}"
    env = {"STORE": store, "BROKER": broker, "PREFIX": f"peer-{unique}-"}
    bench.peer(name, 12, "log", [binary, "produce"], [binary, "work"], env, n=30000, bulk_n=50000, crash=(6000, 20))
os.makedirs(f"{harness}/log", exist_ok=True)

# The harness wipes its own servers between drains; jobs in MongoDB are told apart by a new database each time.
wipe = bench.Bench.wipe


def fresh(self):
    wipe(self)
    unique = uuid.uuid4().hex[:8]
    if self.name.startswith("app-"):
        self.p["env"]["STORE"] = f"{base.rstrip('/')}/peer_{unique}?{options}"
        self.p["env"]["PREFIX"] = f"peer-{unique}-"


bench.Bench.wipe = fresh
if subprocess.run(["redis-cli", "-p", "16379", "ping"], stdout=subprocess.DEVNULL).returncode:
    subprocess.run([f"{harness}/servers.sh", "start"], check=True)
for name in names or ["app-redis", "app-rabbit"]:
    bench.Bench(name).run(reps, parts)
