"""Blocks counted in many processes, by sinter or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sinter

from decoder.benchmark.counting.blocks import Block, BlockSampler

RETURN_SECONDS = 5.0
"""How long sinter may take to return after it has ended its workers itself."""

BlockCounted = Callable[[sinter.TaskStats], None]


def collect(
    blocks: Sequence[Block], *, processes: int, file: Path | None, counted: BlockCounted, ray: str | None = None
) -> None:
    """Counts the failures of blocks that the file does not hold yet.

    Args:
        blocks: what to count, each once.
        processes: how many, on this machine; not used with Ray.
        file: sinter's CSV, to which each block is added as soon as it is counted; None to keep nothing.
        counted: called with the counts of each block.
        ray: the address of a Ray cluster to count them on, or "local" for a new one on this machine.

    Raises:
        ValueError: a decoder raises it, or Ray is not installed.
        OSError: a decoder or the file raises it, or a process was killed.
    """
    if not blocks:
        return
    if ray is not None:
        from decoder.benchmark.counting.ray_collection import collect_with_ray

        collect_with_ray(blocks, address=ray, file=file, counted=counted)
        return

    missing = len(blocks)

    def tell(progress: sinter.Progress) -> None:
        nonlocal missing
        for stats in progress.new_stats:
            missing -= 1
            counted(stats)

    sampler = BlockSampler(blocks)
    try:
        with _interrupted_if_a_worker_dies(lambda: missing > 0):
            sinter.collect(
                num_workers=min(processes, len(blocks)),
                tasks=[block.task for block in blocks],
                custom_decoders={block.trial.decoder: sampler for block in blocks},
                save_resume_filepath=file,
                progress_callback=tell,
            )
    except (RuntimeError, ValueError) as error:  # as sinter wraps what its workers raise
        if isinstance(error.__cause__, ValueError | OSError):
            raise error.__cause__ from None
        raise


@contextmanager
def _interrupted_if_a_worker_dies(working: Callable[[], bool]) -> Iterator[None]:
    """Ends the wait for a worker process that was killed, for which sinter would wait forever.

    That is possible in the main thread alone, the one that signals interrupt.

    Raises:
        OSError: a worker died while `working`.
    """
    main = threading.main_thread()
    before = set(multiprocessing.active_children())
    ended, died = threading.Event(), threading.Event()

    def watch() -> None:
        workers: set[multiprocessing.process.BaseProcess] = set()
        while not ended.wait(0.1):
            workers |= set(multiprocessing.active_children()) - before
            if working() and any(worker.exitcode for worker in workers):
                # After an error of one worker, which has its exit code 0, sinter kills the others and returns.
                if ended.wait(RETURN_SECONDS):
                    return
                died.set()
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
                return

    def interrupt(*_: object) -> None:
        if died.is_set():
            raise KeyboardInterrupt

    watched = threading.current_thread() is main
    ignored = watched and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:  # as in a shell's background jobs, which Ctrl-C is not meant for; the watcher's signal is
        signal.signal(signal.SIGINT, interrupt)
    if watched:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if died.is_set():
            raise OSError(
                "a process that decoded was killed, perhaps because memory ran out; what was counted until then is "
                "kept in --out, and --resume goes on with it"
            ) from None
        raise
    finally:
        ended.set()
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
