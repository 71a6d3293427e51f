"""python -m bench.cluster.start starts jobs on this machine, and ends. They come pickled on standard input, from the
process that started this one; the pids of their controllers go to standard output."""

import os
import pickle
import signal
import sys

FOR_EVER = 10 * 365 * 24 * 60  # minutes. A job on this machine has no time limit, and submitit's default is 2 minutes


def main() -> None:
    import submitit

    folder, python, retries, payloads = pickle.load(sys.stdin.buffer)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # by which a job is cancelled; nohup has it ignored
    answer = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # no job keeps the pipes open
        os.dup2(null, number)
    executor = submitit.LocalExecutor(folder, retries, python=python)
    for payload in payloads:
        gpus = [] if payload.gpu is None else [payload.gpu]
        executor.update_parameters(
            timeout_min=FOR_EVER, stderr_to_stdout=True, gpus_per_node=len(gpus), visible_gpus=gpus
        )
        print(executor.submit(payload).job_id, file=answer, flush=True)


if __name__ == "__main__":
    main()
