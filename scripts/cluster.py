"""Three nodes of a fresh cluster on this machine, for the scripts that measure."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


def some_port():
    """The first of a row of ports, below those that the system hands out to connections."""
    return random.randrange(10_000, 32_000)


class Cluster:
    """Three nodes under a folder of their own."""

    def __init__(self, conclave):
        self.conclave = conclave
        self.folder = tempfile.TemporaryDirectory()
        self.port = some_port()
        with open(f"{self.folder.name}/log", "w") as log:
            self.dev = subprocess.Popen(
                [conclave, "dev", "--dir", f"{self.folder.name}/cluster", "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        for line in self.dev.stdout:
            if line == "ready\n":
                break
        else:
            sys.exit(open(f"{self.folder.name}/log").read())
        with open(f"{self.folder.name}/cluster/cluster.json") as described:
            self.nodes = json.load(described)["nodes"]
        self.home = f"{self.folder.name}/cluster"
        self.restarted = {}

    def stop(self):
        for process in self.restarted.values():
            process.terminate()
            process.wait(30)
        self.dev.terminate()
        self.dev.wait(30)
        self.folder.cleanup()

    def spent(self):
        """Of all nodes: CPU seconds, syncs, bytes between nodes."""
        cpu = syncs = sent = 0
        for node in self.nodes:
            with open(f"/proc/{node['pid']}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            with urllib.request.urlopen(f"http://{node['admin']}/metrics") as metrics:
                for line in metrics.read().decode().splitlines():
                    name, _, value = line.rpartition(" ")
                    if name in ("conclave_audit_syncs_total", "conclave_raft_syncs_total"):
                        syncs += int(value)
                    elif name.startswith("conclave_link_sent_bytes_total"):
                        sent += int(value)
        return cpu, syncs, sent

    def load(self, scenario, in_flight, seconds, rate=None):
        """Starts `conclave bench`, whose output is one JSON object."""
        command = [self.conclave, "bench", "--url", f"https://localhost:{self.port}"]
        command += ["--ca", f"{self.folder.name}/cluster/ca.pem", "--scenario", scenario, "--json"]
        command += ["--in-flight", str(in_flight), "--seconds", str(seconds)]
        if rate:
            command += ["--rate", str(rate)]
        for node in self.nodes:
            command += ["--connect", node["https"]]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(self, scenario, in_flight, seconds):
        before = self.spent()
        result = json.loads(self.load(scenario, in_flight, seconds).communicate()[0])
        # Operations, not requests: a request of a batch is several.
        operations = max(result["rate"] * result["seconds"], 1)
        cpu, syncs, sent = (after - then for after, then in zip(self.spent(), before))
        result.update(cpu_ms=cpu * 1000 / operations, syncs=syncs / operations, bytes=sent / operations)
        return result

    def fill(self, keys, spread):
        """Makes so many keys and a few more; how many. Spread: a keystore for each; else some two thousand in a keystore."""
        made, rate = 0, 0.0
        scenario, longest = ("fill", 120) if spread else ("generate", 10)
        while made < keys:
            seconds = 10 if rate == 0 else max(1, min(longest, round((keys - made) / rate)))
            filled = self.run(scenario, 32, seconds)
            made += filled["requests"] - sum(filled["errors"].values())
            rate = max(filled["rate"], 1)
        return made

    def pace(self, keys_per_second):
        """Restarts every node with this pace of renewals and moves."""
        for place, node in enumerate(self.nodes):
            path = os.path.join(self.home, node["config"])
            with open(path) as file:
                text = file.read()
            with open(path, "w") as file:
                file.write(text.replace("keys_per_second = 20", f"keys_per_second = {keys_per_second}"))
            self.restart(place)

    def settle(self, actors=100):
        """Waits until keystores that nobody uses are passive: at most two minutes."""
        for _ in range(240):
            active = 0
            for node in self.nodes:
                with urllib.request.urlopen(f"http://{node['admin']}/metrics") as metrics:
                    for line in metrics.read().decode().splitlines():
                        if line.startswith("conclave_keystore_actors "):
                            active = max(active, int(line.split()[1]))
            if active <= actors:
                return
            time.sleep(0.5)

    def resident_mib(self):
        """Of the largest node."""
        largest = 0
        for node in self.nodes:
            with open(f"/proc/{node['pid']}/status") as status:
                line = next(line for line in status if line.startswith("VmRSS:"))
            largest = max(largest, int(line.split()[1]) / 1024)
        return largest

    def disk_mib(self):
        """Of the largest node, without the audit record, whose segments are preallocated."""
        return max(self.of_files(node, lambda folder: "/audit" not in folder)[1] for node in self.nodes)

    def audit(self):
        """Of the node with most: (segments, MiB)."""
        return max(self.of_files(node, lambda folder: "/audit" in folder) for node in self.nodes)

    def of_files(self, node, wanted):
        """(number, MiB) of a node's files in folders that are wanted. Files that go while this looks do not count."""
        count = total = 0
        for folder, _, files in os.walk(os.path.join(self.home, node["data_dir"])):
            if not wanted(folder):
                continue
            for file in files:
                try:
                    total += os.path.getsize(os.path.join(folder, file))
                    count += 1
                except FileNotFoundError:
                    pass
        return count, total / 2**20

    def restart(self, place):
        """SIGKILL to a node and a new start; seconds until it is ready."""
        node = self.nodes[place]
        if place not in self.restarted or self.restarted[place].poll() is None:
            os.kill(node["pid"], 9)
        if place in self.restarted:
            self.restarted[place].wait()
        while os.path.exists(f"/proc/{node['pid']}") and place not in self.restarted:
            with open(f"/proc/{node['pid']}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    break
            time.sleep(0.01)
        began = time.perf_counter()
        with open(f"{self.folder.name}/restarted-{place}", "a") as log:
            command = [self.conclave, "server", "--config", os.path.join(self.home, node["config"])]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.restarted[place] = process
        node["pid"] = process.pid
        while True:
            try:
                with urllib.request.urlopen(f"http://{node['admin']}/health/ready") as ready:
                    if ready.status == 200:
                        return time.perf_counter() - began
            except (urllib.error.URLError, ConnectionError):
                pass
            if process.poll() is not None:
                # The old process's last threads still held its folder.
                return self.restart(place)
            time.sleep(0.01)
