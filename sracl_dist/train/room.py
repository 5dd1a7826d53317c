"""Room for the workers of training, at its start and when nodes are lost."""

import time
from dataclasses import dataclass

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ReschedulingState, TrainControllerState

from sracl_dist.config import Config
from sracl_dist.room import require_room, room_for, waiting_for_nodes


@dataclass(frozen=True, kw_only=True)
class RoomOfWorkers:
    """What training cannot go on without; picklable."""

    num_workers: int
    setting: str
    """The key that says so."""
    cpus: float
    use_gpu: bool
    wait_s: float

    @staticmethod
    def of(config: Config, *, use_gpu: bool) -> "RoomOfWorkers":
        """What the configuration asks for."""
        least = config.train.min_workers
        return RoomOfWorkers(
            num_workers=config.train.num_workers if least is None else least,
            setting="train.num_workers" if least is None else "train.min_workers",
            cpus=config.train.cpus_per_worker,
            use_gpu=use_gpu,
            wait_s=config.cluster.wait_s,
        )

    def require(self) -> None:
        """Wait for nodes as long as cluster.wait_s says.

        Raises:
            SetupError: the cluster's nodes cannot hold the workers.
        """
        with waiting_for_nodes(self.wait_s):
            self.require_at_once()

    def require_at_once(self) -> None:
        """The same without waiting."""
        require_room(self.num_workers, self.cpus, int(self.use_gpu), self.setting)

    @property
    def num_there(self) -> int:
        """Workers that the nodes could hold at the moment."""
        return room_for(self.cpus, int(self.use_gpu))


class EndWithoutRoom(ControllerCallback):
    """Ends training when lost nodes do not come back, for which Ray Train would wait for ever.

    It tries to start workers for a minute (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S) before it begins again; where the
    nodes have the room but other jobs use it, it goes on waiting.
    """

    def __init__(self, room: RoomOfWorkers) -> None:
        self._room = room
        self._lacking_since: float | None = None

    def after_controller_state_update(
        self,
        previous_state: TrainControllerState,  # noqa: ARG002
        current_state: TrainControllerState,
    ) -> None:
        """Called in the process that leads training; what it raises ends it."""
        if not isinstance(current_state, ReschedulingState):
            return
        if self._room.num_there >= self._room.num_workers:
            self._lacking_since = None
            return
        self._lacking_since = self._lacking_since or time.monotonic()
        # The workers that are to be started ask the autoscaler for nodes; to wait here would make Ctrl-C wait too.
        if time.monotonic() - self._lacking_since >= self._room.wait_s:
            self._room.require_at_once()
