"""A job as data: what is mounted, and its steps in order. train_cuda.sh executes it, and has no code for particular
domains.

`python -m training plan WORD ...` prints it as JSON. Uses the standard library only, since a plan is made before there
is an environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from training.domain import Domain, FamilyFacts, Node, Request
from training.errors import UsageError
from training.runner.fetched import Fetched, PublishedShards
from training.runner.options import Command
from training.wandb_address import WandbRun

#: Options of the supervisor for every step except a training: no restarts, and it is killed if it has not stopped after
#: 8 s. That is safe, as the files of these steps are complete at any moment.
ONCE = ("--restarts", "0", "--stop-within", "8")


@dataclass(frozen=True)
class Mount:
    """A folder or file that is mounted into containers, read-only, under the same path."""

    option: str
    path: str
    kind: str  # folder or file


@dataclass(frozen=True)
class Step:
    """One command of a job, in the order of execution."""

    name: str  # "prepare", "train <family>"
    title: str  # for people
    command: tuple[str, ...]  # the interpreter's arguments: -m training ...
    needs: tuple[str, ...]  # names of earlier steps
    receipt: str  # the file that shows that it is done; "": it is run each time
    supervise: tuple[str, ...] = ONCE  # options of the supervisor
    device: bool = False  # whether `--device cuda` is added where the host has a GPU


@dataclass(frozen=True)
class Plan:
    command: Command
    request: Request
    mounts: tuple[Mount, ...]
    notes: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def trains(self) -> bool:
        """Whether models are trained, rather than estimated."""
        return not self.command.estimate

    @property
    def exports(self) -> bool:
        return any(step.name == "export" for step in self.steps)

    @property
    def own_data(self) -> str:
        """Of a demo: the next command, which names the user's own data. Empty where data is named, or where
        this command prepares none, so that it may train on anything."""
        domain = self.command.domain
        demo = not domain.given(self.request.options) and not self.request.skip_prepare
        return domain.demo_text().next if demo else ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        domain = self.command.domain
        return {
            "format": 1,
            "word": domain.word,
            "title": domain.title,
            "out": self.command.out,
            "demo": not domain.given(self.request.options) and self.command.shards is None,
            "mounts": [asdict(mount) for mount in self.mounts],
            "notes": list(self.notes),
            "nodes": [{**asdict(step), "command": ["python", *step.command]} for step in self.steps],
        }


def plan_of(command: Command, *, checking: bool = True) -> Plan:
    """The plan of a command. Raises UsageError for options that contradict each other, HostError for what this host
    cannot do."""
    domain, skip = command.domain, command.skip
    families = tuple(facts.name for facts in domain.families if facts.name not in skip)
    prepared = "prepare" in skip or command.only in ("train", "export") or command.shards is not None
    request = Request(command.options, families, prepared)
    if checking:
        request = domain.arrange(request)
    notes = list(request.notes)
    if request.skip_prepare and domain.given(request.options) and "prepare" in skip:
        notes.append(
            "--skip-manifests: the manifests that are there are used; files that moved are looked up under the given "
            "folders."
        )
    if command.estimate and ((command.nnodes or 1) > 1 or (command.gpus or 1) > 1):
        notes.append("--estimate times one GPU; several share the steps of an epoch among them.")
    mounts = [
        Mount(option.name, str(request.options[option.attribute]), option.kind)
        for option in domain.options
        if option.mounted
        and request.options.get(option.attribute) is not None
        and option.name not in {one.option for one in command.fetched}  # those are below --out
    ]
    steps = _Steps(command, domain, request).all()
    return Plan(command, request, tuple(mounts), tuple(notes), tuple(steps))


@dataclass
class _Steps:
    """The steps of one command."""

    command: Command
    domain: Domain
    request: Request

    @property
    def main(self) -> bool:
        """Whether this host evaluates and exports: the only one, or the one of rank 0."""
        return not self.command.node_rank

    def all(self) -> list[Step]:
        command, only = self.command, self.command.only
        steps = [self._fetch(one) for one in command.fetched] + [self._doctor()]
        if command.persist and self.main:
            steps.append(
                self._step("restore", f"Restore from {command.persist}", ["restore", *self._out(), *self._persist()])
            )
        if self.main:
            steps += [self._from_wandb(one) for one in command.from_wandb]
        if self.command.shards is not None and "prepare" not in command.skip:
            steps.append(self._fetch_shards(self.command.shards))
        elif not self.request.skip_prepare:
            steps.append(self._prepare())
        if only != "prepare":
            steps += [] if only == "export" else self._training()
            if not command.estimate and only != "train" and self.main and "export" not in command.skip:
                steps += self._after_training()
        if command.persist and self.main and not command.estimate:
            words = ["persist", *self._out(), *self._persist()]
            before = [step.name for step in steps]
            steps.append(self._step("persist", f"Copy to {command.persist}", words, before))
        return _with_needs(steps)

    # arguments of the commands

    def _out(self) -> list[str]:
        return ["--out", self.command.out]

    def _persist(self) -> list[str]:
        return ["--persist", str(self.command.persist)]

    def _domain(self) -> list[str]:
        from training.registry import DOMAINS

        return [] if self.domain.word == next(iter(DOMAINS)) else ["--domain", self.domain.word]

    def _data(self, verb: str) -> list[str]:
        """The domain's options that `verb` takes."""
        words: list[str] = []
        for option in self.domain.options:
            value = self.request.options.get(option.attribute)
            if verb not in option.verbs or value is None or value is False:
                continue
            words += [option.flag] if option.kind == "flag" else [option.flag, _plain(value)]
        return words

    def _common(self, verb: str) -> list[str]:
        return [*self._out(), *self._data(verb), *self.command.money]

    def _device(self) -> list[str]:
        """The --device option, if the command decides it. Otherwise train_cuda.sh adds it, if the host has a GPU."""
        if self.command.cpu:
            return ["--device", "cpu"]
        return ["--device", "cuda"] if self.command.gpus is not None else []

    def _step(
        self, name: str, title: str, words: Sequence[str], needs: Iterable[str] = (), receipt: str = "", **more: Any
    ) -> Step:
        return Step(name, title, ("-m", "training", *words), tuple(needs), receipt, **more)

    def _trained(self, needs: Iterable[str]) -> list[str]:
        """Names of families and nodes -> names of the steps that make them."""
        nodes = {node.name for node in self.domain.nodes()}
        return [name if name in nodes else f"train {name}" for name in needs]

    # steps

    def _fetch(self, one: Fetched) -> Step:
        """Before the check of the host, which also looks at the data."""
        words = ["fetch", str(one.address), one.folder]
        receipt = f"{one.folder}/.athanor-fetch.json"
        return self._step(f"fetch {one.option}", f"Fetch {one.address}", words, receipt=receipt)

    def _from_wandb(self, one: WandbRun) -> Step:
        """After the restore from --persist: the newer of two runs is used."""
        words = ["restore", *self._out(), "--from-wandb", str(one)]
        return self._step(f"restore {one.path}", f"Restore {one.path} from W&B", words, ["restore"])

    def _doctor(self) -> Step:
        before = [f"fetch {one.option}" for one in self.command.fetched]
        words = ["doctor", *self._domain(), *self._common("doctor"), *self._device()]
        if self.command.gpus is not None:
            words += ["--gpus", str(self.command.gpus)]
        if self.command.set and not self.command.options.get("config"):  # else `train` checks them, with that file
            words += [] if self.command.preset is None else ["--preset", self.command.preset]
            words += [f"--set={family}:{assignment}" for family in self.request.families
                      for one, assignment in self.command.set if one in (None, family)]  # fmt: skip
        return self._step("doctor", "Check this host", words, before, device=True)

    def _prepare(self) -> Step:
        words = ["prepare", *self._domain(), *self._common("prepare")]
        words += [] if self.command.seed is None else ["--seed", str(self.command.seed)]
        words += [] if self.command.ray is None else ["--ray", self.command.ray]
        return self._step(
            "prepare", "Prepare the data", words, ["restore"], f"{self.command.out}/data/manifests/summary.json"
        )

    def _fetch_shards(self, shards: PublishedShards) -> Step:
        """In the place of `prepare`."""
        words = ["fetch-shards", *shards.words, *self._domain(), *self._out()]
        receipt = f"{self.command.out}/data/manifests/summary.json"
        return self._step("prepare", f"Fetch the tables of {shards.address}", words, ["restore"], receipt)

    def _training(self) -> list[Step]:
        """Families and nodes, each after what it needs."""
        steps: list[Step] = []
        left = len(self.request.families)
        for one in ordered(self.domain, self.request.families, self.command.skip):
            if isinstance(one, Node):
                if not self.command.estimate:
                    steps.append(self._node(one))
            else:
                steps.append(self._estimate(one, left) if self.command.estimate else self._train(one, left))
                left -= 1
        return steps

    def _train_options(self, facts: FamilyFacts, verb: str, left: int) -> list[str]:
        command = self.command
        words = [facts.name, *self._common(verb), *self._device()]
        for flag, value in (("--preset", command.preset), ("--epochs", command.epochs), ("--seed", command.seed),
                            ("--resume", command.resume)):  # fmt: skip
            words += [] if value is None else [flag, str(value)]
        words += [f"--set={assignment}" for family, assignment in command.set if family in (None, facts.name)]
        return [*words, "--families-left", str(left)]

    def _estimate(self, facts: FamilyFacts, left: int) -> Step:
        words = ["estimate", *self._train_options(facts, "estimate", left)]
        return self._step(f"estimate {facts.name}", f"Estimate {facts.name}", words, ["prepare"], device=True)

    def _train(self, facts: FamilyFacts, left: int) -> Step:
        command = self.command
        words = ["train", *self._train_options(facts, "train", left)]
        if command.persist and self.main:
            words += self._persist()
        name, title, out = f"train {facts.name}", f"Train {facts.name}", command.out
        restored = ("restore", *(f"restore {one.path}" for one in command.from_wandb))
        needs = (*restored, "prepare", *self._trained(facts.after))
        index = f"{out}/checkpoints/{facts.name}/index.json"
        if facts.fan_out:
            at_once = [] if command.gpus is None else ["--at-once", str(command.gpus)]
            return Step(name, f"{title}, one model an item", ("-m", "training", "each", *at_once, *words), needs, "",
                        device=True)  # fmt: skip
        launch = ("-m", "training")
        if command.nnodes is not None:
            each = "1" if command.cpu else str(command.gpus or "gpu")  # `gpu`: as many as there are
            launch = (
                "-m", "training.runner.launch", f"--nnodes={command.nnodes}", f"--node_rank={command.node_rank}",
                f"--nproc_per_node={each}", f"--master_addr={command.master_addr}",
                f"--master_port={command.master_port}", "-m", "training",
            )  # fmt: skip
        elif (command.gpus or 1) > 1:
            launch = ("-m", "training.runner.launch", "--standalone", f"--nproc_per_node={command.gpus}", "-m",
                      "training")  # fmt: skip
        return Step(name, title, (*launch, *words), needs, index, ("--index", index), device=True)

    def _node(self, node: Node) -> Step:
        words = ["node", node.name, *self._domain(), *self._common("node")]
        words += [] if self.command.seed is None else ["--seed", str(self.command.seed)]
        words += [] if self.command.ray is None else ["--ray", self.command.ray]
        receipt = f"{self.command.out}/runs/nodes/{node.name}.json"
        return self._step(node.name, node.title, words, ["prepare", *self._trained(node.needs)], receipt, device=True)

    def _after_training(self) -> list[Step]:
        """Evaluation, export, verification, and the end of the job in the budget's ledger."""
        out = self.command.out
        chosen = self.request.families or tuple(facts.name for facts in self.domain.families)
        if self.command.only == "export":
            chosen = tuple(facts.name for facts in self.domain.families)
        steps = []
        for facts in map(self.domain.facts, chosen):
            words = ["evaluate", facts.name, *self._common("evaluate"), *self._device()]
            title = f"Evaluate {facts.name}"
            if self.domain.sealed_test:  # in the same process: the model and the data are there
                title, words = f"{title}, and test it on the sealed split", [*words, "--test"]
            words = ["each", *words] if facts.fan_out else words
            needs = self._trained([facts.name, *facts.after])
            steps.append(self._step(f"evaluate {facts.name}", title, words, needs, f"{out}/exports/metrics.json",
                                    device=True))  # fmt: skip
        words = ["export", *chosen, *self._domain(), *self._common("export")]
        before = [step.name for step in steps]
        steps.append(self._step("export", "Export", words, before, f"{out}/exports/receipt.json"))
        verify = ["verify", f"{out}/exports", *self.command.money]
        steps.append(self._step("verify", "Verify the exports", verify, ["export"]))
        steps.append(self._step("budget", "Finalize the budget", ["budget", "--done", *self._out()], ["verify"]))
        return steps


def ordered(domain: Domain, families: Iterable[str], skip: Iterable[str] = ()) -> list[FamilyFacts | Node]:
    """The chosen families and the domain's nodes, each after those that it needs, otherwise in the domain's order.
    Raises UsageError for a cycle, or for a need that is neither a family nor a node."""
    chosen, skipped = set(families), set(skip)
    waiting: list[FamilyFacts | Node] = [facts for facts in domain.families if facts.name in chosen]
    waiting += [node for node in domain.nodes() if node.name not in skipped]
    known = {facts.name for facts in domain.families} | {node.name for node in domain.nodes()}
    done: list[FamilyFacts | Node] = []
    while waiting:
        names = {one.name for one in waiting}
        ready = next((one for one in waiting if not names & set(_before(one))), None)
        if ready is None:
            raise UsageError(f"{domain.title}: {', '.join(sorted(names))} need each other.")
        unknown = set(_before(ready)) - known
        if unknown:
            raise UsageError(f"{domain.title}: {ready.name} needs {', '.join(sorted(unknown))}, which is not there.")
        waiting.remove(ready)
        done.append(ready)
    return done


def _before(one: FamilyFacts | Node) -> tuple[str, ...]:
    return one.needs if isinstance(one, Node) else one.after


def _with_needs(steps: Sequence[Step]) -> list[Step]:
    """The steps without needs that this command leaves out. A step without needs comes after `doctor`."""
    names = {step.name for step in steps}
    out = []
    for step in steps:
        needs = tuple(name for name in step.needs if name in names)
        first = step.name == "doctor" or step.name.startswith("fetch ")
        out.append(replace(step, needs=needs or (() if first else ("doctor",))))
    return out


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
