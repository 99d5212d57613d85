"""Reads images in background threads, ahead of the one who uses them, in order.

A bounded pool of threads does it. Pillow releases Python's lock while it decodes and
resizes, so threads of one process use all cores, share what is read without copying,
and end with the process. Grain, JAX's own reader of data sets, would add processes, and
the shuffling, batching and checkpoints of training, none of which an inversion has: its
images come once, in an order that is fixed, and a lane's result depends on neither.
"""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from invjax.images import reading, sources
from invjax.images.sources import ImageSource

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_WAITING_PER_THREAD = 2


def read_ahead(
    listed: Iterable[ImageSource],
    use: Callable[[np.ndarray], ResultT],
    *,
    num_threads: int,
) -> Generator[tuple[ImageSource, "Future[ResultT]"], None, None]:
    """Reads images ahead, and makes of each what is wanted of it.

    At most three images per thread are there at a time: one that is read, and two that
    wait. While they are read, all together have no more pixels than Pillow's limit for
    one image, or there is one alone.

    Args:
      listed: sources, as `sources.find` lists them; taken one by one.
      use: called in a thread with an image [h, w, 3] in [0, 1]; what it returns, such
        as a small square, is kept instead of the image.
      num_threads: number of threads.

    Yields:
      Each source, in order, with a future that is done: its `result()` is what `use`
      returned, or raises what reading or `use` has raised.
    """
    # Plugins of Pillow are loaded by one thread.
    reading.endings()
    room = _Room(Image.MAX_IMAGE_PIXELS)

    def read(source: ImageSource) -> ResultT:
        with room.share() as claim:
            return use(sources.decode(source, claim=claim))

    most = (1 + _WAITING_PER_THREAD) * num_threads
    with reading.quietly():
        yield from in_order(read, listed, num_threads=num_threads, most=most)


def in_order(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    num_threads: int,
    most: int,
) -> Generator[tuple[ItemT, "Future[ResultT]"], None, None]:
    """Calls a function on items in threads, ahead of the consumer.

    When the generator is closed or ends, its threads have ended.

    Args:
      function: called in a thread with one item.
      items: taken one by one by the consumer's thread.
      num_threads: number of threads.
      most: number of items that are begun, or done and not yet yielded; at least 1.

    Yields:
      Each item, in order, with its future, which is done.

    Examples:
      >>> pairs = in_order(abs, [3, -2], num_threads=2, most=2)
      >>> [(item, future.result()) for item, future in pairs]
      [(3, 3), (-2, 2)]
    """
    if num_threads < 1 or most < 1:
        raise ValueError(f"{num_threads} threads, {most} items; 1 or more are accepted")
    rest = iter(items)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="invjax-read")
    waiting: deque[tuple[Any, Future[ResultT]]] = deque()

    def begin(count: int) -> None:
        for item in itertools.islice(rest, count):
            waiting.append((item, pool.submit(function, item)))

    try:
        begin(most)
        while waiting:
            # Waits, and leaves what was raised to the consumer.
            waiting[0][1].exception()
            # No name here keeps what the consumer has dropped.
            yield waiting.popleft()
            begin(1)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Room:
    """Lets threads decode as many pixels at a time as there is room for.

    Args:
      total: number of pixels; None for any number.
    """

    def __init__(self, total: int | None):
        self._total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yields what claims room for an image; it is given back in the end."""
        claimed = 0

        def claim(num_pixels: int) -> None:
            nonlocal claimed
            with self._changed:
                self._changed.wait_for(lambda: self._has_room(num_pixels))
                self._taken += num_pixels
            claimed += num_pixels

        try:
            yield claim
        finally:
            with self._changed:
                self._taken -= claimed
                self._changed.notify_all()

    def _has_room(self, num_pixels: int) -> bool:
        if self._total is None or not self._taken:
            return True
        return self._taken + num_pixels <= self._total
