"""Engines: where the cells of a comparison run. Each cell is a process of its own, and takes only itself down when it dies."""

import os
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks.cell import Cell, run_cell

ENGINES = ("local", "ray")
#: how often Ray runs a cell again whose worker died; it goes on from its checkpoint
_N_RETRIES = 3
#: a cell, its record, and if there is none what went wrong
Outcome = tuple[Cell, dict[str, Any] | None, str]


def n_cores() -> int:
    """:return: that this process may use"""
    return len(os.sched_getaffinity(0))


def run_local(cells: Sequence[Cell], n_jobs: int) -> Iterator[Outcome]:
    """
    :param cells: to run
    :param n_jobs: how many side by side
    :return: each cell when it has ended
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # is read when a process begins
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.cell"])  # PyTorch takes seconds to import: once, and not for each cell
    waiting = deque(cells)
    running: dict[Connection, tuple[Cell, ForkServerProcess]] = {}
    while waiting or running:
        while waiting and len(running) < n_jobs:
            cell = waiting.popleft()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_tell, args=(cell, theirs), daemon=True)
            process.start()
            theirs.close()  # so that ours ends when the process does
            running[ours] = cell, process
        ready = wait(list(running))
        for ours in [each for each in running if each in ready]:
            cell, process = running.pop(ours)
            try:
                record, error = ours.recv()
            except EOFError:
                record, error = None, "the process died"
            process.join()
            if process.exitcode:
                error = f"{error or 'the process died'} (exit code {process.exitcode}; -9: killed, often for want of memory)"
            yield cell, record, error


def _tell(cell: Cell, connection: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome: tuple[dict[str, Any] | None, str] = run_cell(cell), ""
    except Exception:
        outcome = None, traceback.format_exc()
    connection.send(outcome)


def _end_with_parent() -> None:
    """Else cells that nobody waits for would go on for hours."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_ray(cells: Sequence[Cell], n_jobs: int, address: str | None = None) -> Iterator[Outcome]:
    """
    The same on Ray. Every node must see the repository and the results at the same paths. A cell has a core, and if its
    device is ``cuda`` a GPU, too.

    :param cells: to run
    :param n_jobs: how many side by side, where no ``address`` is given
    :param address: of a running cluster; without one Ray is started on this machine, and stopped in the end
    :return: each cell when it has ended
    :raises SystemExit: if Ray is not installed, or has no GPU where one is asked for
    """
    try:
        ray: Any = import_module("ray")  # an extra
    except ModuleNotFoundError:
        raise SystemExit("--engine ray needs Ray: pip install 'sb3_dream[ray]'") from None
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    ray.init(
        address=address or "local",
        num_cpus=None if address else n_jobs,
        include_dashboard=None if address else False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}},
    )
    try:
        needs_gpu = any(cell.device.startswith("cuda") for cell in cells)
        if needs_gpu and ray.cluster_resources().get("GPU", 0) < 1:  # it would wait for one for ever
            raise SystemExit("--device cuda: no node of the cluster has a GPU")
        # a process for each cell, as with the local engine: peak memory is then the cell's own
        task = ray.remote(num_cpus=1, max_retries=_N_RETRIES, max_calls=1)(run_cell)
        # Ray hides the GPUs from a task that does not ask for one
        waiting = {task.options(num_gpus=int(needs_gpu)).remote(cell): cell for cell in cells}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            cell = waiting.pop(done)
            try:
                yield cell, ray.get(done), ""
            except ray.exceptions.RayError as error:
                yield cell, None, str(error)
    finally:
        ray.shutdown()
