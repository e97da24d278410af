"""What a load costs on a machine that everything shares: the CPU time of each part, and the memory of the replicas."""

import os

CPUS = os.cpu_count()


class Costs:
    """The CPU time of each part since this was made."""

    def __init__(self, world):
        self._replicas = world.replicas
        self.parts = {
            "PostgreSQL": world.database, "HAProxy": world.balancer, "authorization server": world.provider.authorization,
            "mail servers": world.provider.mail, **{f"network of {replica.name}": replica.network.process for replica in world.replicas},
            **{replica.name: replica for replica in world.replicas},
        }
        self._before = {name: part.cpu_seconds() for name, part in self.parts.items()}
        self._driver = sum(os.times()[:2])

    def tell(self, seconds):
        """Prints the shares of this machine that they had in this time."""
        used = {name: part.cpu_seconds() - self._before.get(name, 0) for name, part in self.parts.items()}
        used["driver"] = sum(os.times()[:2]) - self._driver
        shares = ", ".join(f"{name} {100 * used[name] / seconds:.1f}" for name in used)
        print(f"    CPU in % of one of {CPUS}: {shares}; together {100 * sum(used.values()) / seconds:.0f}")
        memory = ", ".join(f"{replica.name} {replica.process.memory():.0f} MB, at most {replica.most_memory():.0f}, and {used[replica.name]:.0f} s"
                           for replica in self._replicas)
        print(f"    memory and CPU time of the replicas: {memory}", flush=True)
