"""Recorded curves told to a searcher: what it pays until it has a trial as good as the grid's best.

    replay.py CURVES.json CLOCK REPLAY SEEDS SEARCHER…

CLOCK is `multiply_adds` or `seconds`. REPLAY is our searcher on a line (the example `replay` of shared/search). Prints, for each searcher, a list
with an entry for each seed: {"share": of the grid's cost, "missed", "fault", "spent"}. README.md says what
is counted. The loop, its four workers and its clock are the same for all; a searcher only says which trial
comes next, and which ends. Trials come in the order that our searcher draws for the seed, so that no
searcher has the luckier order.
"""

import heapq
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

WORKERS = 4
ETA, GRACE = 3, 1
# Of accuracy: 0.2 points.
NEAR = 0.002


class Curves:
    """The grid as it was recorded."""

    def __init__(self, file: Path, clock: str):
        recorded = json.loads(file.read_text())
        self.file, self.epochs, self.trials = recorded["made"]["experiment"], recorded["epochs"], recorded["trials"]
        # What the plan predicts is what our searcher is told. A head alone counts as nothing there; the product says 1.
        self.costs = {depth: {**cost, "epoch": max(cost["epoch"], 1)} for depth, cost in recorded["multiply_adds_per_epoch"].items()}
        predicted = {depth: cost["epoch"] for depth, cost in self.costs.items()}
        self.clock = {"multiply_adds": predicted, "seconds": recorded["seconds_per_epoch"]}[clock]
        self.index = {json.dumps(trial["hparams"], sort_keys=True): at for at, trial in enumerate(self.trials)}
        self.whole = sum(self.epochs * self.cost(at) for at in range(len(self.trials)))
        self.target = max(max(trial["accuracy"]) for trial in self.trials) - NEAR
        # Of trials with the same accuracy the one with the lower loss there, as the product ranks them; twins are one.
        scores = [self.score(at, self.epochs) for at in range(len(self.trials))]
        self.champions = [at for at, score in enumerate(scores) if score == min(scores)]

    def cost(self, at: int) -> float:
        return self.clock[self.trials[at]["hparams"]["transfer.frozen_depth"]]

    def score(self, at: int, epoch: int) -> tuple:
        """Of the best epoch so far: accuracy, negated, and loss. Less is better."""
        trial = self.trials[at]
        return min((-accuracy, loss) for accuracy, loss in zip(trial["accuracy"][:epoch], trial["loss"][:epoch]))


class Ours:
    """The product's searcher. It hears the best so far, as the engine tells it."""

    def __init__(self, curves: Curves, program: str, *settings: str):
        self.curves, self.settings = curves, settings
        self.line = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question) -> dict:
        self.line.stdin.write(json.dumps(question) + "\n")
        self.line.stdin.flush()
        return json.loads(self.line.stdout.readline())

    def begin(self, seed: int) -> list:
        """Begins anew; gives the order in which the trials come."""
        words = [*self.settings, f"seed={seed}"]
        self.order = [self.curves.index[json.dumps(point, sort_keys=True)] for point in self.ask({"begin": {"file": self.curves.file, "set": words, "costs": self.curves.costs}})["order"]]
        return self.order

    def told(self, question) -> list:
        return [(what, self.order[number - 1]) for what, number in self.ask(question)["actions"]]

    def act(self) -> list:
        return self.told("act")

    def hear(self, at: int, epoch: int) -> list:
        accuracy, loss = self.curves.score(at, epoch)
        return self.told({"hear": [self.order.index(at) + 1, epoch, -accuracy, loss]})

    def ended(self, at: int, epoch: int) -> list:
        accuracy, loss = self.curves.score(at, epoch)
        return self.told({"ended": [self.order.index(at) + 1, -accuracy, loss]})


class Ordered:
    """A rival: trials in the given order, each reported to what decides on its way."""

    def __init__(self, curves: Curves, order: Ours):
        self.curves, self.given = curves, order

    def begin(self, seed: int) -> list:
        self.order = self.given.begin(seed)
        self.waiting = list(reversed(self.order))
        self.prepare(seed)
        return self.order

    def act(self) -> list:
        if not self.waiting:
            return []
        at = self.waiting.pop()
        self.create(at)
        return [("create", at)]

    def hear(self, at: int, epoch: int) -> list:
        return [("stop", at)] if self.stops(at, epoch, self.curves.trials[at]["accuracy"][epoch - 1]) else []


class Optuna(Ordered):
    """`HyperbandPruner` over `study.ask`, `trial.report` and `trial.should_prune`, as its users call it."""

    def prepare(self, seed: int) -> None:
        import optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.HyperbandPruner(min_resource=GRACE, max_resource=self.curves.epochs, reduction_factor=ETA)
        # The pruner draws brackets from the study's name.
        self.study = optuna.create_study(study_name=f"seed-{seed}", direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=seed))
        self.asked = {}

    def create(self, at: int) -> None:
        self.asked[at] = self.study.ask()

    def stops(self, at: int, epoch: int, accuracy: float) -> bool:
        self.asked[at].report(accuracy, epoch)
        return self.asked[at].should_prune()

    def ended(self, at: int, epoch: int) -> list:
        import optuna
        if epoch < self.curves.epochs:
            self.study.tell(self.asked[at], state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(self.asked[at], -self.curves.score(at, epoch)[0])
        return []


class Ray(Ordered):
    """`ASHAScheduler`, asked as its controller asks it: a trial added, its results, its end."""

    def prepare(self, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        self.scheduler = ASHAScheduler(metric="accuracy", mode="max", max_t=self.curves.epochs, grace_period=GRACE, reduction_factor=ETA)

    def create(self, at: int) -> None:
        self.scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(at)))

    def stops(self, at: int, epoch: int, accuracy: float) -> bool:
        said = self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(at)), {"training_iteration": epoch, "accuracy": accuracy})
        return said == "STOP" and epoch < self.curves.epochs

    def ended(self, at: int, epoch: int) -> list:
        result = {"training_iteration": epoch, "accuracy": self.curves.trials[at]["accuracy"][epoch - 1]}
        self.scheduler.on_trial_complete(None, SimpleNamespace(trial_id=str(at)), result)
        return []


class Played:
    """One search: workers that each train one trial, an epoch at a time, paid when it is over."""

    def __init__(self, curves: Curves, searcher, seed: int):
        self.curves, self.searcher = curves, searcher
        self.epoch, self.state = {}, {}
        self.events, self.number, self.now = [], 0, 0.0
        self.spent, self.found = 0.0, None
        searcher.begin(seed)
        self.fill()
        while self.events:
            self.now, _, at = heapq.heappop(self.events)
            self.train(at)
            if self.state[at] == "runs":
                self.go_on(at)
            self.fill()

    def fill(self) -> None:
        while sum(state == "runs" for state in self.state.values()) < WORKERS:
            actions = self.searcher.act()
            if not actions:
                return
            self.obey(actions)

    def go_on(self, at: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (self.now + self.curves.cost(at), self.number, at))

    def train(self, at: int) -> None:
        self.epoch[at] += 1
        self.spent += self.curves.cost(at)
        if self.found is None and self.curves.trials[at]["accuracy"][self.epoch[at] - 1] >= self.curves.target:
            self.found = self.spent
        self.obey(self.searcher.hear(at, self.epoch[at]))
        if self.state[at] == "runs" and self.epoch[at] == self.curves.epochs:
            self.end(at)

    def end(self, at: int) -> None:
        self.state[at] = "ended"
        self.obey(self.searcher.ended(at, self.epoch[at]))

    def obey(self, actions: list) -> None:
        for what, at in actions:
            if what == "stop":
                self.end(at)
            elif what == "pause":
                self.state[at] = "waits"
            else:
                self.epoch.setdefault(at, 0)
                self.state[at] = "runs"
                self.go_on(at)

    def told(self) -> dict:
        whole = self.curves.whole
        return {
            "share": 1.0 if self.found is None else self.found / whole, "missed": self.found is None,
            "fault": all(self.epoch.get(at, 0) < self.curves.epochs for at in self.curves.champions), "spent": self.spent / whole,
        }


def main() -> None:
    logging.disable(logging.WARNING)
    curves, program, seeds = Curves(Path(sys.argv[1]), sys.argv[2]), sys.argv[3], range(int(sys.argv[4]))
    ours = {
        "asha": ("search.strategy=asha", f"search.asha={{eta: {ETA}, min_epochs: {GRACE}, form: stop}}"),
        "asha_promote": ("search.strategy=asha", f"search.asha={{eta: {ETA}, min_epochs: {GRACE}, form: promote}}"),
        "hyperband": ("search.strategy=hyperband", f"search.hyperband={{eta: {ETA}}}"),
    }
    rivals = {"optuna_hyperband": Optuna, "ray_asha": Ray}
    made = {}
    for name in sys.argv[5:]:
        order = Ours(curves, program, *ours.get(name, ours["asha"]))
        searcher = order if name in ours else rivals[name](curves, order)
        made[name] = [Played(curves, searcher, seed).told() for seed in seeds]
    print(json.dumps(made))


if __name__ == "__main__":
    main()
