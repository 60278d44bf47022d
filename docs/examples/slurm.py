"""Build a store on a Slurm cluster: its workers are batch jobs, this script their scheduler.

    pip install salibi dask-jobqueue
    python slurm.py --variant full -o /scratch/full.zarr --jobs 20 --partition compute

Run it where it can run as long as the build: in tmux on a login node, or in a small job of its own.
If it ends early, run it again and it continues. All nodes must see the store's folder and this
Python environment.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster

import salibi_data
from salibi_data.store.errors import SalibiError


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", required=True)
    parser.add_argument("--catalog", default="planetary-computer")
    parser.add_argument("-o", "--output", required=True, type=Path, help="store, on a shared disk")
    parser.add_argument("--limit", type=int, help="maximum number of samples")
    parser.add_argument("--jobs", type=int, default=4, help="batch jobs at a time")
    parser.add_argument("--workers", type=int, default=4, help="processes, and CPUs, of a job")
    parser.add_argument("--memory", default="8GB", help="memory of a job")
    parser.add_argument("--hours", type=int, default=4, help="time limit of a job")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--interface", help="network that nodes reach this machine by, such as ib0")
    return parser.parse_args()


def start_cluster(args: argparse.Namespace) -> SLURMCluster:
    """Start a scheduler in this process; workers join when Slurm starts their jobs."""
    logs = args.output.absolute().with_name("slurm-logs")
    logs.mkdir(parents=True, exist_ok=True)
    cluster = SLURMCluster(
        cores=args.workers,
        processes=args.workers,
        memory=args.memory,
        walltime=f"{args.hours:02d}:00:00",
        queue=args.partition,
        account=args.account,
        interface=args.interface,
        log_directory=str(logs),
        python=sys.executable,
        # Workers leave by themselves before Slurm ends their job, and not all at once.
        worker_extra_args=["--lifetime", f"{args.hours * 60 - 5}m", "--lifetime-stagger", "4m"],
    )
    # Not scale(): jobs that end at their time limit are replaced by new ones.
    cluster.adapt(minimum_jobs=args.jobs, maximum_jobs=args.jobs)
    return cluster


def main() -> int:
    """Build one store, or continue its build."""
    args = arguments()
    # dask-jobqueue has SIGINT exit with 0, as if all were done; SIGTERM would leave the jobs behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with start_cluster(args) as cluster:
        print(f"dashboard at {cluster.dashboard_link}")
        try:
            report = salibi_data.build(
                args.output,
                variant=args.variant,
                catalog=args.catalog,
                limit=args.limit,
                scheduler=cluster.scheduler_address,
            )
        except SalibiError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("stopped; run the same command again to go on", file=sys.stderr)
            return 130
    print(f"{report.num_samples} samples in {report.store}")
    for failure in report.failures:
        print(f"not made: {failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
