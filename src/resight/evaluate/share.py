"""Several processes, on one machine or many, each rank a share of the queries.

Started by torchrun or the like, which tells each process its number. A query's ranks don't depend
on the other queries, so the outcome is the same to the last digit.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Share:
    """This process is number `index` of `count`."""

    index: int
    count: int

    def part(self, queries: int) -> tuple[int, int]:
        """The range of queries that this process ranks."""
        return queries * self.index // self.count, queries * (self.index + 1) // self.count

    def gather(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frames of all processes, one below the other; every process gets them all."""
        import torch.distributed as processes

        content = io.BytesIO()
        frame.write_ipc(content)
        found: list[bytes] = [b""] * self.count
        processes.all_gather_object(found, content.getvalue())
        return pl.concat([pl.read_ipc(io.BytesIO(one)) for one in found])


def join_processes() -> Share | None:
    """This process's share, as the environment says it; None where it runs alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        return None
    import torch.distributed as processes

    if not processes.is_initialized():
        processes.init_process_group("gloo")
    return Share(processes.get_rank(), count)


def leave_processes() -> None:
    """Part from the others, at the end."""
    import torch.distributed as processes

    if processes.is_initialized():
        processes.barrier()
        processes.destroy_process_group()
