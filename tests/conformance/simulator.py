"""A small simulator of the kernel's allocator, to make traces that nobody has recorded.

It is written for itself, from what the recorded traces and the page of oddities say, and shares
nothing with the model that judges traces: what both get wrong in the same way is at least got
wrong twice. `test_simulator.py` replays every recorded trace through it first.

State is plain dictionaries, as it stands in a recorded state. A subscriber has one scope here;
what the kernel did to one with several is told in a trace of its own.
"""

from collections.abc import Callable
from typing import Any

INVALID = 2**32 - 1
FULL = 1 << 20
ERRNO = {"EPERM": 1, "ENOENT": 2, "EACCES": 13, "EBUSY": 16, "EEXIST": 17, "EINVAL": 22}
ERRNO |= {"ENOSPC": 28}
PRIORITIES = {"LAST": 0, "IOMMU": 1, "DEVICE": 2, "CPU": 3}

Answer = dict[str, Any]
Entry = dict[str, Any]


def bad(code: str) -> Answer:
    """Refuse."""
    return {"ret": -ERRNO[code], "err": code}


def signed(number: int) -> int:
    """Return 32 bits as an int of the kernel."""
    return number - 2**32 if number >= 2**31 else number


class Simulator:
    """The kernel's allocator."""

    def __init__(self, ranks: dict[str, int] | None = None, *, deadlocks: bool = True) -> None:
        self.ranks = ranks or PRIORITIES
        self.deadlocks = deadlocks
        self.capacity = self.available = FULL
        self.sets: dict[int, Entry] = {}
        self.handles: dict[str, Entry] = {}
        self.ids: dict[int, Entry] = {}
        self.system_chain: list[Entry] = []
        self.by_token: list[Entry] = []
        self.work: list[tuple[str, int, list[str]]] = []
        self.events: list[Entry] = []

    def step(self, op: list[str]) -> Entry:
        """Carry out one operation; returns the step as a scenario has it."""
        self.events = []
        verb, *arguments = op
        carry_out: Callable[..., Answer] = getattr(self, f"do_{verb}")
        answer = carry_out(*arguments)
        return {"op": op, "events": self.events, **answer, "state": self.state()}

    def could_record(self, op: list[str]) -> bool:
        """Whether a recorder would do so: a name that is in use is not given to another set."""
        return op[0] != "set_alloc" or self.live(op[1]) is None

    def state(self) -> Entry:
        """Return the state as a trace has it."""
        sets = [
            {
                "set": each["name"],
                "id": number,
                "quota": each["quota"],
                "nr": each["nr"],
                "free_pending": each["dying"],
            }
            for number, each in sorted(self.sets.items())
        ]
        ids = [
            {
                "id": number,
                "set": each["set"]["name"],
                "refs": each["refs"],
                "state": "FREE_PENDING" if each["pending"] else "IDLE",
                "spid": None if each["spid"] == INVALID else each["spid"],
                "data": each["data"],
                "in_set": number in each["set"]["xa"],
            }
            for number, each in sorted(self.ids.items())
        ]
        pending = [
            {"sub": each["sub"], "mm": int(each["token"][2:]), "active": each["set"] is not None}
            for each in self.by_token
        ]
        return {
            "capacity": self.capacity,
            "avail": self.available,
            "sets": sets,
            "ids": ids,
            "pending": pending,
        }

    # -- capacity and sets --------------------------------------------------------------------

    def do_install(self, total: str) -> Answer:
        if self.capacity in (0, FULL):
            self.capacity = self.available = int(total)
        return {"ret": None}

    def do_reserve(self, amount: str) -> Answer:
        if int(amount) > self.available:
            return bad("ENOSPC")
        taken = int(amount) or self.available
        self.available -= taken
        return {"ret": signed(taken)}

    def do_cancel(self, amount: str) -> Answer:
        total = (int(amount) + self.available) & INVALID
        if total > self.capacity:
            return bad("EINVAL")
        self.available = total
        return {"ret": signed(total)}

    def do_set_alloc(self, name: str, kind: str, token: str, quota: str) -> Answer:
        if kind.isdecimal() and int(kind) > 2:
            return bad("EINVAL")
        amount = int(quota) or self.available
        if amount > self.available:
            return bad("ENOSPC")
        if kind == "mm":
            if token == "-":
                return bad("EINVAL")
            if any(each["token"] == token for each in self.sets.values()):
                return bad("EEXIST")
        elif kind != "null" or token != "-":
            return bad("EINVAL")
        number = min(set(range(len(self.sets) + 1)) - self.sets.keys())
        if number > self.available:
            return bad("ENOSPC")
        made: Entry = {
            "name": name,
            "number": number,
            "token": token if kind == "mm" else None,
            "quota": amount,
            "nr": 0,
            "dying": False,
            "xa": {},
            "chain": [],
        }
        self.sets[number] = self.handles[name] = made
        self.available -= amount
        for each in self.by_token:
            if each["token"] == made["token"] and each["set"] is None:
                each["set"] = made
                self.insert(made["chain"], each)
        return {"ret": 0, "set": name, "set_id": number, "quota": amount}

    def live(self, name: str) -> Entry | None:
        found = self.handles.get(name)
        return found if found and self.sets.get(found["number"]) is found else None

    def do_set_free(self, name: str) -> Answer:
        found = self.live(name)
        return bad("EINVAL") if found is None else self.destroy(found)

    def destroy(self, found: Entry) -> Answer:
        if self.sets.get(found["number"]) is not found:
            return bad("EINVAL")
        if found["nr"]:
            found["dying"] = True
            return bad("EBUSY")
        for each in self.by_token:
            if each["token"] == found["token"]:
                each["set"] = None
        del self.sets[found["number"]]
        return {"ret": 0}

    def do_free_all(self, name: str) -> Answer:
        found = self.live(name)
        if found:
            for number in sorted(found["xa"]):
                self.release(found, number)
                found["xa"].pop(number, None)
        return {"ret": None}

    def do_for_each(self, name: str) -> Answer:
        found = self.live(name)
        return {"ret": None, "ids": sorted(found["xa"]) if found else []}

    def do_find_set(self, ioasid: str) -> Answer:
        one = self.ids.get(int(ioasid))
        return {"ret": 0, "set": one["set"]["name"]} if one else bad("ENOENT")

    def do_find_mm_set(self, token: str) -> Answer:
        for each in self.sets.values():
            if each["token"] == token:
                return {"ret": 0, "set": each["name"]}
        return {"ret": None}

    # -- IDs ----------------------------------------------------------------------------------

    def do_alloc(self, name: str, low: str, high: str, data: str = "0") -> Answer:
        found = self.live(name)
        if found is None or found["nr"] >= found["quota"]:
            return {"ret": "INVALID"}
        number = next((n for n in range(int(low), int(high) + 1) if n not in self.ids), None)
        if number is None:
            return {"ret": "INVALID"}
        one = {
            "id": number,
            "set": found,
            "refs": 1,
            "pending": False,
            "spid": INVALID,
            "data": int(data),
        }
        self.ids[number] = found["xa"][number] = one
        found["nr"] += 1
        self.call("ALLOC", one)
        return {"ret": number}

    def do_free(self, name: str, ioasid: str) -> Answer:
        found = None if name == "-" else self.handles.get(name)
        if found is not None:
            self.release(found, int(ioasid))
        return {"ret": None}

    def release(self, found: Entry, ioasid: int) -> None:
        one = self.ids.get(ioasid)
        if one is None or one["set"] is not found or one["pending"]:
            return
        one["pending"] = True
        one["refs"] -= 1
        if one["refs"]:
            self.call("FREE", one)
        else:
            self.reclaim(one)

    def reclaim(self, one: Entry) -> None:
        found = one["set"]
        del self.ids[one["id"]]
        found["xa"].pop(one["id"], None)
        found["nr"] -= 1
        if found["dying"] and not found["nr"]:
            self.destroy(found)

    def get(self, name: str, ioasid: int) -> Answer:
        one = self.ids.get(ioasid)
        if one is None:
            return bad("EINVAL")
        if one["pending"]:
            return bad("EBUSY")
        if name != "-" and self.handles.get(name) is not one["set"]:
            return bad("EACCES")
        one["refs"] += 1
        return {"ret": 0}

    def put(self, name: str, ioasid: int) -> bool:
        one = self.ids.get(ioasid)
        if one is None or (name != "-" and self.handles.get(name) is not one["set"]):
            return False
        one["refs"] -= 1
        if not one["refs"]:
            self.reclaim(one)
            return True
        return False

    def do_get(self, name: str, ioasid: str) -> Answer:
        return self.get(name, int(ioasid))

    def do_put(self, name: str, ioasid: str) -> Answer:
        return {"ret": self.put(name, int(ioasid))}

    def do_get_if_owned(self, token: str, ioasid: str) -> Answer:
        one = self.ids.get(int(ioasid))
        if one is None:
            return bad("ENOENT")
        if one["set"]["token"] is None:
            return bad("EINVAL")
        return self.get("-", int(ioasid)) if one["set"]["token"] == token else bad("EPERM")

    def do_find(self, name: str, ioasid: str) -> Answer:
        one = self.ids.get(int(ioasid))
        if one is None:
            return bad("ENOENT")
        if name != "-" and self.handles.get(name) is not one["set"]:
            return bad("EACCES")
        return {"ret": 0, "data": one["data"]}

    def do_attach_data(self, ioasid: str, data: str) -> Answer:
        one = self.ids.get(int(ioasid))
        if one is None:
            return bad("ENOENT")
        if one["data"]:
            return bad("EBUSY")
        one["data"] = int(data)
        return {"ret": 0}

    def do_detach_data(self, ioasid: str) -> Answer:
        if int(ioasid) in self.ids:
            self.ids[int(ioasid)]["data"] = 0
        return {"ret": None}

    def do_attach_spid(self, ioasid: str, spid: str) -> Answer:
        if spid == "INVALID":
            return bad("EINVAL")
        one = self.ids.get(int(ioasid))
        if one is None:
            return bad("ENOENT")
        if any(each["spid"] == int(spid) for each in one["set"]["xa"].values()):
            return bad("EINVAL")
        one["spid"] = int(spid)
        self.call("BIND", one)
        return {"ret": 0}

    def do_detach_spid(self, ioasid: str) -> Answer:
        one = self.ids.get(int(ioasid))
        if one and one["spid"] != INVALID:
            self.call("UNBIND", one)
            one["spid"] = INVALID
        return {"ret": None}

    def do_find_by_spid(self, name: str, spid: str, get: str) -> Answer:
        found = self.live(name)
        wanted = INVALID if spid == "INVALID" else int(spid)
        last: int | str = "INVALID"
        for number, one in sorted(found["xa"].items()) if found else []:
            if one["spid"] == wanted:
                one["refs"] += get == "1"
                last = number
        return {"ret": last}

    # -- subscribers --------------------------------------------------------------------------

    def insert(self, chain: list[Entry], block: Entry) -> None:
        rank = self.ranks[block["priority"]]
        place = sum(self.ranks[each["priority"]] >= rank for each in chain)
        chain.insert(place, block)

    def do_register(self, sub: str, scope: str, priority: str, *actions: str) -> Answer:
        does = dict(action.removeprefix("on=").split(":") for action in actions)
        block: Entry = {"sub": sub, "priority": priority, "does": does, "set": None}
        kind, _, name = scope.partition(":")
        if kind == "mm":
            if any((each["sub"], each["token"]) == (sub, name) for each in self.by_token):
                return bad("EBUSY")
            there = [each for each in self.sets.values() if each["token"] == name]
            if there and there[0]["nr"]:
                return bad("EBUSY")
            block |= {"token": name, "set": there[0] if there else None}
            self.by_token.insert(0, block)
            chain = there[0]["chain"] if there else []
        elif kind == "set":
            found = self.live(name)
            chain = found["chain"] if found else []
        else:
            chain = self.system_chain
        if all(each["sub"] != sub for each in chain):
            self.insert(chain, block)
        return {"ret": 0}

    def do_unregister(self, sub: str, scope: str) -> Answer:
        kind, _, name = scope.partition(":")
        found = self.live(name) if kind == "set" else None
        if kind == "mm":
            for each in self.by_token:
                if (each["sub"], each["token"]) == (sub, name):
                    self.by_token.remove(each)
                    found = each["set"]
                    break
        elif any(each["sub"] == sub for each in self.by_token):
            return {"ret": None}
        chain = found["chain"] if found else self.system_chain if kind == "all" else []
        chain[:] = [each for each in chain if each["sub"] != sub]
        if found and not found["nr"]:
            self.destroy(found)
        return {"ret": None}

    def call(self, event: str, one: Entry) -> None:
        args = {
            "event": event,
            "id": one["id"],
            "spid": "INVALID" if one["spid"] == INVALID else one["spid"],
            "set": one["set"]["name"],
            "set_id": one["set"]["number"],
            "pdata": one["data"],
        }
        chains = [self.system_chain] if event == "FREE" else []
        for chain in [*chains, one["set"]["chain"]]:
            for block in list(chain):
                self.events.append({"ev": "notify", "sub": block["sub"], **args})
                action = block["does"].get(event)
                if action:
                    self.act(block, one, action)
                if action == "stop":
                    break

    def act(self, block: Entry, one: Entry, action: str) -> None:
        done: Entry = {"ev": "action", "sub": block["sub"], "do": action, "id": one["id"]}
        if action.startswith("defer_"):
            verbs = action.split("_")[1:]
            done["do"] = "_".join(["queue", *verbs])
            self.work.append((block["sub"], one["id"], verbs))
        elif action == "get_locked":
            done["ret"] = self.get("-", one["id"])["ret"]
        elif action == "put_locked":
            done["ret"] = self.put("-", one["id"])
        elif action in {"get", "put"}:
            done["ret"] = "deadlock"
        self.events.append(done)

    def do_run_work(self) -> Answer:
        work, self.work = self.work, []
        for sub, number, verbs in work:
            for verb in verbs:
                done: Entry = {"ev": "work", "sub": sub, "do": verb, "id": number}
                self.events.append(done)
                if verb == "detach":
                    done["do"] = "detach_spid"
                    self.do_detach_spid(str(number))
                else:
                    done["ret"] = self.put("-", number)
        return {"ret": None}
