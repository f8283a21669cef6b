"""Parts evaluated and written by this process."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from .chosen import Rows
from .counts import Counts
from .dataset import Folder
from .evaluate import mesh_of
from .part import Evaluator
from .plan import Plan
from .table import table_of


def written_here(plan: Plan, folder: Folder, todo: Iterable[int]) -> Iterator[Counts]:
    """Evaluate and write parts; while one is written the next is evaluated."""
    evaluator = Evaluator(plan, mesh_of())
    waiting: Future[Counts] | None = None
    with ThreadPoolExecutor(1) as writer:
        for number in todo:
            rows = evaluator.part(number)
            if waiting is not None:
                yield waiting.result()
            waiting = writer.submit(_written, plan, folder, number, rows)
        if waiting is not None:
            yield waiting.result()


def written_one(evaluator: Evaluator, folder: Folder, number: int) -> Counts:
    """Evaluate and write one part."""
    return _written(evaluator.plan, folder, number, evaluator.part(number))


def _written(plan: Plan, folder: Folder, number: int, rows: Rows) -> Counts:
    folder.write_part(number, table_of(plan, rows), rows.counts.as_json())
    return rows.counts
