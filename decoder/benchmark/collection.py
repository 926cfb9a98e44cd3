"""Blocks counted in many processes, by sinter or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import sinter

from decoder.benchmark.blocks import Block, BlockSampler

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
        ValueError, OSError: what a decoder or the file raises, or Ray is not installed.
    """
    if not blocks:
        return
    if ray is not None:
        from decoder.benchmark.ray_collection import collect_with_ray

        collect_with_ray(blocks, address=ray, file=file, counted=counted)
        return

    def tell(progress: sinter.Progress) -> None:
        for stats in progress.new_stats:
            counted(stats)

    sampler = BlockSampler(blocks)
    try:
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
