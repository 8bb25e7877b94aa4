"""Traces that the simulator makes of operations chosen at random, and nobody has seen before."""

from random import Random
from typing import Any

from tests.conformance.simulator import INVALID, PRIORITIES, Entry, Simulator

SUBSCRIBERS = [("kvm", "mm:mm1"), ("vdcm", "set:s2"), ("vtd", "all"), ("agent", "set:s1")]
"""Who subscribes to what: one scope each, as the simulator needs it."""
ACTIONS = (
    ("on=BIND:get_locked", "on=UNBIND:put_locked"),
    ("on=UNBIND:put_locked",),
    ("on=FREE:put_locked",),
    ("on=FREE:put",),
    ("on=FREE:stop",),
    ("on=BIND:stop",),
    ("on=ALLOC:get_locked",),
    ("on=FREE:defer_detach_put",),
    ("on=FREE:defer_put",),
    (),
    (),
)


def operation(random: Random, *, subscribers: bool) -> list[str]:
    """Choose an operation, out of few names and numbers, so that they meet."""
    name = f"s{random.randint(1, 4)}"
    some = random.choice([name, name, "-"])
    token = f"mm{random.randint(1, 3)}"
    ioasid, spid = str(random.randint(0, 9)), str(random.randint(1, 4))
    sub, scope = random.choice(SUBSCRIBERS)
    quota = str(random.choice([0, 1, 2, 3, 5, 30]))
    amount = str(random.choice([0, 1, 5, 20, 2**31 + 1, INVALID]))
    priority = random.choice([*PRIORITIES])
    kinds = [("mm", token), ("mm", token), ("null", "-"), ("mm", "-"), ("3", "-"), ("0", "-")]
    kind, owner = random.choice(kinds)
    chosen: list[tuple[int, list[str]]] = [
        (6, ["set_alloc", name, kind, owner, quota]),
        (1, ["set_free", name]),
        (16, ["alloc", name, str(random.randint(0, 3)), str(random.randint(2, 12))]),
        (4, ["alloc", name, "1", "9", str(random.randint(1, 99))]),
        (8, ["free", some, ioasid]),
        (8, ["get", some, ioasid]),
        (8, ["put", some, ioasid]),
        (10, ["attach_spid", ioasid, random.choice([spid, spid, spid, "INVALID"])]),
        (6, ["detach_spid", ioasid]),
        (6, ["find_by_spid", name, random.choice([spid] * 5 + ["INVALID"]), random.choice("01")]),
        (4, ["find", some, ioasid]),
        (2, ["find_set", ioasid]),
        (2, ["find_mm_set", token]),
        (4, ["attach_data", ioasid, "7"]),
        (3, ["detach_data", ioasid]),
        (1, ["reserve", amount]),
        (1, ["cancel", amount]),
        (1, ["free_all", name]),
        (1, ["install", random.choice(["7", "64"])]),
        (2, ["for_each", name]),
        (4, ["get_if_owned", token, ioasid]),
    ]
    if subscribers:
        chosen += [
            (8, ["register", sub, scope, priority, *random.choice(ACTIONS)]),
            (2, ["unregister", sub, scope]),
            (4, ["run_work"]),
        ]
    weights, operations = zip(*chosen, strict=True)
    return list(random.choices(operations, weights)[0])


def lively(random: Random) -> list[list[str]]:
    """Begin with two sets and everybody subscribed."""
    registered = [
        ["register", sub, scope, random.choice([*PRIORITIES]), *random.choice(ACTIONS)]
        for sub, scope in random.sample(SUBSCRIBERS, 4)
    ]
    made = [["set_alloc", "s1", "mm", "mm1", "5"], ["set_alloc", "s2", "mm", "mm2", "5"]]
    operations = [registered.pop(), *made, *registered]
    for _ in range(random.randint(4, 30)):
        ioasid, spid = str(random.randint(1, 4)), str(random.randint(1, 4))
        name = random.choice(["s1", "s1", "s2", "-"])
        choice = [
            ["alloc", name, "1", "9"],
            ["attach_spid", ioasid, spid],
            ["detach_spid", ioasid],
            ["get", name, ioasid],
            ["put", name, ioasid],
            ["free", name, ioasid],
            ["run_work"],
        ]
        operations.append(random.choices(choice, [6, 5, 2, 4, 3, 3, 2])[0])
    return operations


def scenario(seed: int, length: int = 40) -> Entry:
    """Make a scenario, with subscribers and a state in every step."""
    random = Random(seed)
    ranks = dict(zip(random.sample([*PRIORITIES], 4), range(4), strict=True))
    ranks = random.choice([PRIORITIES, {"LAST": 0, "DEVICE": 1, "IOMMU": 2, "CPU": 3}, ranks])
    simulator = Simulator(ranks)
    operations: list[list[str]] = []
    if random.random() < 0.5:
        operations.append(["install", str(random.choice([4, 12, 50, INVALID]))])
    if seed % 2:
        operations += lively(random)
    operations += [operation(random, subscribers=True) for _ in range(length)]
    steps = [simulator.step(op) for op in operations if simulator.could_record(op)]
    return {"name": f"simulated {seed}", "prio": ranks, "steps": steps}


def random_trace(seed: int, length: int = 300) -> Entry:
    """Make a trace without subscribers, with a state at its end only."""
    random = Random(seed)
    simulator = Simulator()
    steps: list[list[Any]] = []
    for _ in range(length):
        op = operation(random, subscribers=False)
        if not simulator.could_record(op):
            continue
        step = simulator.step(op)
        answer = {key: step[key] for key in step.keys() - {"op", "events", "state"}}
        steps.append([*op, answer])
    state = simulator.state()
    final = {"sets": state["sets"], "ids": state["ids"]}
    return {"name": f"simulated {seed}", "steps": steps, "final": final}
