"""Notebooks as tasks of a Dask cluster: where `routing run --cluster` executes them.

Workers need this package, the data and, under the same path, the folders of the notebooks and of the output. Dask
gives a notebook to another worker when its own is lost. A task's name follows from its content, and the cluster keeps
a task whose client is gone: the same command, given again, waits for what still runs instead of starting it anew.

Needs the extra "scale".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from routing.runner import provenance
from routing.runner.notebook import Task, execute_notebook
from routing.runner.provenance import Outcome

if TYPE_CHECKING:
    from dask.distributed import Client

CONNECT_TIMEOUT_S = 30
# A worker that is started again on a busy machine takes its time; by default a local cluster drops it after 15 s.
PATIENT = {"distributed.deploy.lost-worker-timeout": "10 minutes"}


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """A client of the cluster at `address`, closed at the end.

    Parameters
    ----------
    address : str
        ``local:N``: N worker processes on this machine, which end with the client. Otherwise the address of a
        scheduler, such as ``tcp://host:8786``.

    Raises
    ------
    ValueError
        Dask is not installed, or ``local:`` without a number.
    OSError
        No scheduler answers, or it has no worker.
    """
    try:
        import dask
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError(f'--cluster needs Dask: pip install "routing[scale]" ({error})') from None
    if not address.startswith("local:"):
        with Client(address, timeout=CONNECT_TIMEOUT_S) as client:
            try:
                client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
            except TimeoutError:
                raise TimeoutError(
                    f"the cluster at {address} has no worker; start one: dask worker {address}"
                ) from None
            yield client
        return
    number = address.removeprefix("local:")
    if not number.isdecimal() or int(number) == 0:
        raise ValueError(f"--cluster {address}: write local:N, with the number of worker processes")
    # One thread a worker: a notebook has a process of its own anyway. The status page takes any free port.
    with (
        dask.config.set(PATIENT),
        LocalCluster(n_workers=int(number), threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def _describe_worker(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """What a worker runs, and which of the folders it does not see."""
    return provenance.hash_package(), [str(folder) for folder in folders if not folder.is_dir()]


def check_workers(client: Client, tasks: Sequence[Task]) -> None:
    """Raise unless every worker has this package and sees the folders of `tasks`; the message names the worker."""
    folders = sorted({folder for task in tasks for folder in (task.path.parent, task.copy.parent)})
    for worker, (package_sha256, unseen) in client.run(_describe_worker, folders).items():
        if package_sha256 != tasks[0].pending.package_sha256:
            raise ValueError(f"worker {worker} runs another version of this package; install this one there")
        if unseen:
            raise ValueError(
                f"worker {worker} does not see the folder {unseen[0]}; notebooks and --output have to lie on storage"
                " that all machines share"
            )


def _execute(task: Task) -> Outcome:
    """`execute_notebook` in a worker's thread, where the event loop that papermill leaves open would add up."""
    try:
        return execute_notebook(task)
    finally:
        task.unfinished.unlink(missing_ok=True)
        with suppress(RuntimeError):  # there is none
            asyncio.get_event_loop().close()
        asyncio.set_event_loop(None)


def execute_on_cluster(tasks: Sequence[Task], client: Client) -> Iterator[tuple[Task, Outcome | None]]:
    """Run tasks on the workers: each comes with None as it is sent and with its outcome as it ends."""
    from dask.base import tokenize
    from dask.distributed import as_completed, fire_and_forget

    if not tasks:
        return
    check_workers(client, tasks)
    futures = {}
    try:
        for task in tasks:
            yield task, None
            future = client.submit(_execute, task, key=f"{task.path.stem}-{tokenize(task)}")
            fire_and_forget(future)  # the cluster finishes it even if this client is lost
            futures[future] = task
        for future in as_completed(futures):
            task = futures.pop(future)
            error = "the cluster gave it up" if future.cancelled() else future.exception()
            if error:
                task.unfinished.unlink(missing_ok=True)
                reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
                yield task, task.outcome("failed", 0.0, error=reason.strip().split("\n")[0])
            else:
                yield task, future.result()
    finally:  # left early, by an exception or Ctrl-C
        client.cancel(list(futures), force=True)
        for task in futures.values():
            task.unfinished.unlink(missing_ok=True)
