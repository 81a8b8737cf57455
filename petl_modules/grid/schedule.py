"""Jobs side by side on this machine, or as a job array on a cluster."""

import getpass
import logging
import os
import queue
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import submitit
import torch

from petl_modules.console import progress_bar
from petl_modules.errors import UserError
from petl_modules.files import write_text
from petl_modules.grid.jobs import Job, run_job

logger = logging.getLogger(__name__)

SLURM_ID = "slurm_id.txt"
SLURM = {"time": 24 * 60, "job_name": "petl"}
# Runs go on where they stopped, so that a short time limit is no failure
TIMEOUTS = 100


def run_here(jobs: Sequence[Job], root: Path, parallel: int = 1) -> int:
    """Run jobs, so many at a time, each on a GPU of its own where there are enough.

    Arguments
    ---------
    jobs : list of petl_modules.grid.jobs.Job
    root : Path
        That jobs are named from.
    parallel : int

    Returns
    -------
    int
        The exit status: 1 if a job failed.
    """
    places = queue.SimpleQueue()
    for place in range(parallel):
        places.put(place)

    def run(job: Job) -> str | None:
        place = places.get()
        try:
            given = job.command(), job.folder, devices(place, job)
            return run_job(*given, forked=job.processes == 1)
        finally:
            places.put(place)

    failed = 0
    pool = ThreadPoolExecutor(parallel)
    waiting = {pool.submit(run, job): job for job in jobs}
    try:
        with progress_bar(total=len(jobs), desc="jobs") as bar:
            for future in as_completed(waiting):
                reason = future.result()
                failed += reason is not None
                name = waiting[future].folder.relative_to(root)
                ended = "done" if reason is None else "failed"
                bar.write(f"{ended:8}{name}{f': {reason}' if reason else ''}")
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
    return 1 if failed else 0


def submit(jobs: Sequence[Job], root: Path, options: dict[str, Any]) -> int:
    """Submit jobs that do not wait or run already as one array, and say so.

    A job that is preempted or reaches its time limit is put in the queue again and
    goes on from its last checkpoint.

    Arguments
    ---------
    jobs : list of petl_modules.grid.jobs.Job
    root : Path
        Where submitit keeps its files, in `slurm/`.
    options : dict
        Of sbatch, by their long names, such as partition, time (minutes), mem,
        cpus_per_task, gpus_per_node (if not one a process), array_parallelism.

    Returns
    -------
    int
        The exit status.
    """
    if shutil.which("sbatch") is None:
        raise UserError("There is no SLURM here (no sbatch): run without --slurm.")
    queued = in_queue()
    new = [job for job in jobs if slurm_id(job) not in queued]
    if len(new) < len(jobs):
        logger.info("%d jobs are in the queue already.", len(jobs) - len(new))
    if not new:
        return 0
    executor = submitit.SlurmExecutor(root / "slurm", max_num_timeout=TIMEOUTS)
    settings = {**SLURM, "gpus_per_node": new[0].processes, **options}
    if not settings["gpus_per_node"]:
        del settings["gpus_per_node"]
    try:
        executor.update_parameters(**settings)
    except ValueError as error:
        raise UserError(f"slurm: {str(error).splitlines()[0]}.") from None
    try:
        with executor.batch():
            submitted = [
                executor.submit(Attempt(job.command(), job.folder)) for job in new
            ]
    except submitit.core.utils.FailedJobError as error:
        last = str(error).strip().splitlines()[-1]
        raise UserError(f"SLURM refused the jobs: {last}.") from None
    for job, entry in zip(new, submitted, strict=True):
        write_text(job.folder / SLURM_ID, entry.job_id)
    ids = submitted[0].job_id, submitted[-1].job_id
    logger.info("Submitted %d jobs, %s to %s; see squeue.", len(new), *ids)
    return 0


# Helpers


class Attempt:
    """A job's process within SLURM's; submitit starts it anew after an interruption."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command, self.folder = command, folder

    def __call__(self) -> None:
        reason = run_job(self.command, self.folder, shielded=True)
        if reason is not None:
            raise RuntimeError(reason)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit puts in the queue again: the same, since runs go on."""
        return submitit.helpers.DelayedSubmission(self)


def in_queue() -> set[str]:
    """The ids of this user's jobs that wait or run."""
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser()]
    done = subprocess.run(
        [*command, "--format=%i"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"SLURM does not answer: {done.stderr.strip()}")
    return set(done.stdout.split())


def slurm_id(job: Job) -> str | None:
    """The id of a job's last submission, or None."""
    path = job.folder / SLURM_ID
    return path.read_text().strip() if path.exists() else None


def devices(place: int, job: Job) -> dict[str, str]:
    """The GPUs of one of several places, as environment variables; none where the job
    names its device, whose number is that of all GPUs."""
    if job.config["device"] not in (None, "cuda"):
        return {}
    known = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = known.split(",") if known else [*map(str, range(torch.cuda.device_count()))]
    if not gpus:
        return {}
    count = job.processes
    chosen = [gpus[(place * count + i) % len(gpus)] for i in range(count)]
    # CUDA finds none at all where one is named twice
    return {"CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(chosen))}
