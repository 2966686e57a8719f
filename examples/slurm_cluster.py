"""Start a Dask cluster on Slurm for `lottolab sweep`, and keep it until Ctrl-C.

Copy this file, write in the queue and the limits of your cluster, and run it on the
login node, in the environment where lottolab is installed. It prints the address that
`lottolab sweep … --scheduler ADDRESS --gpus 1` takes.
"""

import signal

from dask_jobqueue import SLURMCluster

JOBS = 4  # Slurm jobs, each one worker with one GPU


def cluster() -> SLURMCluster:
    """Describe one Slurm job: a worker that runs one point at a time."""
    return SLURMCluster(
        queue="gpu",
        account=None,
        interface=None,  # the network between the nodes, such as "ib0"
        cores=1,  # one point at a time, which has the GPU for itself
        job_cpu=4,
        memory="16GB",
        walltime="08:00:00",
        job_extra_directives=["--gres=gpu:1"],
        job_script_prologue=["export OMP_NUM_THREADS=1"],
        worker_extra_args=["--resources", "GPU=1"],
    )


if __name__ == "__main__":
    with cluster() as started:
        started.scale(jobs=JOBS)
        print(started.scheduler_address, flush=True)
        signal.pause()
